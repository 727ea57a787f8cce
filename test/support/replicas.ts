/**
 * Replicas over real databases, without servers: what one sends another is the service's own push, through JSON and the protocol's schemas as over HTTP, and can be lost or torn
 * on the way.
 */
import pg from 'pg';
import { afterAll } from 'vitest';

import type { PeerClient } from '../../src/peers/client.ts';
import type { PeerHandlers } from '../../src/peers/endpoint.ts';
import type { Policy } from '../../src/replication/policy.ts';
import { createComparison, type ComparisonService } from '../../src/services/comparison.ts';
import { createIntroductions } from '../../src/services/introductions.ts';
import type { Keeper } from '../../src/services/keeper.ts';
import type { Leadership } from '../../src/services/leadership.ts';
import { createLink, type Link, type Pushed } from '../../src/services/links.ts';
import { createNotices } from '../../src/services/notices.ts';
import { createSync } from '../../src/services/sync.ts';
import { applyConstraints } from '../../src/storage/constraints.ts';
import { applyPolicy, retryWaiting } from '../../src/storage/present.ts';
import { openDatabase, withSession } from '../../src/storage/database.ts';
import { fold } from '../../src/storage/fold.ts';
import { openReplica, type Replica } from '../../src/storage/replica.ts';
import { clientTo, LostError, type Fate } from './memory-client.ts';
import { copyDatabase, createTestDatabase, type TestDatabase } from './postgres.ts';
import { THINGS, type Schema } from './schemas.ts';

export interface TestReplica {
  readonly name: string;
  readonly url: string;
  readonly replica: Replica;
  readonly handlers: PeerHandlers;
  /** What was told of faults since it was opened. */
  readonly problems: string[];
  /** Runs SQL as any writer does; values come as PostgreSQL's text. */
  sql(text: string, values?: readonly unknown[]): Promise<Record<string, string | null>[]>;
  /** Runs `work` on a connection of its own. */
  session<T>(work: (client: pg.PoolClient) => Promise<T>): Promise<T>;
  settle(): Promise<void>;
  /** A link to another that can be kept. */
  link(peer: TestReplica): Link;
  /** What compares it with another. */
  comparison(peer: TestReplica): ComparisonService;
}

export interface Replicas {
  readonly names: readonly string[];
  at(name: string): TestReplica;
  /** `fates` are those of the first batches. Null where the sender has not heard the end of it. */
  sync(from: string, to: string, ...fates: Fate[]): Promise<Pushed | null>;
  /** Syncs these links in turn until all of them send nothing; tells how many records were sent. */
  rest(links?: readonly (readonly [string, string])[]): Promise<number>;
  /** A copy of the database as it is now, to restore. */
  backup(name: string): Promise<TestDatabase>;
  restore(name: string, backup: TestDatabase): Promise<void>;
  /** Closes a replica, does something to its database that needs nobody there, and opens it over the database at this address. */
  move(name: string, meanwhile: () => Promise<string>): Promise<void>;
  /** Closes a replica, changes its tables, and opens it again as one that knows this schema. */
  upgrade(name: string, schema: Schema, migration?: string): Promise<void>;
  /** Closes a replica and opens it again. */
  reopen(name: string, policy?: Policy): Promise<void>;
  close(): Promise<void>;
}

export interface ReplicasOptions {
  readonly schema?: Schema;
  /** By name, where it is another. */
  readonly schemas?: Readonly<Record<string, Schema>>;
  /** By name, where it is not manual. */
  readonly policies?: Readonly<Record<string, Policy>>;
  /** Addresses of databases on other servers, by name: empty ones, which their owner takes away again. */
  readonly urls?: Readonly<Record<string, string>>;
}

interface Opened extends TestReplica {
  readonly database: TestDatabase;
  readonly clientOf: (other: TestReplica, fates: Fate[]) => PeerClient;
  readonly push: (client: PeerClient) => Promise<Pushed>;
  close(): Promise<void>;
}

/** Emptied databases, to be used again: making one takes half a second. */
const free: TestDatabase[] = [];
afterAll(() => Promise.all(free.splice(0).map((database) => database.close())).then(() => {}));

/** Databases on other servers. */
const others = new WeakSet<TestDatabase>();

function elsewhere(url: string): TestDatabase {
  const database = { url, close: async () => {} };
  others.add(database);
  return database;
}

async function make(): Promise<TestDatabase> {
  const database = await createTestDatabase({ empty: true });
  // Deadlocks are looked for after a second otherwise, and some tests are made of them.
  await withSession(database.url, (client) => client.query(`ALTER DATABASE ${new URL(database.url).pathname.slice(1)} SET deadlock_timeout = '30ms'`));
  return database;
}

async function empty(database: TestDatabase): Promise<void> {
  if (others.has(database)) return;
  await withSession(database.url, (client) => client.query('DROP SCHEMA IF EXISTS replication CASCADE; DROP SCHEMA public CASCADE; CREATE SCHEMA public'));
  free.push(database);
}

