/** The documented scenario, over REST, on two real replicas. */
import { randomUUID } from 'node:crypto';

import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { startFleet, type Answer, type Fleet, type FleetReplica } from '../support/fleet.ts';

interface User {
  readonly id: number;
  readonly nom: string;
  readonly email: string;
  readonly telephone: string | null;
}
interface Conflict {
  readonly id: number;
  readonly record_id: number;
  readonly kind: string;
  readonly status: string;
  readonly fields: string[];
  readonly version_a: User | null;
  readonly version_b: User | null;
  readonly resolution: string | null;
  readonly resolved_at: string | null;
  readonly timestamp: string;
}
interface Resolution {
  readonly resolved: number;
  readonly remaining: number;
  readonly undelivered: { peer: string; reason: string }[];
}

let fleet: Fleet;
let a: FleetReplica;
let b: FleetReplica;
beforeAll(async () => {
  fleet = await startFleet({ a: {}, b: {} });
  a = fleet.of('a');
  b = fleet.of('b');
});
afterAll(() => fleet.close());

const sync = (from: FleetReplica, to: string) => from.rest('POST', `/api/v1/sync-to-${to}`);
const put = async (on: FleetReplica, { id }: User, fields: Partial<User>): Promise<User> => {
  const { status, body } = await on.rest<User>('PUT', `/api/v1/users/${id}`, fields);
  expect(status).toBe(200);
  return body;
};
const remove = (on: FleetReplica, { id }: User) => on.rest('DELETE', `/api/v1/users/${id}`);
const userOn = (on: FleetReplica, { id }: User): Promise<Answer<User>> => on.rest<User>('GET', `/api/v1/users/${id}`);
const fieldsOn = async (on: FleetReplica, user: User) => {
  const { status, body: { nom, email, telephone } } = await userOn(on, user);
  return status === 200 ? { nom, email, telephone } : status;
};
const entryOn = async (on: FleetReplica, { id }: User): Promise<Conflict | undefined> => {
  const { body } = await on.rest<Conflict[]>('GET', '/api/v1/conflicts?first=1000');
  return body.find((conflict) => conflict.record_id === id);
};
const pendingOn = async (on: FleetReplica) => (await on.rest<Conflict[]>('GET', '/api/v1/conflicts?status=pending')).body;
const resolveAll = (on: FleetReplica, strategy: string) => on.rest<Resolution>('POST', '/api/v1/resolve-conflicts', { strategy });
const resolveOne = async (on: FleetReplica, user: User, choice: object) =>
  on.rest<Conflict>('POST', `/api/v1/conflicts/${(await entryOn(on, user))?.id}/resolve`, choice);
const mail = (name: string) => `${name}-${randomUUID()}@x.org`;

async function made(on: FleetReplica): Promise<User> {
  const { status, body, headers } = await on.rest<User>('POST', '/api/v1/users', { nom: 'Ada', email: mail('ada'), telephone: '1' });
  expect([status, headers.get('location')]).toEqual([201, `/api/v1/users/${body.id}`]);
  return body;
}

/** A user whom both replicas hold. */
async function shared(): Promise<User> {
  const user = await made(a);
  expect((await sync(a, 'b')).status).toBe(200);
  return user;
}

/** A user whose email was written on a and whose telephone on b, and both know. */
async function diverged(): Promise<{ user: User; email: string }> {
  const user = await shared();
  const email = mail('a');
  await put(a, user, { email });
  await put(b, user, { telephone: '2' });
  expect((await sync(a, 'b')).body).toMatchObject({ sent: 1, conflicts: 1 });
  return { user, email };
}

async function expectBoth(user: User, fields: object | 404): Promise<void> {
  const expected = fields === 404 ? 404 : { ...user, ...fields };
  for (const replica of [a, b]) {
    const found = await fieldsOn(replica, user);
    if (expected === 404) expect(found, replica.name).toBe(404);
    else expect(expected, replica.name).toMatchObject(found as object);
  }
}

async function expectResolved(user: User, resolution: string): Promise<void> {
  for (const replica of [a, b]) {
    const entry = await entryOn(replica, user);
    expect(entry, replica.name).toMatchObject({ status: 'resolved', resolution, resolved_at: expect.stringMatching(/^20.*Z$/) });
    expect((entry?.resolved_at ?? '') >= (entry?.timestamp ?? '')).toBe(true);
    expect(await pendingOn(replica)).toEqual([]);
  }
}

