/** The documented scenario, over GraphQL and with its typed operations, on two real replicas. */
import { randomUUID } from 'node:crypto';

import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import {
  ConflictDocument, ConflictsDocument, CreateUserDocument, DeleteUserDocument, OverviewDocument, ResolveConflictDocument, ResolveConflictsDocument, SyncToDocument,
  UpdateUserDocument, UserDocument, UsersDocument, type UpdateUserInput, type UserQuery,
} from '../../src/generated/graphql/graphql.ts';
import { startFleet, type Fleet, type FleetReplica } from '../support/fleet.ts';

type User = NonNullable<UserQuery['user']>;

let fleet: Fleet;
let a: FleetReplica;
let b: FleetReplica;
beforeAll(async () => {
  fleet = await startFleet({ a: {}, b: {} });
  a = fleet.of('a');
  b = fleet.of('b');
});
afterAll(() => fleet.close());

const sync = async (from: FleetReplica, peer: string) => (await from.run(SyncToDocument, { peer })).syncTo;
const read = async (on: FleetReplica, { id }: { id: string }): Promise<User | null> => (await on.run(UserDocument, { id })).user ?? null;
const update = async (on: FleetReplica, { id }: { id: string }, input: UpdateUserInput) => (await on.run(UpdateUserDocument, { id, input })).updateUser;
const pending = async (on: FleetReplica) => (await on.run(ConflictsDocument, { status: 'PENDING' })).conflicts;
const resolveAll = async (on: FleetReplica, strategy: 'LATEST' | 'FIELD_WISE', ids?: string[]) =>
  (await on.run(ResolveConflictsDocument, { strategy, ...(ids && { ids }) })).resolveConflicts;

async function shared() {
  const input = { nom: 'Ada', email: `${randomUUID()}@x.org`, telephone: '1' };
  const { createUser: user } = await a.run(CreateUserDocument, { input });
  expect(user).toMatchObject(input);
  await sync(a, 'b');
  return user;
}

async function diverged(onA: UpdateUserInput = { nom: 'A' }, onB: UpdateUserInput = { telephone: '2' }) {
  const user = await shared();
  const [atA, atB] = [await update(a, user, onA), await update(b, user, onB)];
  const synced = await sync(a, 'b');
  expect(synced).toMatchObject({ peer: 'b', conflictsDetected: 1, conflicts: [{ recordId: user.id, status: 'PENDING' }] });
  return { user, atA, atB, conflict: synced.conflicts[0] as (typeof synced.conflicts)[number] };
}

/** Both replicas show the same of a user: values, version and all. */
async function expectSame(user: { id: string }, values: object | null): Promise<void> {
  const [atA, atB] = [await read(a, user), await read(b, user)];
  expect(atA).toEqual(atB);
  if (values === null) expect(atA).toBeNull();
  else expect(atA).toMatchObject({ ...values, conflict: null });
}

const LARGEST = (version: unknown): number => Math.max(...Object.values(version as Record<string, string>).map(Number));
const INSTANT = (stamp: number): string => `${new Date(Math.floor(stamp / 1000)).toISOString().slice(0, -1)}${String(stamp % 1000).padStart(3, '0')}Z`;

