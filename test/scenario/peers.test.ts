/** What a replica says of itself and its peers is true at every step, through GraphQL and in the metrics; and every field of the schema can be read. */
import { readFile } from 'node:fs/promises';

import {
  buildSchema, getNamedType, isLeafType, isNonNullType, isObjectType, isListType, type GraphQLObjectType, type GraphQLOutputType, type GraphQLSchema,
} from 'graphql';
import { afterEach, describe, expect, it, vi } from 'vitest';

import { CreateUserDocument, ResolveConflictsDocument, SyncToDocument, UpdateUserDocument } from '../../src/generated/graphql/graphql.ts';
import { startFleet, type Fleet, type FleetReplica } from '../support/fleet.ts';

let fleet: Fleet | undefined;
afterEach(() => fleet?.close());

interface PeerFields {
  readonly name: string;
  readonly url: string;
  readonly state: string;
  readonly lastSyncAt: string | null;
  readonly pendingChanges: number;
  readonly lagSeconds: number;
  readonly consistency: number | null;
}
interface Overview {
  readonly replica: {
    readonly name: string;
    readonly records: number;
    readonly pendingConflicts: number;
    readonly waiting: { model: string; recordId: string; reason: string; values: Record<string, unknown> | null }[];
    readonly peers: PeerFields[];
  };
}

const OVERVIEW = `{ replica { name records pendingConflicts waiting { model recordId reason values }
  peers { name url state lastSyncAt pendingChanges lagSeconds consistency } } }`;
const overview = async (on: FleetReplica) => (await on.graphql<Overview>(OVERVIEW)).data?.replica as Overview['replica'];
const peerOf = async (on: FleetReplica, name: string) => (await overview(on)).peers.find((peer) => peer.name === name) as PeerFields;
const create = async (on: FleetReplica, email: string) => (await on.run(CreateUserDocument, { input: { nom: 'N', email } })).createUser.id;
const update = (on: FleetReplica, id: string, telephone: string) => on.run(UpdateUserDocument, { id, input: { telephone } });
const sync = async (on: FleetReplica, peer: string) => (await on.run(SyncToDocument, { peer })).syncTo;
const SYNC = SyncToDocument.toString();
/** The comparison runs after the sync has answered. */
const compared = (on: FleetReplica, name: string, consistency: number) =>
  expect.poll(async () => (await peerOf(on, name)).consistency, { timeout: 10_000, interval: 20 }).toBeCloseTo(consistency, 6);