describe('a write on each of two replicas', () => {
  it('is a conflict on both at once after one sync, and one resolution settles it on both', async () => {
    const user = await shared();
    expect(await fieldsOn(b, user)).toEqual({ nom: 'Ada', email: user.email, telephone: '1' });
    const email = mail('new');
    await put(a, user, { email });
    await put(b, user, { telephone: '2' });

    const synced = await sync(a, 'b');
    expect(synced).toMatchObject({ status: 200, body: { peer: 'b', sent: 1, conflicts: 1, duration_ms: expect.any(Number) } });

    for (const replica of [a, b]) {
      expect(await pendingOn(replica)).toMatchObject([
        {
          record_id: user.id,
          model: 'User',
          kind: 'update_update',
          status: 'pending',
          fields: ['email', 'telephone'],
          version_a: { id: user.id, nom: 'Ada', email, telephone: '1' },
          version_b: { id: user.id, nom: 'Ada', email: user.email, telephone: '2' },
          resolution: null,
          resolved_at: null,
        },
      ]);
    }
    // Each goes on showing its own side.
    expect(await fieldsOn(a, user)).toMatchObject({ email, telephone: '1' });
    expect(await fieldsOn(b, user)).toMatchObject({ email: user.email, telephone: '2' });

    const { status, body } = await resolveAll(a, 'field-wise');
    expect(status).toBe(200);
    expect(body).toEqual({ strategy: 'field-wise', resolved: 1, remaining: 0, undelivered: [], duration_ms: expect.any(Number) });
    await expectBoth(user, { email, telephone: '2' });
    await expectResolved(user, 'field-wise');
    expect((await sync(a, 'b')).body).toMatchObject({ sent: 0, applied: 0, skipped: 0, conflicts: 0 });
    expect((await sync(b, 'a')).body).toMatchObject({ sent: 0, applied: 0, skipped: 0, conflicts: 0 });
  });

  it('keeps the whole record that was written last with latest', async () => {
    const { user } = await diverged();
    expect((await resolveAll(b, 'latest')).body).toMatchObject({ resolved: 1, remaining: 0 });
    await expectBoth(user, { telephone: '2' });
    await expectResolved(user, 'latest');
  });

  it.each([
    ['a', 'node_a', 'a'],
    ['a', 'b', 'b'],
    ['b', 'node_a', 'a'],
  ])('keeps the side that somebody on %s chooses as %s', async (on, chosen, side) => {
    const { user, email } = await diverged();
    const { status, body } = await resolveOne(fleet.of(on), user, { chosen_version: chosen });
    expect(status).toBe(200);
    expect(body).toMatchObject({ status: 'resolved', resolution: 'manual', record_id: user.id });
    await expectBoth(user, side === 'a' ? { email } : { telephone: '2' });
    await expectResolved(user, 'manual');
  });

  it('takes values by hand, laid over what is shown where they were given', async () => {
    const { user, email } = await diverged();
    expect((await resolveOne(a, user, { values: { nom: 'Ada L.', telephone: null } })).status).toBe(200);
    await expectBoth(user, { nom: 'Ada L.', email, telephone: null });
    await expectResolved(user, 'manual');
  });

  it('is none where both wrote the same', async () => {
    const user = await shared();
    await put(a, user, { telephone: '7' });
    await put(b, user, { telephone: '7' });
    expect((await sync(a, 'b')).body).toMatchObject({ conflicts: 0 });
    expect((await sync(b, 'a')).body).toMatchObject({ conflicts: 0 });
    await put(b, user, { telephone: '8' });
    expect((await sync(b, 'a')).body).toMatchObject({ sent: 1, conflicts: 0 });
    await expectBoth(user, { telephone: '8' });
    expect(await entryOn(a, user)).toBeUndefined();
    expect(await entryOn(b, user)).toBeUndefined();
  });

  it('is none where one had seen the other', async () => {
    const user = await shared();
    await put(a, user, { telephone: '7' });
    await sync(a, 'b');
    await put(b, user, { telephone: '8' });
    expect((await sync(b, 'a')).body).toMatchObject({ sent: 1, applied: 1, conflicts: 0 });
    await expectBoth(user, { telephone: '8' });
  });
});

describe('an update against a deletion', () => {
  async function deletedOnB(): Promise<User> {
    const user = await shared();
    await put(a, user, { telephone: '9' });
    expect((await remove(b, user)).status).toBe(204);
    expect((await sync(a, 'b')).body).toMatchObject({ conflicts: 1 });
    for (const replica of [a, b]) {
      expect(await entryOn(replica, user)).toMatchObject({
        kind: 'update_delete',
        status: 'pending',
        fields: ['telephone'],
        version_a: { id: user.id, telephone: '9' },
        version_b: null,
      });
    }
    expect(await fieldsOn(a, user)).toMatchObject({ telephone: '9' });
    expect(await fieldsOn(b, user)).toBe(404);
    return user;
  }

  it('keeps the edit with field-wise', async () => {
    const user = await deletedOnB();
    expect((await resolveAll(b, 'field-wise')).body).toMatchObject({ resolved: 1, undelivered: [] });
    await expectBoth(user, { telephone: '9' });
    await expectResolved(user, 'field-wise');
  });

  it('keeps what came last with latest: here the deletion', async () => {
    const user = await deletedOnB();
    await resolveAll(a, 'latest');
    await expectBoth(user, 404);
    await expectResolved(user, 'latest');
  });

  it('keeps either side where it is chosen by hand', async () => {
    const kept = await deletedOnB();
    await resolveOne(b, kept, { chosen_version: 'node_a' });
    await expectBoth(kept, { telephone: '9' });
    const gone = await deletedOnB();
    await resolveOne(a, gone, { chosen_version: 'node_b' });
    await expectBoth(gone, 404);
  });

  it('brings the record back with values', async () => {
    const user = await deletedOnB();
    await resolveOne(b, user, { values: { nom: 'Back' } });
    await expectBoth(user, { nom: 'Back', telephone: '9' });
  });
});