describe('two concurrent writes', () => {
  it('are a conflict on both replicas, whole, and settled on both field by field', async () => {
    const { user, atA, atB } = await diverged();
    const sides = [
      {
        recordId: user.id,
        replica: 'a',
        deleted: false,
        changedFields: ['nom'],
        values: { id: Number(user.id), nom: 'A', email: user.email, telephone: '1', createdAt: user.createdAt },
        updatedAt: atA.updatedAt,
        version: atA.version,
      },
      {
        recordId: user.id,
        replica: 'b',
        deleted: false,
        changedFields: ['telephone'],
        values: { id: Number(user.id), nom: 'Ada', email: user.email, telephone: '2', createdAt: user.createdAt },
        updatedAt: atB.updatedAt,
        version: atB.version,
      },
    ];
    for (const replica of [a, b]) {
      const [conflict, ...others] = await pending(replica);
      expect(others).toEqual([]);
      expect(conflict).toMatchObject({ model: 'User', recordId: user.id, kind: 'UPDATE_UPDATE', status: 'PENDING', fields: ['nom', 'telephone'] });
      expect(conflict).toMatchObject({ resolution: null, resolvedAt: null, resolvedBy: null, resolvedValues: null });
      expect(conflict?.versions).toEqual(sides);
      const shown = await read(replica, user);
      expect(shown?.conflict).toEqual(conflict);
      expect((await replica.run(ConflictDocument, { id: conflict?.id ?? '' })).conflict).toEqual(conflict);
      const { updatedAt, version } = replica === a ? atA : atB;
      expect(shown).toMatchObject({ updatedAt, version });
    }

    const result = await resolveAll(b, 'FIELD_WISE');
    expect(result).toMatchObject({ resolved: 1, remaining: 0, undelivered: [] });
    const [resolved] = result.conflicts;
    const values = { id: Number(user.id), nom: 'A', email: user.email, telephone: '2', createdAt: user.createdAt };
    expect(resolved).toMatchObject({ status: 'RESOLVED', resolution: 'field-wise', resolvedBy: 'b', resolvedValues: values });
    // Afterwards the log holds the sides as they stood.
    expect(resolved?.versions).toEqual(sides);
    await expectSame(user, { nom: 'A', telephone: '2' });
    const [entryOnA] = (await a.run(ConflictsDocument, { status: 'RESOLVED', first: 1 })).conflicts;
    expect(entryOnA).toMatchObject({ recordId: user.id, resolution: 'field-wise', resolvedBy: 'b', resolvedValues: values, versions: sides });
    expect(await sync(a, 'b')).toMatchObject({ sent: 0 });
    expect(await sync(b, 'a')).toMatchObject({ sent: 0 });
  });

  it('of one field: the later one stays with either strategy', async () => {
    for (const strategy of ['LATEST', 'FIELD_WISE'] as const) {
      const { user, conflict } = await diverged({ telephone: 'a' }, { telephone: 'b' });
      expect(conflict.fields).toEqual(['telephone']);
      await resolveAll(a, strategy, [conflict.id]);
      await expectSame(user, { telephone: 'b' });
    }
  });

  it('of equal values are none, and the versions agree after the next write', async () => {
    const user = await shared();
    await update(a, user, { telephone: '7' });
    await update(b, user, { telephone: '7' });
    expect(await sync(a, 'b')).toMatchObject({ conflictsDetected: 0, conflicts: [] });
    await update(a, user, { nom: 'Eve' });
    expect(await sync(a, 'b')).toMatchObject({ sent: 1, applied: 1, conflictsDetected: 0 });
    await expectSame(user, { nom: 'Eve', telephone: '7' });
  });

  it.each(['a', 'node_b'])('are settled by choosing %s', async (chosenVersion) => {
    const { user, conflict } = await diverged();
    const { resolveConflict } = await a.run(ResolveConflictDocument, { id: conflict.id, chosenVersion });
    expect(resolveConflict).toMatchObject({ status: 'RESOLVED', resolution: 'manual', resolvedBy: 'a' });
    await expectSame(user, chosenVersion === 'a' ? { nom: 'A', telephone: '1' } : { nom: 'Ada', telephone: '2' });
  });

  it('are settled by values', async () => {
    const { user, conflict } = await diverged();
    const { resolveConflict } = await a.run(ResolveConflictDocument, { id: conflict.id, values: { telephone: null } });
    expect(resolveConflict.resolvedValues).toMatchObject({ nom: 'A', telephone: null });
    await expectSame(user, { nom: 'A', telephone: null });
  });

  it('of which one is a deletion: either outcome', async () => {
    for (const [strategy, values] of [['FIELD_WISE', { nom: 'A' }], ['LATEST', null]] as const) {
      const user = await shared();
      await update(a, user, { nom: 'A' });
      await b.run(DeleteUserDocument, { id: user.id });
      const { conflicts } = await sync(b, 'a');
      expect(conflicts).toMatchObject([{ kind: 'UPDATE_DELETE', fields: ['nom'] }]);
      expect(conflicts[0]?.versions).toMatchObject([
        { replica: 'a', deleted: false, changedFields: ['nom'] },
        { replica: 'b', deleted: true, values: null, changedFields: [] },
      ]);
      expect(await resolveAll(a, strategy)).toMatchObject({ resolved: 1, conflicts: [{ resolvedValues: values }] });
      await expectSame(user, values);
    }
  });
});

