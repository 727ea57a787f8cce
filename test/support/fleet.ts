/**
 * Several real replicas in one test, each over a database of its own.
 *
 * Peers reach each other through lines that a test can cut, and whose addresses stay when a replica is started anew; the test itself calls each replica directly.
 */
import { connect, createServer, type AddressInfo, type Socket } from 'node:net';

import pg from 'pg';

import type { ReplicaConfig } from '../../src/config.ts';
import type { TypedDocumentString } from '../../src/generated/graphql/graphql.ts';
import { startReplica, type RunningReplica, type StartOptions } from '../../src/main.ts';
import { createLogger } from '../../src/telemetry/log.ts';
import { createTestDatabase, type TestDatabase } from './postgres.ts';

/** What a replica is started with, where it is not the usual. */
export interface Member extends Partial<Omit<ReplicaConfig, 'peers'>> {
  /** Its peers, by handle; all others unless given. A value is the name by which PEERS calls it. */
  readonly peers?: readonly string[] | Readonly<Record<string, string>>;
  /** The member whose database it shares; one of its own unless given. */
  readonly sharing?: string;
  /** The version of the schema that it has; the project's own unless given. */
  readonly schema?: StartOptions['schema'];
}

export interface LogLine {
  readonly level: number;
  readonly msg: string;
  readonly err?: { readonly message: string };
}

export interface Answer<T> {
  readonly status: number;
  readonly headers: Headers;
  /** Parsed where it is JSON, its text otherwise. */
  readonly body: T;
}

export interface GraphQLResult<T> {
  readonly data?: T | null;
  readonly errors?: readonly { readonly message: string; readonly extensions: { readonly code: string; readonly errors?: readonly { field: string }[] } }[];
}

export interface FleetReplica {
  readonly name: string;
  /** Its own address; another one after each start. */
  readonly url: string;
  /** The address by which its peers know it. */
  readonly peerUrl: string;
  readonly log: readonly LogLine[];
  rest<T = Record<string, unknown>>(method: string, path: string, body?: unknown): Promise<Answer<T>>;
  /** The data of an operation; fails where there are errors. */
  run<R, V>(document: TypedDocumentString<R, V>, variables?: V): Promise<R>;
  graphql<R = Record<string, unknown>>(document: string, variables?: object): Promise<GraphQLResult<R>>;
  /** The codes of an operation's errors. */
  codes(document: string, variables?: object): Promise<string[]>;
  /** As psql does it; rows as objects. */
  sql<R extends pg.QueryResultRow>(text: string, values?: readonly unknown[]): Promise<R[]>;
  /** Over one connection to its database. */
  session<T>(work: (client: pg.Client) => Promise<T>): Promise<T>;
  /** How much of each metric there is now, by its name and labels as Prometheus writes them. */
  metrics(): Promise<Map<string, number>>;
  stop(): Promise<void>;
  start(): Promise<void>;
  /** Stops it, and starts it as one that has this schema. */
  upgrade(schema: StartOptions['schema']): Promise<void>;
  /** Breaks what peers have open to it, and lets none of them reach it. */
  cut(): void;
  heal(): void;
}

export interface Fleet {
  of(handle: string): FleetReplica;
  /** Stops all of it. Fails where a replica logged an error: whatever comes from outside, that is a fault of ours. */
  close(): Promise<void>;
}

/** The level of an error in the log. */
const ERROR = 50;

/**
 * Starts replicas by handle, which is each one's name unless it is given another. Slots are given in order.
 *
 * @param options - `urls`: addresses that peers call by instead of the lines, by handle.
 */
export async function startFleet(members: Readonly<Record<string, Member>>, { urls = {} }: { readonly urls?: Readonly<Record<string, string>> } = {}): Promise<Fleet> {
  const closers: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    while (closers.length > 0) await closers.pop()?.();
  };
  try {
    const handles = Object.keys(members);
    const lines = new Map<string, Line>();
    const databases = new Map<string, TestDatabase>();
    for (const handle of handles) {
      const line = await openLine();
      closers.push(line.close);
      lines.set(handle, line);
      if (members[handle]?.sharing !== undefined) continue;
      const database = await createTestDatabase();
      closers.push(database.close);
      databases.set(handle, database);
    }
    const replicas = handles.map((handle, index) => {
      const { peers = handles.filter((other) => other !== handle), sharing = handle, schema, ...over } = members[handle] ?? {};
      const called = Array.isArray(peers) ? peers.map((peer: string) => [peer, members[peer]?.name ?? peer] as const) : Object.entries(peers as Record<string, string>);
      const config: ReplicaConfig = {
        name: handle,
        slot: index + 1,
        stride: 10,
        host: '127.0.0.1',
        port: 0,
        databaseUrl: databases.get(sharing)?.url ?? null,
        sessionDatabaseUrl: null,
        dataDir: '.data',
        peers: called.map(([peer, name]) => ({ name, url: urls[peer] ?? lines.get(peer)?.url ?? '' })),
        syncMode: 'manual',
        conflictPolicy: 'manual',
        conflictRetention: Infinity,
        tombstoneRetention: Infinity,
        peerSecret: null,
        ...over,
      };
      const replica = createMember(config, lines.get(handle) as Line, schema);
      closers.push(replica.stop);
      return [handle, replica] as const;
    });
    await Promise.all(replicas.map(([, replica]) => replica.start()));
    const byHandle = new Map(replicas);
    return {
      of: (handle) => byHandle.get(handle) as FleetReplica,
      async close() {
        await close();
        const faults = replicas.flatMap(([handle, { log }]) => log.filter(({ level }) => level >= ERROR).map((line) => `${handle}: ${JSON.stringify(line)}`));
        if (faults.length > 0) throw new Error(`replicas logged errors:\n${faults.join('\n')}`);
      },
    };
  } catch (error) {
    await close();
    throw error;
  }
}

