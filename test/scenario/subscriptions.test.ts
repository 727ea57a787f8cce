/** conflictDetected and conflictResolved over real sockets, on two real replicas. */
import { createClient, type Client } from 'graphql-ws';
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';
import WebSocket from 'ws';

import { ConflictDetectedDocument, ConflictResolvedDocument, ResolveConflictsDocument, SyncToDocument } from '../../src/generated/graphql/graphql.ts';
import { startFleet, type Fleet, type FleetReplica } from '../support/fleet.ts';

interface Seen {
  readonly id: string;
  readonly recordId: string;
  readonly status: string;
  readonly resolution: string | null;
}
interface Stream {
  /** The next conflict; undefined where the stream has ended. */
  next(): Promise<Seen | undefined>;
  take(count: number): Promise<Seen[]>;
  stop(): Promise<void>;
}

let fleet: Fleet;
let a: FleetReplica;
let b: FleetReplica;
beforeAll(async () => {
  fleet = await startFleet({ a: {}, b: {} });
  a = fleet.of('a');
  b = fleet.of('b');
  await a.sql(`INSERT INTO users (nom, email) SELECT 'N', 'u' || n || '@x.org' FROM generate_series(1, 400) n`);
  await a.run(SyncToDocument, { peer: 'b' });
});
afterAll(() => fleet.close());

let clients: Client[];
beforeEach(() => {
  clients = [];
});
afterEach(async () => {
  await Promise.all(clients.map((client) => client.dispose()));
  await a.run(ResolveConflictsDocument, { strategy: 'LATEST' });
});

function connect(on: FleetReplica): Client {
  const client = createClient({ url: `${on.url.replace('http', 'ws')}/graphql`, webSocketImpl: WebSocket, retryAttempts: 0, lazy: true });
  clients.push(client);
  return client;
}

/** Subscribes, and resolves when the replica listens: the subscription's socket answers a query asked after it. */
async function subscribe(client: Client, field: 'conflictDetected' | 'conflictResolved', after?: string): Promise<Stream> {
  const document = field === 'conflictDetected' ? ConflictDetectedDocument : ConflictResolvedDocument;
  const stream = client.iterate<Record<string, Seen>>({ query: document.toString(), ...(after !== undefined && { variables: { after } }) });
  const queue = [stream.next()];
  const next = async (): Promise<Seen | undefined> => {
    const result = await (queue.shift() ?? stream.next());
    return result.done === true ? undefined : (result.value.data?.[field] as Seen);
  };
  await client.iterate({ query: '{ conflicts(first: 1) { id } }' }).next();
  return {
    next,
    async take(count) {
      const seen: Seen[] = [];
      for (let found; seen.length < count && (found = await next()); ) seen.push(found);
      return seen;
    },
    stop: async () => void (await stream.return?.()),
  };
}

/** Makes conflicts on users n to m of a, in one sync. */
async function clash(from: number, to: number): Promise<void> {
  const set = (on: FleetReplica) => on.sql('UPDATE users SET telephone = $1 || clock_timestamp() WHERE id IN (SELECT id FROM users ORDER BY id OFFSET $2 LIMIT $3)', [on.name, from, to - from]);
  await Promise.all([set(a), set(b)]);
  await a.run(SyncToDocument, { peer: 'b' });
}

const ids = (seen: readonly Seen[]): number[] => seen.map(({ id }) => Number(id));
const lastId = async (on: FleetReplica): Promise<string> => (await on.sql<{ id: string }>('SELECT coalesce(max(id), 0) AS id FROM replication.conflict'))[0]?.id ?? '0';
const idsSince = async (on: FleetReplica, after: string): Promise<number[]> =>
  (await on.sql<{ id: string }>('SELECT id FROM replication.conflict WHERE id > $1 ORDER BY id', [after])).map(({ id }) => Number(id));

describe('live', () => {
  it('a conflict and its resolution are told on both replicas, once each', async () => {
    const streams = await Promise.all(
      [a, b].map(async (replica) => {
        const client = connect(replica);
        return { detected: await subscribe(client, 'conflictDetected'), resolved: await subscribe(client, 'conflictResolved') };
      }),
    );
    await clash(0, 1);
    for (const { detected } of streams) expect(await detected.next()).toMatchObject({ status: 'PENDING', resolution: null });
    await b.run(ResolveConflictsDocument, { strategy: 'FIELD_WISE' });
    for (const { resolved } of streams) expect(await resolved.next()).toMatchObject({ status: 'RESOLVED', resolution: 'field-wise' });
    // Nothing was told twice: what comes next is the next one.
    await clash(1, 2);
    const recordIds = await Promise.all(streams.map(async ({ detected }) => (await detected.next())?.recordId));
    expect(new Set(recordIds).size).toBe(1);
    await a.run(ResolveConflictsDocument, { strategy: 'LATEST' });
    for (const { resolved } of streams) expect(await resolved.next()).toMatchObject({ recordId: recordIds[0], resolution: 'latest' });
  });

  it('a conflict that plain SQL makes is told as one that GraphQL makes', async () => {
    const detected = await subscribe(connect(b), 'conflictDetected');
    await clash(5, 8);
    expect(await detected.take(3)).toHaveLength(3);
  });

  it('one that ends without a decision is told as resolved, by hand', async () => {
    await clash(10, 11);
    const resolved = await subscribe(connect(a), 'conflictResolved');
    const [row] = await a.sql<{ id: number; telephone: string }>('SELECT id, telephone FROM users ORDER BY id OFFSET 10 LIMIT 1');
    await b.sql('UPDATE users SET telephone = $1 WHERE id = $2', [row?.telephone, row?.id]);
    await b.run(SyncToDocument, { peer: 'a' });
    expect(await resolved.next()).toMatchObject({ recordId: String(row?.id), status: 'RESOLVED', resolution: 'manual' });
  });
});