/** Opens a replica for each letter of `names`, with the slots 1, 2, … */
export async function openReplicas(names: string, { schema = THINGS, schemas = {}, policies = {}, urls = {} }: ReplicasOptions = {}): Promise<Replicas> {
  const order = [...names];
  const open = new Map<string, Opened>();
  const policyOf = new Map<string, Policy>(Object.entries(policies));
  const schemaOf = new Map<string, Schema>(order.map((name) => [name, schemas[name] ?? schema]));
  const copies: TestDatabase[] = [];
  const start = async (name: string, database: TestDatabase): Promise<void> => {
    open.set(name, await openOne(name, order.indexOf(name) + 1, policyOf.get(name) ?? 'manual', schemaOf.get(name) as Schema, database));
  };
  const at = (name: string): Opened => open.get(name) as Opened;
  await Promise.all(
    order.map(async (name) => {
      const own = urls[name];
      const database = own === undefined ? (free.pop() ?? (await make())) : elsewhere(own);
      await withSession(database.url, (client) => client.query((schemaOf.get(name) as Schema).ddl));
      await start(name, database);
    }),
  );

  const sync: Replicas['sync'] = async (from, to, ...fates) => {
    const sender = at(from);
    try {
      return await sender.push(sender.clientOf(at(to), fates));
    } catch (error) {
      if (error instanceof LostError) return null;
      throw error;
    }
  };

  return {
    names: order,
    at,
    sync,

    async rest(links = linksOf('mesh', order)) {
      let total = 0;
      for (let round = 0; round < 2 * order.length + 4; round++) {
        let sent = 0;
        for (const [from, to] of links) sent += (await sync(from, to))?.sent ?? 0;
        if (sent === 0) return total;
        total += sent;
      }
      throw new Error('the replicas never come to rest');
    },

    async backup(name) {
      const { database } = at(name);
      await at(name).close();
      const copy = await copyDatabase(database.url);
      copies.push(copy);
      await start(name, database);
      return copy;
    },

    async restore(name, backup) {
      await at(name).close();
      await at(name).database.close();
      await start(name, await copyDatabase(backup.url));
    },

    async move(name, meanwhile) {
      await at(name).close();
      await start(name, elsewhere(await meanwhile()));
    },

    async upgrade(name, upgraded, migration = '') {
      const { database } = at(name);
      await at(name).close();
      await withSession(database.url, (client) => client.query(migration));
      schemaOf.set(name, upgraded);
      await start(name, database);
    },

    async reopen(name, policy) {
      const { database } = at(name);
      if (policy) policyOf.set(name, policy);
      await at(name).close();
      await start(name, database);
    },

    async close() {
      await Promise.all([...open.values()].map((each) => each.close()));
      await Promise.all([...open.values()].map(({ database }) => database).map(empty));
      await Promise.all(copies.map((copy) => copy.close()));
    },
  };
}

export type Topology = 'chain' | 'ring' | 'star' | 'mesh';

/** The links of a topology, in both directions. */
export function linksOf(topology: Topology, names: readonly string[]): (readonly [string, string])[] {
  const linked = (i: number, j: number): boolean => {
    const apart = Math.abs(i - j);
    return { mesh: true, chain: apart === 1, ring: apart === 1 || apart === names.length - 1, star: i === 0 || j === 0 }[topology];
  };
  return names.flatMap((from, i) => names.flatMap((to, j) => (i !== j && linked(i, j) ? [[from, to] as const] : [])));
}

/** There is no other gateway. */
const ALONE: Pick<Leadership, 'onLead'> = {
  onLead(start) {
    const stop = start();
    return async () => stop();
  },
};

async function openOne(name: string, slot: number, policy: Policy, schema: Schema, database: TestDatabase): Promise<Opened> {
  const problems: string[] = [];
  const db = openDatabase(database.url, { size: 6, onError: () => {} });
  const replica = await openReplica(db, { name, slot, stride: 10, policy, models: schema.models, report: (problem) => problems.push(problem) });
  const writers = new pg.Pool({ connectionString: database.url, max: 20, types: { getTypeParser: () => (value: string) => value } as pg.CustomTypesConfig });
  writers.on('error', () => {});
  const notices = createNotices();
  await applyPolicy(replica, notices.conflicts);
  await applyConstraints(replica, notices.conflicts);
  // As the service's, but without its timer: nothing is folded behind a test's back.
  const keeper: Pick<Keeper, 'settle'> = {
    async settle() {
      await fold(replica, notices.conflicts);
      await retryWaiting(replica, 200, notices.conflicts);
    },
  };
  const introductions = createIntroductions(replica, { skew: () => {}, warn: () => {} });
  const service = createSync({
    replica,
    connect: () => {
      throw new Error('it has no peers of its own');
    },
    leadership: ALONE,
    introductions,
    keeper,
    notices,
    events: { joined: () => {}, left: () => {}, finished: () => {}, applied: () => {}, failed: (error) => problems.push(String(error)) },
    live: false,
    random: () => 0,
  });
  const comparisonWith = (peer: TestReplica | null): ComparisonService =>
    createComparison({
      replica,
      keeper,
      notices,
      clientOf: async () => clientTo(peer as TestReplica, []),
      syncTo: async () => void (peer && (await createLink({ replica, client: clientTo(peer, []), introductions, keeper, notices }).push(false, false))),
    });
  return {
    name,
    url: database.url,
    database,
    replica,
    problems,
    handlers: { ...service.handlers, ...comparisonWith(null).handlers },
    comparison: (peer) => comparisonWith(peer),
    link: (peer) => createLink({ replica, client: clientTo(peer, []), introductions, keeper, notices }),
    async sql(text, values = []) {
      const { rows } = await writers.query<Record<string, string | null>>(text, [...values]);
      return rows;
    },
    async session(work) {
      const client = await writers.connect();
      try {
        return await work(client);
      } finally {
        // What it has set must not outlive it.
        client.release(true);
      }
    },
    settle: keeper.settle,
    clientOf: (other, fates) => clientTo(other, fates),
    push: (client) => createLink({ replica, client, introductions, keeper, notices }).push(false, false),
    async close() {
      await service.close();
      await writers.end();
      await db.close();
    },
  };
}