describe('a resolution while the peer is away', () => {
  const ways = ['is stopped', 'cannot be reached'] as const;
  it.each(ways.flatMap((way) => [[way, 'a', 'b'], [way, 'b', 'a']] as const))('that %s says so, and the next sync from %s to %s carries it', async (way, from, to) => {
    const { user, email } = await diverged();
    if (way === 'is stopped') await b.stop();
    else b.cut();
    const { status, body } = await resolveAll(a, 'field-wise');
    expect(status).toBe(200);
    expect(body).toMatchObject({ resolved: 1, remaining: 0, undelivered: [{ peer: 'b', reason: expect.stringContaining('peer "b"') }] });
    const failed = await sync(a, 'b');
    expect(failed).toMatchObject({ status: 502, body: { code: 'PEER_UNREACHABLE', detail: expect.stringContaining('did not answer') } });

    if (way === 'is stopped') await b.start();
    else b.heal();
    expect(await entryOn(b, user)).toMatchObject({ status: 'pending' });
    expect((await sync(fleet.of(from), to)).status).toBe(200);
    await expectBoth(user, { email, telephone: '2' });
    await expectResolved(user, 'field-wise');
  });

  it('goes with a sync from b that needs no handshake, too', async () => {
    const { user, email } = await diverged();
    await made(b);
    await sync(b, 'a');
    b.cut();
    await resolveAll(a, 'field-wise');
    b.heal();
    await made(b);
    expect((await sync(b, 'a')).body).toMatchObject({ sent: 1 });
    await expectBoth(user, { email, telephone: '2' });
    await expectResolved(user, 'field-wise');
  });

  it('does not settle what b wrote meanwhile: that is a conflict with the outcome', async () => {
    const { user } = await diverged();
    b.cut();
    await resolveAll(a, 'field-wise');
    await put(b, user, { telephone: '3' });
    b.heal();
    expect((await sync(a, 'b')).body).toMatchObject({ conflicts: 1 });
    for (const replica of [a, b]) {
      expect(await entryOn(replica, user)).toMatchObject({ status: 'pending', version_a: { telephone: '2' }, version_b: { telephone: '3' } });
    }
    await resolveAll(b, 'latest');
    await expectBoth(user, { telephone: '3' });
  });
});

describe('many conflicts', () => {
  beforeEach(async () => void (await resolveAll(a, 'latest')));

  it('are resolved one by one by their ids, and paged newest first', async () => {
    const users: User[] = [];
    for (let i = 0; i < 5; i++) users.push(await shared());
    for (const user of users) await Promise.all([put(a, user, { telephone: 'a' }), put(b, user, { telephone: 'b' })]);
    expect((await sync(a, 'b')).body).toMatchObject({ sent: 5, conflicts: 5 });

    const all = await pendingOn(a);
    expect(all.map(({ id }) => id)).toEqual(all.map(({ id }) => id).toSorted((x, y) => y - x));
    const page = async (query: string) => (await a.rest<Conflict[]>('GET', `/api/v1/conflicts?status=pending&${query}`)).body.map(({ id }) => id);
    const ids = all.map(({ id }) => id);
    expect(await page('first=2')).toEqual(ids.slice(0, 2));
    expect(await page(`first=2&after=${ids[1]}`)).toEqual(ids.slice(2, 4));
    expect(await page(`after=${ids[4]}`)).toEqual([]);

    const some = [ids[0], String(ids[2])];
    const named = () => a.rest<Resolution>('POST', '/api/v1/resolve-conflicts', { strategy: 'latest', ids: some });
    expect((await named()).body).toMatchObject({ resolved: 2, remaining: 3 });
    expect((await named()).body).toMatchObject({ resolved: 0, remaining: 3 });
    expect(await pendingOn(b)).toHaveLength(3);
    const resolved = (await a.rest<Conflict[]>('GET', '/api/v1/conflicts?status=resolved&first=1')).body;
    expect(resolved.map(({ id }) => id)).toEqual([ids[0]]);

    const unknown = await a.rest('POST', '/api/v1/resolve-conflicts', { strategy: 'latest', ids: [ids[1], 999_999] });
    expect(unknown).toMatchObject({ status: 404, body: { code: 'NOT_FOUND', detail: expect.stringContaining('999999') } });
    expect(await pendingOn(a)).toHaveLength(3);
  });
});