describe('a version', () => {
  it('is that of the last write, and updatedAt its instant', async () => {
    const user = await shared();
    const created = await read(a, user);
    expect(created?.version).toEqual({ a: String(LARGEST(user.version)) });
    const later = await update(b, user, { nom: 'Bea' });
    expect(Object.keys(later.version as object)).toEqual(['a', 'b']);
    expect(LARGEST(later.version)).toBeGreaterThan(LARGEST(user.version));
    for (const { version, updatedAt } of [user, later]) expect(updatedAt).toBe(INSTANT(LARGEST(version)));
    await sync(b, 'a');
    await expectSame(user, { version: later.version, updatedAt: later.updatedAt });
  });

  it('does not move where an update changes nothing', async () => {
    const user = await shared();
    const same = await update(a, user, { nom: user.nom, telephone: user.telephone ?? null });
    expect(same).toEqual(user);
    expect(await sync(a, 'b')).toMatchObject({ sent: 0 });
  });

  const UPDATE = UpdateUserDocument.toString();
  it('lets an update through that expects it, and no other', async () => {
    const user = await shared();
    const first = await a.run(UpdateUserDocument, { id: user.id, input: { nom: 'One' }, expectedVersion: user.version });
    expect(first.updateUser.nom).toBe('One');
    const again = { id: user.id, input: { nom: 'Two' }, expectedVersion: user.version };
    expect(await a.codes(UPDATE, again)).toEqual(['VERSION_MISMATCH']);
    expect(await a.codes(UPDATE, { ...again, expectedVersion: {} })).toEqual(['VERSION_MISMATCH']);
    expect(await a.codes(UPDATE, { ...again, expectedVersion: { ...first.updateUser.version, c: '1' } })).toEqual(['VERSION_MISMATCH']);
    expect(await a.codes(UPDATE, { ...again, expectedVersion: { a: 'x' } })).toEqual(['BAD_USER_INPUT']);
    expect(await a.codes(UPDATE, { ...again, id: '424242' })).toEqual(['NOT_FOUND']);
    expect((await read(a, user))?.nom).toBe('One');

    // What a sync brings moves it on too.
    await sync(a, 'b');
    const known = await read(a, user);
    const moved = await update(b, user, { nom: 'Three' });
    await sync(b, 'a');
    expect(await a.codes(UPDATE, { ...again, expectedVersion: known?.version })).toEqual(['VERSION_MISMATCH']);
    const last = await a.run(UpdateUserDocument, { ...again, expectedVersion: moved.version });
    expect(last.updateUser.nom).toBe('Two');
  });

  it('is not moved by a conflict, which changes nothing of what is shown', async () => {
    const { user, atA } = await diverged();
    const { updateUser } = await a.run(UpdateUserDocument, { id: user.id, input: { nom: 'Mine' }, expectedVersion: atA.version });
    expect(updateUser.nom).toBe('Mine');
    expect(await pending(a)).toHaveLength(1);
    await resolveAll(a, 'LATEST');
    await expectSame(user, { nom: 'Mine' });
  });

  it('lets one of many through that expect the same', async () => {
    const user = await shared();
    const codes = await Promise.all(
      Array.from({ length: 40 }, (_, i) => a.codes(UPDATE, { id: user.id, input: { nom: `n${i}` }, expectedVersion: user.version })),
    );
    expect(codes.filter((found) => found.length === 0)).toHaveLength(1);
    expect(new Set(codes.flat())).toEqual(new Set(['VERSION_MISMATCH']));
  });
});

describe('a deletion', () => {
  it('gives back the user as it was, and travels', async () => {
    const user = await shared();
    const { deleteUser } = await b.run(DeleteUserDocument, { id: user.id });
    expect(deleteUser).toEqual(user);
    expect(await sync(b, 'a')).toMatchObject({ sent: 1, applied: 1, conflictsDetected: 0 });
    await expectSame(user, null);
    expect(await b.codes(DeleteUserDocument.toString(), { id: user.id })).toEqual(['NOT_FOUND']);
  });
});

it('users and conflicts are paged', async () => {
  await shared();
  const all = (await a.run(UsersDocument, { first: 1000 })).users.map(({ id }) => id);
  expect(all).toEqual(all.toSorted((x, y) => Number(x) - Number(y)));
  const page = await a.run(UsersDocument, { first: 2, after: all[0] ?? '' });
  expect(page.users.map(({ id }) => id)).toEqual(all.slice(1, 3));
  const log = (await a.run(ConflictsDocument, { first: 1000 })).conflicts.map(({ id }) => id);
  expect((await a.run(ConflictsDocument, { first: 3, after: log[1] ?? '' })).conflicts.map(({ id }) => id)).toEqual(log.slice(2, 5));
});

it('a fresh replica knows of nothing it has not done', async () => {
  const { replica } = await a.run(OverviewDocument);
  expect(replica).toMatchObject({ name: 'a', pendingConflicts: 0, waiting: [] });
  expect(replica.records).toBe((await a.run(UsersDocument, { first: 1000 })).users.length);
});
