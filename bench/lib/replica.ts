/** A replica as a person starts it: `npm run replica`, a process of its own. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream } from 'node:fs';
import { readFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import type { Bench } from './measure.ts';
import { memoryOf } from './process.ts';

export interface BenchReplica {
  readonly name: string;
  readonly url: string;
  readonly databaseUrl: string;
  readonly pid: number;
  /** Sends one GraphQL operation. @throws Error with the first error's message. */
  ask<T>(query: string, variables?: Readonly<Record<string, unknown>>): Promise<T>;
  /** MiB that the process holds now, and the most it held. */
  memory(): { readonly now: number; readonly peak: number };
  stop(): Promise<void>;
}

export interface BenchReplicaOptions {
  readonly bench: Bench;
  readonly name: string;
  readonly port: number;
  readonly databaseUrl: string;
  readonly peers: Readonly<Record<string, number>>;
  readonly env?: Readonly<Record<string, string>>;
}

export async function startReplica({ bench, name, port, databaseUrl, peers, env = {} }: BenchReplicaOptions): Promise<BenchReplica> {
  const { root, folder } = bench;
  const url = `http://127.0.0.1:${port}`;
  const { scripts } = JSON.parse(await readFile(join(root, 'package.json'), 'utf8')) as { scripts: { replica: string } };
  const child = spawn(process.execPath, scripts.replica.split(' ').slice(1), {
    cwd: root,
    env: {
      PATH: process.env['PATH'] ?? '',
      REPLICA: name,
      PORT: String(port),
      DATABASE_URL: databaseUrl,
      PEERS: Object.entries(peers).map(([peer, at]) => `${peer}=http://127.0.0.1:${at}`).join(','),
      ...env,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let last = '';
  const log = createWriteStream(join(folder, `${name}-${port}.log`), { flags: 'a' });
  child.stderr.on('data', (text: Buffer) => {
    last = text.toString();
    log.write(text);
  });
  const gone = once(child, 'exit');
  const ready = new Promise<void>((settle) => createInterface({ input: child.stdout }).on('line', (line) => void (line.includes('is ready') && settle())));
  await Promise.race([
    ready,
    gone.then(() => {
      throw new Error(`replica ${name} ended before it was ready: ${last}`);
    }),
  ]);
  const { pid } = child as { pid: number };
  return {
    name,
    url,
    databaseUrl,
    pid,
    ask: (query, variables) => ask(url, query, variables),
    memory: () => memoryOf(pid),
    async stop() {
      if (child.exitCode === null && child.signalCode === null) {
        bench.held(memoryOf(pid).peak);
        child.kill('SIGTERM');
        await gone;
      }
      log.end();
    },
  };
}

export async function freePorts(count: number): Promise<number[]> {
  const servers = await Promise.all(
    Array.from({ length: count }, async () => {
      const server = createServer().listen(0, '127.0.0.1');
      await once(server, 'listening');
      return server;
    }),
  );
  const ports = servers.map((server) => (server.address() as { port: number }).port);
  await Promise.all(servers.map(async (server) => once(server.close(), 'close')));
  return ports;
}

/** Sends one GraphQL operation. @throws Error with the first error's message. */
export async function ask<T>(url: string, query: string, variables: Readonly<Record<string, unknown>> = {}): Promise<T> {
  const response = await fetch(`${url}/graphql`, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ query, variables }) });
  const { data, errors } = (await response.json()) as { data: T; errors?: { message: string }[] };
  if (errors?.[0]) throw new Error(`${url}: ${errors[0].message}`);
  return data;
}

/** A free port whose next one is free too. */
export async function freePortPair(): Promise<number> {
  for (;;) {
    const first = createServer().listen(0, '127.0.0.1');
    await once(first, 'listening');
    const { port } = first.address() as { port: number };
    const second = createServer();
    const isFree = port < 65_535 && (await once(second.listen(port + 1, '127.0.0.1'), 'listening').then(() => true, () => false));
    await Promise.all([first, ...(isFree ? [second] : [])].map(async (server) => once(server.close(), 'close')));
    if (isFree) return port;
  }
}