describe('what a replica says of a peer', () => {
  it('is true from the first start on, through outage and return', async () => {
    fleet = await startFleet({ a: {}, b: {} });
    const [a, b] = [fleet.of('a'), fleet.of('b')];
    const unknown = { name: 'b', url: b.peerUrl, state: 'UNKNOWN', lastSyncAt: null, pendingChanges: 0, lagSeconds: 0, consistency: null };
    expect(await overview(a)).toEqual({ name: 'a', records: 0, pendingConflicts: 0, waiting: [], peers: [unknown] });

    const began = new Date().toISOString();
    const id = await create(a, 'one@x.org');
    await create(a, 'two@x.org');
    const owed = await peerOf(a, 'b');
    expect(owed).toMatchObject({ state: 'UNKNOWN', pendingChanges: 2 });
    expect(owed.lagSeconds).toBeGreaterThan(0);
    expect((await peerOf(a, 'b')).lagSeconds).toBeGreaterThan(owed.lagSeconds);
    await update(a, id, '5');
    expect((await peerOf(a, 'b')).pendingChanges).toBe(2);

    expect(await sync(a, 'b')).toMatchObject({ sent: 2, applied: 2, skipped: 0 });
    const synced = await peerOf(a, 'b');
    expect(synced).toMatchObject({ state: 'CONNECTED', pendingChanges: 0, lagSeconds: 0 });
    expect(synced.lastSyncAt?.slice(0, -4) ?? '').toMatch(/^\d{4}-\d\d-\d\dT[\d:]{8}\.\d{3}$/);
    expect((synced.lastSyncAt ?? '') > began).toBe(true);
    await compared(a, 'b', 1);
    // What came from a is not owed to it. Its call shows that it is there; its own lastSyncAt is that of its own syncs.
    expect(await peerOf(b, 'a')).toMatchObject({ state: 'CONNECTED', pendingChanges: 0, lagSeconds: 0, lastSyncAt: null });

    b.cut();
    await update(a, id, '6');
    expect(await a.codes(SYNC, { peer: 'b' })).toEqual(['PEER_UNREACHABLE']);
    expect(await peerOf(a, 'b')).toMatchObject({ state: 'UNREACHABLE', pendingChanges: 1, lastSyncAt: synced.lastSyncAt });
    b.heal();
    await sync(a, 'b');
    expect(await peerOf(a, 'b')).toMatchObject({ state: 'CONNECTED', pendingChanges: 0 });

    const before = await peerOf(a, 'b');
    await a.stop();
    await a.start();
    expect(await peerOf(a, 'b')).toEqual({ ...before, state: 'UNKNOWN', consistency: null });
    expect(await sync(a, 'b')).toMatchObject({ sent: 0 });
    expect(((await peerOf(a, 'b')).lastSyncAt ?? '') > (before.lastSyncAt ?? '')).toBe(true);
  });

  it('holds where nothing was ever written, too', async () => {
    fleet = await startFleet({ a: {}, b: {} });
    const a = fleet.of('a');
    expect(await sync(a, 'b')).toMatchObject({ sent: 0, applied: 0, skipped: 0, conflictsDetected: 0 });
    expect(await peerOf(a, 'b')).toMatchObject({ state: 'CONNECTED', pendingChanges: 0, lastSyncAt: expect.stringMatching(/Z$/) });
    await compared(a, 'b', 1);
  });

  it('is REJECTED where they do not fit each other, and stays so though the peer can be compared with', async () => {
    vi.useFakeTimers({ toFake: ['setInterval', 'clearInterval'] });
    fleet = await startFleet({ a: {}, b: { stride: 20 } });
    const [a, b] = [fleet.of('a'), fleet.of('b')];
    await create(a, 'one@x.org');
    const refused = await a.graphql(SYNC, { peer: 'b' });
    expect(refused.errors).toMatchObject([{ extensions: { code: 'PEER_REJECTED' }, message: expect.stringContaining('ID_STRIDE') }]);
    expect(await peerOf(a, 'b')).toMatchObject({ state: 'REJECTED', pendingChanges: 1, lastSyncAt: null });
    expect((await overview(b)).records).toBe(0);
    vi.advanceTimersByTime(30_000);
    await compared(a, 'b', 0);
    expect((await peerOf(a, 'b')).state).toBe('REJECTED');
    vi.useRealTimers();
  });

  it('tells how much is the same, records by records', async () => {
    fleet = await startFleet({ a: {}, b: {} });
    const [a, b] = [fleet.of('a'), fleet.of('b')];
    const ids: string[] = [];
    for (let i = 0; i < 10; i++) ids.push(await create(a, `u${i}@x.org`));
    await sync(a, 'b');
    await compared(a, 'b', 1);
    for (const id of ids.slice(0, 3)) await update(b, id, '3');
    for (let i = 0; i < 2; i++) await create(b, `b${i}@x.org`);
    // b's writes are folded when somebody asks for its conflicts, and else within a second.
    await overview(b);
    await b.rest('GET', '/api/v1/conflicts');
    await sync(a, 'b');
    await compared(a, 'b', 7 / 12);
    expect(await overview(b)).toMatchObject({ records: 12, peers: [{ pendingChanges: 5 }] });
    expect(await overview(a)).toMatchObject({ records: 10 });
    await sync(b, 'a');
    await compared(b, 'a', 1);
  });

  it('two users of one email: the first has it on every replica, the other is a conflict until it is settled', async () => {
    fleet = await startFleet({ a: {}, b: {} });
    const [a, b] = [fleet.of('a'), fleet.of('b')];
    const [onA, onB] = [await create(a, 'same@x.org'), await create(b, 'same@x.org')];
    expect(await sync(a, 'b')).toMatchObject({ sent: 1, applied: 1, conflictsDetected: 1 });
    await sync(b, 'a');
    for (const replica of [a, b]) {
      expect(await overview(replica), replica.name).toMatchObject({ records: 2, pendingConflicts: 1, waiting: [] });
      expect((await replica.rest(`GET`, `/api/v1/users/${onB}`)).body).toMatchObject({ email: `same@x.org#${onB}` });
      const { body } = await replica.rest<Record<string, unknown>[]>('GET', '/api/v1/conflicts?status=pending');
      expect(body).toMatchObject([
        { kind: 'unique', record_id: Number(onB), fields: ['email'], version_a: { id: Number(onA), email: 'same@x.org' }, version_b: { id: Number(onB), email: 'same@x.org' } },
      ]);
    }
    const [conflict] = (await b.rest<{ id: number }[]>('GET', '/api/v1/conflicts?status=pending')).body;
    const path = `/api/v1/conflicts/${conflict?.id}/resolve`;
    expect(await b.rest('POST', path, { values: { email: 'same@x.org' } })).toMatchObject({ status: 409, body: { code: 'UNIQUE_VIOLATION' } });
    expect(await b.rest('POST', path, { chosen_version: 'node_b' })).toMatchObject({ status: 200, body: { status: 'resolved', resolution: 'manual' } });
    for (const replica of [a, b]) {
      expect(await overview(replica), replica.name).toMatchObject({ pendingConflicts: 0, waiting: [] });
      const emails = (await replica.rest<{ email: string }[]>('GET', '/api/v1/users')).body.map(({ email }) => email);
      expect(emails).toEqual([`same@x.org#${onA}`, 'same@x.org']);
    }
  });
});

