/** What can stand in the way of a start, found before anything is started, and said in one sentence. */
import { createServer } from 'node:net';

import pg from 'pg';

import { ConfigError, databaseVariable } from './config.ts';
import type { ReplicaConfig } from './config.ts';
import { EmbeddedError } from './storage/embedded.ts';
import { MigrationError } from './storage/migrate.ts';

/** A start that cannot be; the message is meant for the person who asked for it. */
export class StartError extends Error {
  override readonly name = 'StartError';
}

/** How the variables are called in the way a replica was started. */
export interface StartedBy {
  readonly portVariable: 'BASE_PORT' | 'PORT';
  databaseVariable(name: string): string;
}

export const byFleet: StartedBy = { portVariable: 'BASE_PORT', databaseVariable };
export const byReplica: StartedBy = { portVariable: 'PORT', databaseVariable: () => 'DATABASE_URL' };

/** How long a database server may take to answer. */
const ANSWER_MS = 10_000;

/**
 * Looks whether the ports are free and the databases answer.
 *
 * @throws StartError with everything that stands in the way, a line each.
 */
export async function checkStart(replicas: readonly ReplicaConfig[], by: StartedBy): Promise<void> {
  const problems = await Promise.all(replicas.flatMap((replica) => [portProblem(replica, by), databaseProblem(replica, by)]));
  const found = problems.filter((problem) => problem !== null);
  if (found.length > 0) throw new StartError(found.join('\n'));
}

/** What is said of an error to the person who started the replica: its message, and the stack only where it is a fault of ours. */
export function explainError(error: unknown, replica?: ReplicaConfig, by: StartedBy = byReplica): string {
  if (!(error instanceof Error)) return String(error);
  const code = errorCode(error);
  if (replica !== undefined && (code === 'EADDRINUSE' || code === 'EACCES' || code === 'EADDRNOTAVAIL') && 'syscall' in error && error.syscall === 'listen') {
    return listenProblem(code, replica, by);
  }
  if (replica !== undefined && replica.databaseUrl !== null && code !== undefined && isConnectionCode(code)) {
    return connectProblem(error, replica.databaseUrl, by.databaseVariable(replica.name));
  }
  const known = [StartError, ConfigError, EmbeddedError, MigrationError].some((kind) => error instanceof kind);
  const fault = !known && [TypeError, ReferenceError, SyntaxError, RangeError].some((kind) => error instanceof kind);
  return fault ? (error.stack ?? error.message) : error.message || error.name;
}

async function portProblem(replica: ReplicaConfig, by: StartedBy): Promise<string | null> {
  const error = await new Promise<unknown>((settle) => {
    const probe = createServer();
    probe.once('error', settle);
    probe.listen({ port: replica.port, host: replica.host, exclusive: true }, () => probe.close(() => settle(null)));
  });
  return error === null ? null : listenProblem(errorCode(error) ?? String(error), replica, by);
}

function listenProblem(code: string, { name, host, port }: ReplicaConfig, by: StartedBy): string {
  const what = `replica ${name} cannot listen on ${host}:${port}`;
  if (code === 'EADDRINUSE') return `${what}: another program does. Stop it, or set ${by.portVariable} to another port.`;
  if (code === 'EACCES') return `${what}: ports below 1024 are reserved. Set ${by.portVariable} to a higher one.`;
  if (code === 'EADDRNOTAVAIL' || code === 'ENOTFOUND') return `${what}: this machine has no such address. Set HOST to one that it has, such as 127.0.0.1.`;
  return `${what} (${code}). Set HOST and ${by.portVariable} to others.`;
}

async function databaseProblem(replica: ReplicaConfig, by: StartedBy): Promise<string | null> {
  if (replica.databaseUrl === null) return null;
  const client = new pg.Client({ connectionString: replica.databaseUrl, connectionTimeoutMillis: ANSWER_MS, query_timeout: ANSWER_MS });
  client.on('error', () => {});
  try {
    await client.connect();
    await client.query('SELECT 1');
    return null;
  } catch (error) {
    return `replica ${replica.name} ${connectProblem(error, replica.databaseUrl, by.databaseVariable(replica.name))}`;
  } finally {
    await client.end().catch(() => {});
  }
}

function connectProblem(error: unknown, url: string, variable: string): string {
  const { host, pathname, searchParams } = new URL(url);
  const server = host || (searchParams.get('host') ?? 'this machine');
  const database = decodeURIComponent(pathname.slice(1));
  const message = error instanceof Error ? error.message : String(error);
  switch (errorCode(error)) {
    case 'ECONNREFUSED':
      return `cannot reach its database: nothing listens on ${server}. Start PostgreSQL there, or correct ${variable}.`;
    case 'ENOTFOUND':
    case 'EAI_AGAIN':
      return `cannot reach its database: there is no host "${server}" to be found. Correct ${variable}.`;
    case '28P01':
    case '28000':
      return `is refused by its database on ${server}: ${message}. Correct the user and password in ${variable}.`;
    case '3D000':
      return `has no database: there is no "${database}" on ${server}. Create it, or correct ${variable}.`;
    default:
      return `cannot use its database on ${server}: ${message}. Check ${variable}.`;
  }
}

/** Of a connection that tried several addresses, the first's. */
function errorCode(error: unknown): string | undefined {
  if (error instanceof AggregateError && !('code' in error)) return errorCode(error.errors[0]);
  return error instanceof Error && 'code' in error && typeof error.code === 'string' ? error.code : undefined;
}

function isConnectionCode(code: string): boolean {
  return /^(ECONNREFUSED|ENOTFOUND|EAI_AGAIN|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|28P01|28000|3D000)$/.test(code);
}