describe('after', () => {
  it('replays what was missed, whatever its status, in order and once, and goes on live', async () => {
    await clash(20, 21);
    const after = await lastId(a);
    await clash(21, 31);
    await a.run(ResolveConflictsDocument, { strategy: 'LATEST' });
    await clash(31, 36);
    const detected = await subscribe(connect(a), 'conflictDetected', after);
    const missed = await detected.take(15);
    expect(ids(missed)).toEqual(await idsSince(a, after));
    expect(missed.map(({ status }) => status)).toEqual([...Array<string>(10).fill('RESOLVED'), ...Array<string>(5).fill('PENDING')]);
    await clash(36, 38);
    expect(ids(await detected.take(2))).toEqual((await idsSince(a, after)).slice(15));
  });

  it('loses and doubles nothing while conflicts arrive by the hundred', async () => {
    await clash(40, 41);
    const after = await lastId(b);
    const ROUNDS = 12;
    const EACH = 25;
    const all = ROUNDS * EACH;
    const early = await subscribe(connect(b), 'conflictDetected', after);
    const streams = [early.take(all)];
    for (let round = 0; round < ROUNDS; round++) {
      const made = clash(50 + round * EACH, 50 + (round + 1) * EACH);
      // Two that come in the middle of it, each on a socket of its own.
      for (let i = 0; i < 2; i++) streams.push(subscribe(connect(b), 'conflictDetected', after).then((stream) => stream.take(all)));
      await made;
    }
    const expected = await idsSince(b, after);
    expect(expected).toHaveLength(all);
    for (const seen of await Promise.all(streams)) expect(ids(seen)).toEqual(expected);
  });

  it('a client that comes back with the last it saw sees each once', async () => {
    await clash(0, 1);
    let last = await lastId(a);
    const first = last;
    const seen: number[] = [];
    for (let round = 0; round < 8; round++) {
      const client = connect(a);
      const detected = await subscribe(client, 'conflictDetected', last);
      const made = clash(350 + round * 5, 355 + round * 5);
      for (const conflict of await detected.take(round % 2 === 0 ? 2 : 5)) {
        seen.push(Number(conflict.id));
        last = conflict.id;
      }
      client.terminate();
      await made;
    }
    const detected = await subscribe(connect(a), 'conflictDetected', last);
    const expected = await idsSince(a, first);
    seen.push(...ids(await detected.take(expected.length - seen.length)));
    expect(seen).toEqual(expected);
  });

  it.each(['999999', '0', '-1', 'x', '99999999999999999999'])('%s, which is no conflict, is refused', async (after) => {
    const stream = connect(a).iterate({ query: ConflictDetectedDocument.toString(), variables: { after } });
    const { value } = (await stream.next()) as { value: unknown };
    expect(value).toMatchObject({ errors: [{ extensions: { code: 'BAD_USER_INPUT' } }] });
  });
});

describe('the end', () => {
  it('of a subscription leaves others alone', async () => {
    const client = connect(a);
    const [one, other] = [await subscribe(client, 'conflictDetected'), await subscribe(client, 'conflictDetected')];
    await one.stop();
    await clash(0, 1);
    expect(await other.next()).toMatchObject({ status: 'PENDING' });
  });

  it('of the replica ends them, and what was missed is replayed when it is back', async () => {
    await clash(2, 3);
    const after = await lastId(b);
    const client = connect(b);
    const detected = await subscribe(client, 'conflictDetected', after);
    const ended = detected.next().then(
      () => 'completed',
      (event: unknown) => (event as { code?: number }).code,
    );
    await b.stop();
    expect(['completed', 1001]).toContain(await ended);
    await b.start();
    await clash(3, 5);
    const again = await subscribe(connect(b), 'conflictDetected', after);
    expect(ids(await again.take(2))).toEqual(await idsSince(b, after));
  });
});