it('the metrics tell the four measures of a scenario on both replicas', async () => {
  fleet = await startFleet({ a: {}, b: {} });
  const [a, b] = [fleet.of('a'), fleet.of('b')];
  const start = await a.metrics();
  for (const outcome of ['success', 'failure']) expect(start.get(`replication_syncs_total{peer="b",outcome="${outcome}"}`)).toBe(0);
  expect(start.has('replication_consistency_ratio{peer="b"}')).toBe(false);

  const ids = [await create(a, 'one@x.org'), await create(a, 'two@x.org')] as const;
  await sync(a, 'b');
  for (const id of ids) await Promise.all([update(a, id, 'a'), update(b, id, 'b')]);
  await sync(a, 'b');
  b.cut();
  expect(await a.codes(SYNC, { peer: 'b' })).toEqual(['PEER_UNREACHABLE']);
  b.heal();
  const between = await a.metrics();
  expect(between.get('replication_conflicts_pending')).toBe(2);
  expect(between.get('replication_conflicts_detected_total{model="User",kind="update_update"}')).toBe(2);
  await a.run(ResolveConflictsDocument, { strategy: 'LATEST' });
  await compared(a, 'b', 1);

  const [onA, onB] = [await a.metrics(), await b.metrics()];
  // Two syncs asked for, and one that carried the resolutions.
  expect(onA.get('replication_syncs_total{peer="b",outcome="success"}')).toBe(3);
  expect(onA.get('replication_syncs_total{peer="b",outcome="failure"}')).toBe(1);
  expect(onA.get('replication_consistency_ratio{peer="b"}')).toBe(1);
  // The two sides that b answered with count as well.
  expect(onA.get('replication_records_applied_total{peer="b"}')).toBe(2);
  expect(onB.get('replication_records_applied_total{peer="a"}')).toBe(2 + 2 + 2);
  const [skew, fence] = [onA.get('replication_clock_skew_seconds{peer="b"}'), onA.get('replication_feed_fence_seconds')];
  expect(Math.abs(skew ?? Number.NaN)).toBeLessThan(5);
  expect(fence).toBeGreaterThanOrEqual(0);
  for (const samples of [onA, onB]) {
    expect(samples.get('replication_conflicts_detected_total{model="User",kind="update_update"}')).toBe(2);
    expect(samples.get('replication_conflicts_pending')).toBe(0);
    expect(samples.get('replication_conflict_resolution_seconds_count{resolution="latest"}')).toBe(2);
    const mean = (samples.get('replication_conflict_resolution_seconds_sum{resolution="latest"}') ?? 0) / 2;
    expect(mean).toBeGreaterThan(0);
    expect(mean).toBeLessThan(60);
  }
  expect(onA.get('replication_pending_changes{peer="b"}')).toBe(0);
  expect(onA.get('replication_lag_seconds{peer="b"}')).toBe(0);
});