function createMember(config: ReplicaConfig, line: Line, first: StartOptions['schema']): FleetReplica {
  const log: LogLine[] = [];
  const logger = createLogger({ replica: config.name, pretty: false, write: (text) => void log.push(JSON.parse(text) as LogLine) });
  let running: RunningReplica | null = null;
  let schema = first;
  const url = (): string => {
    if (running === null) throw new Error(`replica ${config.name} is stopped`);
    return running.url;
  };
  const heal = (): void => line.lead(Number(new URL(url()).port));

  const start = async (): Promise<void> => {
    running = await startReplica(config, { log: logger, onProgress: () => {}, ...(schema && { schema }) });
    heal();
  };
  const stop = async (): Promise<void> => {
    const stopping = running;
    running = null;
    await stopping?.close();
    line.cut();
  };

  const graphql = async <R>(query: string, variables: object = {}): Promise<GraphQLResult<R>> => {
    const response = await fetch(`${url()}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query, variables }),
    });
    return (await response.json()) as GraphQLResult<R>;
  };

  const session = async <T>(work: (client: pg.Client) => Promise<T>): Promise<T> => {
    const client = new pg.Client({ connectionString: config.databaseUrl ?? '' });
    await client.connect();
    try {
      return await work(client);
    } finally {
      await client.end();
    }
  };

  return {
    name: config.name,
    peerUrl: line.url,
    log,
    get url() {
      return url();
    },
    async rest<T>(method: string, path: string, body?: unknown): Promise<Answer<T>> {
      const sent = body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
      const response = await fetch(url() + path, { method, ...sent });
      const text = await response.text();
      const isJson = /json/.test(response.headers.get('content-type') ?? '');
      return { status: response.status, headers: response.headers, body: (isJson ? JSON.parse(text) : text) as T };
    },
    async run<R, V>(document: TypedDocumentString<R, V>, variables?: V): Promise<R> {
      const { data, errors } = await graphql<R>(document.toString(), (variables ?? {}) as object);
      if (errors || !data) throw new Error(`${config.name}: ${JSON.stringify(errors)}`);
      return data;
    },
    graphql,
    codes: async (document, variables) => ((await graphql(document, variables)).errors ?? []).map(({ extensions }) => extensions.code),
    sql: (text, values = []) => session(async (client) => (await client.query(text, [...values])).rows),
    session,
    async metrics() {
      const text = await (await fetch(`${url()}/metrics`)).text();
      const samples = text.split('\n').filter((sample) => sample !== '' && !sample.startsWith('#'));
      return new Map(samples.map((sample) => [sample.slice(0, sample.lastIndexOf(' ')), Number(sample.slice(sample.lastIndexOf(' ') + 1))]));
    },
    start,
    stop,
    async upgrade(upgraded) {
      await stop();
      schema = upgraded;
      await start();
    },
    cut: line.cut,
    heal,
  };
}

interface Line {
  readonly url: string;
  /** Leads what calls it to a port of this machine. */
  lead(port: number): void;
  cut(): void;
  close(): Promise<void>;
}

async function openLine(): Promise<Line> {
  const ends = new Set<Socket>();
  let port: number | null = null;
  const join = (near: Socket, far: Socket): void => {
    for (const [end, other] of [[near, far], [far, near]] as const) {
      ends.add(end);
      end.setNoDelay(true).on('error', () => {}).on('close', () => {
        ends.delete(end);
        other.destroy();
      });
      end.pipe(other);
    }
  };
  const server = createServer((near) => {
    if (port === null) near.on('error', () => {}).resetAndDestroy();
    else join(near, connect(port, '127.0.0.1'));
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = (): void => {
    port = null;
    for (const end of ends) end.destroy();
  };
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    lead: (to) => void (port = to),
    cut,
    close: () => {
      cut();
      return new Promise((resolve) => server.close(() => resolve()));
    },
  };
}
