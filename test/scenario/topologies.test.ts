/** More than two replicas, synchronised by hand along whatever lines there are. */
import { afterEach, describe, expect, it } from 'vitest';

import {
  ConflictsDocument, CreateUserDocument, DeleteUserDocument, ResolveConflictsDocument, SyncToDocument, UpdateUserDocument,
} from '../../src/generated/graphql/graphql.ts';
import { startFleet, type Fleet, type FleetReplica } from '../support/fleet.ts';

let fleet: Fleet | undefined;
afterEach(() => fleet?.close());

type Lines = Readonly<Record<string, readonly string[]>>;
const CHAIN: Lines = { a: ['b'], b: ['a', 'c'], c: ['b'] };
/** One way round. */
const RING: Lines = { a: ['b'], b: ['c'], c: ['d'], d: ['a'] };
const MESH: Lines = { a: ['b', 'c', 'd'], b: ['a', 'c', 'd'], c: ['a', 'b', 'd'], d: ['a', 'b', 'c'] };

async function start(lines: Lines): Promise<FleetReplica[]> {
  fleet = await startFleet(Object.fromEntries(Object.entries(lines).map(([handle, peers]) => [handle, { peers }])));
  return Object.keys(lines).map((handle) => (fleet as Fleet).of(handle));
}

const sync = async (on: FleetReplica, peer: string) => (await on.run(SyncToDocument, { peer })).syncTo;

/** Each line once, in order; how many records were sent. */
async function round(replicas: readonly FleetReplica[], lines: Lines): Promise<number> {
  let sent = 0;
  for (const replica of replicas) for (const peer of lines[replica.name] ?? []) sent += (await sync(replica, peer)).sent;
  return sent;
}

/** Rounds until one sends nothing; how many it took. */
async function quiesce(replicas: readonly FleetReplica[], lines: Lines): Promise<number> {
  for (let rounds = 1; rounds <= 2 * replicas.length; rounds++) if ((await round(replicas, lines)) === 0) return rounds;
  throw new Error('the loops do not die out');
}

const usersOn = (on: FleetReplica) => on.sql('SELECT id, nom, email, telephone FROM users ORDER BY id');
async function expectSame(replicas: readonly FleetReplica[]): Promise<unknown[]> {
  const [first, ...others] = replicas as [FleetReplica, ...FleetReplica[]];
  const users = await usersOn(first);
  const states = 'SELECT key, hash FROM replication.record ORDER BY key';
  for (const replica of others) {
    expect(await usersOn(replica), replica.name).toEqual(users);
    expect(await replica.sql(states), replica.name).toEqual(await first.sql(states));
  }
  return users;
}
const pendingOn = async (on: FleetReplica) => (await on.run(ConflictsDocument, { status: 'PENDING' })).conflicts;

describe.each<[string, Lines]>([['a chain', CHAIN], ['a ring', RING], ['a mesh', MESH]])('%s', (_name, lines) => {
  it('brings every write everywhere, a conflict of all to all, its outcome too, and falls silent', async () => {
    const replicas = await start(lines);
    const created = await Promise.all(
      replicas.map(async (replica) => (await replica.run(CreateUserDocument, { input: { nom: replica.name, email: `${replica.name}@x.org` } })).createUser.id),
    );
    expect(new Set(created).size).toBe(replicas.length);
    await quiesce(replicas, lines);
    expect(await expectSame(replicas)).toHaveLength(replicas.length);
    expect(await round(replicas, lines)).toBe(0);

    // Everybody writes the same user at once; somebody deletes another that somebody else writes.
    const [user = '', other = ''] = created;
    await Promise.all(replicas.map((replica) => replica.run(UpdateUserDocument, { id: user, input: { telephone: replica.name } })));
    await replicas[0]?.run(DeleteUserDocument, { id: other });
    const last = replicas.at(-1) as FleetReplica;
    await last.run(UpdateUserDocument, { id: other, input: { nom: 'kept' } });
    await quiesce(replicas, lines);
    for (const replica of replicas) {
      const pending = await pendingOn(replica);
      expect(pending.map(({ recordId, kind }) => [recordId, kind]).toSorted(), replica.name).toEqual([[user, 'UPDATE_UPDATE'], [other, 'UPDATE_DELETE']].toSorted());
      const sides = pending.find(({ recordId }) => recordId === user)?.versions ?? [];
      expect(sides.map((side) => [side.replica, (side.values as { telephone: string }).telephone])).toEqual(replicas.map(({ name }) => [name, name]));
    }

    const resolver = replicas[1] as FleetReplica;
    expect((await resolver.run(ResolveConflictsDocument, { strategy: 'FIELD_WISE' })).resolveConflicts).toMatchObject({ resolved: 2, undelivered: [] });
    await quiesce(replicas, lines);
    for (const replica of replicas) {
      const { conflicts } = await replica.run(ConflictsDocument, {});
      expect(conflicts.map(({ status, resolution, resolvedBy }) => [status, resolution, resolvedBy]), replica.name).toEqual(
        [1, 2].map(() => ['RESOLVED', 'field-wise', resolver.name]),
      );
    }
    const users = (await expectSame(replicas)) as { id: number; nom: string; telephone: string }[];
    expect(users.find(({ id }) => String(id) === other)).toMatchObject({ nom: 'kept' });
    expect(await round(replicas, lines)).toBe(0);
  });
});