it('every field of every type of the schema can be read', async () => {
  fleet = await startFleet({ a: { conflictRetention: 86_400 }, b: {} });
  const [a, b] = [fleet.of('a'), fleet.of('b')];
  const schema = buildSchema(await readFile(new URL('../../schema/schema.graphql', import.meta.url), 'utf8'));
  const reader = createReader(schema);
  const answered = async (operation: string): Promise<Record<string, unknown>> => {
    const { data, errors } = await a.graphql(operation);
    expect(errors).toBeUndefined();
    return data ?? {};
  };
  const mutate = async (field: string, args: string) => {
    const type = schema.getMutationType()?.getFields()[field]?.type as GraphQLOutputType;
    const data = await answered(`mutation { ${field}${args} ${reader.selection(type)} }`);
    reader.see(type, data[field]);
  };

  await mutate('createUser', '(input: {nom: "Ada", email: "ada@x.org", telephone: "1"})');
  // What b writes cannot be shown on a.
  await a.sql(`ALTER TABLE users ADD CHECK (email <> 'refused@x.org')`);
  await create(b, 'refused@x.org');
  const id = (await a.graphql<{ users: { id: string }[] }>('{ users { id } }')).data?.users[0]?.id ?? '';
  await mutate('syncTo', '(peer: "b")');
  await sync(b, 'a');
  // A row changed behind the triggers.
  await b.sql(`SET session_replication_role = replica; UPDATE users SET nom = 'Changed' WHERE id = ${id}`);
  const comparison = schema.getQueryType()?.getFields()['compare']?.type as GraphQLOutputType;
  reader.see(comparison, (await answered(`{ compare(peer: "b", deep: true) ${reader.selection(comparison)} }`))['compare']);
  await mutate('repair', '(peer: "b", dryRun: false)');
  for (const [strategy, telephone] of [['resolveConflicts(strategy: LATEST)', '2'], ['resolveConflict', '3']] as const) {
    await update(b, id, `b${telephone}`);
    await mutate('updateUser', `(id: ${id}, input: {telephone: "${telephone}"})`);
    await mutate('syncTo', '(peer: "b")');
    await read(answered, reader, schema, id);
    const [pending] = (await a.graphql<{ conflicts: { id: string }[] }>('{ conflicts(status: PENDING) { id } }')).data?.conflicts ?? [];
    if (strategy === 'resolveConflict') await mutate('resolveConflict', `(id: ${pending?.id}, chosenVersion: "a")`);
    else {
      b.cut();
      await mutate('resolveConflicts', '(strategy: LATEST)');
      const replica = schema.getQueryType()?.getFields()['replica']?.type as GraphQLOutputType;
      reader.see(replica, (await answered(`{ replica ${reader.selection(replica)} }`))['replica']);
      b.heal();
      await sync(a, 'b');
    }
  }
  // As a restore from a backup leaves it behind.
  await a.sql(`INSERT INTO replication.aside SELECT 'User', '901', '[{"v":{"b.1":5},"f":{"nom":"Old","email":"old@x.org","createdAt":"2026-01-01 00:00:00+00"},"s":{"*":["b.1",5]}}]', 1`);
  await read(answered, reader, schema, id);
  await mutate('restoreSetAside', '(model: "User", recordId: "901")');
  await mutate('deleteUser', `(id: ${id})`);
  expect(reader.unread()).toEqual([]);
});

async function read(answered: (operation: string) => Promise<Record<string, unknown>>, reader: Reader, schema: GraphQLSchema, id: string): Promise<void> {
  const fields = schema.getQueryType()?.getFields() ?? {};
  const [conflict] = (await answered('{ conflicts { id } }'))['conflicts'] as { id: string }[];
  for (const { name, type, args } of Object.values(fields)) {
    const needed = args.find((arg) => isNonNullType(arg.type));
    const required = needed ? `(${needed.name}: ${needed.name === 'peer' ? '"b"' : name === 'conflict' ? conflict?.id : id})` : '';
    reader.see(type, (await answered(`{ ${name}${required} ${reader.selection(type)} }`))[name]);
  }
}

interface Reader {
  /** Selects every field of a type, a type within itself once. */
  selection(type: GraphQLOutputType): string;
  /** Notes which fields had a value. */
  see(type: GraphQLOutputType, value: unknown): void;
  /** Fields that never had one. */
  unread(): string[];
}

function createReader(schema: GraphQLSchema): Reader {
  const roots = new Set([schema.getQueryType(), schema.getMutationType(), schema.getSubscriptionType()]);
  const types = Object.values(schema.getTypeMap()).filter(
    (type): type is GraphQLObjectType => isObjectType(type) && !type.name.startsWith('__') && !roots.has(type),
  );
  const left = new Set(types.flatMap((type) => Object.keys(type.getFields()).map((field) => `${type.name}.${field}`)));
  const select = (type: GraphQLOutputType, within: readonly string[]): string => {
    const named = getNamedType(type);
    if (isLeafType(named) || !isObjectType(named)) return '';
    const fields = Object.values(named.getFields()).filter((field) => !within.includes(getNamedType(field.type).name));
    return `{ ${fields.map((field) => `${field.name} ${select(field.type, [...within, named.name])}`).join(' ')} }`;
  };
  const see = (type: GraphQLOutputType, value: unknown): void => {
    if (isNonNullType(type)) {
      expect(value).not.toBeNull();
      see(type.ofType, value);
    } else if (isListType(type)) for (const item of (value ?? []) as unknown[]) see(type.ofType, item);
    else if (isObjectType(type) && value !== null) {
      for (const field of Object.values(type.getFields())) {
        const found = (value as Record<string, unknown>)[field.name];
        if (found === undefined) continue;
        if (found !== null) left.delete(`${type.name}.${field.name}`);
        see(field.type, found);
      }
    }
  };
  return { selection: (type) => select(type, []), see, unread: () => [...left] };
}
