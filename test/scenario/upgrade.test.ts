/** The schema changes while replicas run under SYNC_MODE=continuous: one is upgraded after the other, and each write goes on. Every wait is for a state. */
import { afterAll, afterEach, describe, expect, it } from 'vitest';

import { startFleet, type Fleet, type FleetReplica } from '../support/fleet.ts';
import { createVersions, users } from '../support/upgrades.ts';

const live = { syncMode: 'continuous' } as const;
const versions = createVersions();
const ADD_NOTE = { note: 'ALTER TABLE users ADD COLUMN note text' };
const ADD_RANK = { rank: "ALTER TABLE users ADD COLUMN rank text NOT NULL DEFAULT 'new'" };
const withNote = () => versions.version(ADD_NOTE, [users({ note: 'String?' })]);
const withRank = () => versions.version(ADD_RANK, [users({ rank: 'String' })]);

let fleet: Fleet;
afterEach(() => fleet.close());
afterAll(() => versions.close());

/** Asks until the answer is as wanted; the test's own timeout ends it otherwise. */
async function eventually<T>(ask: () => Promise<T>, wanted: T): Promise<void> {
  for (;;) {
    const answer = await ask();
    if (JSON.stringify(answer) === JSON.stringify(wanted)) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}

const open = async (names: string, peers: Readonly<Record<string, readonly string[]>> = {}): Promise<FleetReplica[]> => {
  fleet = await startFleet(Object.fromEntries([...names].map((name) => [name, { ...live, ...(peers[name] && { peers: peers[name] }) }])));
  return [...names].map((name) => fleet.of(name));
};
async function create(on: FleetReplica, nom: string): Promise<number> {
  const { body, status } = await on.rest<{ id: number }>('POST', '/api/v1/users', { nom, email: `${nom}@x.org` });
  expect(status).toBe(201);
  return body.id;
}
const edit = async (on: FleetReplica, id: number, change: object): Promise<void> => void expect((await on.rest('PUT', `/api/v1/users/${id}`, change)).status).toBe(200);
const rows = (on: FleetReplica, columns: string) => async (): Promise<unknown[][]> =>
  (await on.session((client) => client.query({ text: `SELECT ${columns} FROM users ORDER BY id`, rowMode: 'array' }))).rows;
const peer = (on: FleetReplica, name: string) => async (): Promise<readonly [string, string | null]> => {
  interface Told {
    readonly replica: { readonly peers: readonly { readonly name: string; readonly state: string; readonly reason: string | null }[] };
  }
  const { data } = await on.graphql<Told>('{ replica { peers { name state reason } } }');
  const found = data?.replica.peers.find((each) => each.name === name);
  return [found?.state ?? '', found?.reason ?? null];
};

describe('a field that one replica has first', () => {
  it('is kept through edits on the one that does not know it, and shown there once it does', async () => {
    const [a, b] = (await open('ab')) as [FleetReplica, FleetReplica];
    const ada = await create(a, 'ada');
    const bob = await create(b, 'bob');
    await eventually(rows(a, 'nom'), [['ada'], ['bob']]);

    await a.upgrade(await withNote());
    await a.sql(`UPDATE users SET note = 'of ' || nom`);
    await create(a, 'cleo');
    await a.sql(`UPDATE users SET note = 'late' WHERE nom = 'cleo'`);
    await eventually(rows(b, 'nom'), [['ada'], ['bob'], ['cleo']]);
    await eventually(async () => (await b.sql('SELECT key FROM replication.record WHERE carries')).length, 3);
    await edit(b, ada, { telephone: '1' });
    await edit(b, bob, { nom: 'rob' });
    await eventually(rows(a, 'nom, telephone, note'), [['ada', '1', 'of ada'], ['rob', null, 'of bob'], ['cleo', null, 'late']]);
    // Where it is known it goes on being written.
    await a.sql(`UPDATE users SET note = 'again' WHERE id = $1`, [ada]);
    await eventually(async () => (await a.rest<{ sent: number }>('POST', '/api/v1/sync-to-b')).body.sent, 0);

    await b.upgrade(await withNote());
    expect(await rows(b, 'nom, telephone, note')()).toEqual([['ada', '1', 'again'], ['rob', null, 'of bob'], ['cleo', null, 'late']]);
    await b.sql(`UPDATE users SET note = 'b' WHERE nom = 'cleo'`);
    await eventually(rows(a, 'note'), [['again'], ['of bob'], ['b']]);
    for (const replica of [a, b]) expect((await replica.rest<unknown[]>('GET', '/api/v1/conflicts')).body).toEqual([]);
    for (const [replica, other] of [[a, 'b'], [b, 'a']] as const) await eventually(peer(replica, other), ['CONNECTED', null]);
  });
});

describe('a chain that is upgraded from its ends', () => {
  it('loses no write that was made before, meanwhile, with a gateway down, or after', async () => {
    const [a, b, c] = (await open('abc', { a: ['b'], b: ['a', 'c'], c: ['b'] })) as [FleetReplica, FleetReplica, FleetReplica];
    const all = [a, b, c];
    const newer = await withRank();
    const ids = new Map<string, number>();
    for (const replica of all) ids.set(replica.name, await create(replica, `of-${replica.name}`));
    for (const replica of all) await eventually(async () => (await rows(replica, 'nom')()).length, 3);

    let telephone = 0;
    for (const upgraded of [c, a, b]) {
      // Each replica edits a user of its own, by the API where it is up, and by SQL where it is not.
      for (const replica of all) await edit(replica, ids.get(replica.name) as number, { telephone: String(++telephone) });
      await upgraded.stop();
      await upgraded.sql(`INSERT INTO users (nom, email) VALUES ('down-' || $1, 'down-' || $1 || '@x.org')`, [upgraded.name]);
      for (const replica of all) if (replica !== upgraded) await create(replica, `meanwhile-${upgraded.name}-${replica.name}`);
      await upgraded.upgrade(newer);
      // A value of the new field, to a user that each of the others edits by itself.
      await upgraded.sql(`UPDATE users SET rank = 'from ' || $1 WHERE id = $2`, [upgraded.name, ids.get(upgraded.name)]);
    }
    for (const replica of all) await edit(replica, ids.get(replica.name) as number, { telephone: 'last' });

    const expected = [
      ...'abc'.split('').map((name) => [`of-${name}`, 'last', `from ${name}`]),
      ...'cab'.split('').flatMap((name) => [`down-${name}`, ...'abc'.replace(name, '').split('').map((other) => `meanwhile-${name}-${other}`)].map((nom) => [nom, null, 'new'])),
    ].toSorted();
    for (const replica of all) await eventually(async () => (await rows(replica, 'nom, telephone, rank')()).toSorted(), expected);
    for (const replica of all) {
      expect((await replica.rest<unknown[]>('GET', '/api/v1/conflicts')).body).toEqual([]);
      await eventually(async () => (await replica.sql('SELECT FROM replication.record WHERE carries OR waiting IS NOT NULL')).length, 0);
    }
    await eventually(async () => (await a.rest<{ sent: number }>('POST', '/api/v1/sync-to-b')).body.sent, 0);
  });
});

describe('a unique constraint that one replica has first', () => {
  it('goes on with the other, tells what collides, and comes there once that is settled', async () => {
    const [a, b] = (await open('ab')) as [FleetReplica, FleetReplica];
    const unique = () => versions.version({ unique: 'CREATE UNIQUE INDEX users_telephone_key ON users (telephone)' }, [users()]);
    await create(a, 'ada');
    await a.upgrade(await unique());
    for (const nom of ['bob', 'cleo']) await edit(b, await create(b, nom), { telephone: '1' });
    await eventually(rows(a, 'nom, telephone'), [['ada', null], ['bob', '1'], ['cleo', null]]);
    expect(await rows(b, 'nom, telephone')()).toEqual([['ada', null], ['bob', '1'], ['cleo', '1']]);
    const pending = async () => (await a.rest<{ id: number; kind: string; fields: string[] }[]>('GET', '/api/v1/conflicts?status=pending')).body;
    await eventually(async () => (await pending()).map(({ kind, fields }) => [kind, fields]), [['unique', ['telephone']]]);
    expect(a.log.map(({ msg }) => msg)).toContainEqual(expect.stringContaining('it has no unique constraint on User (telephone), which this replica has'));

    // Too early: nothing is changed, and the older version goes on.
    await expect(b.upgrade(await unique())).rejects.toThrow(/unique.*\(telephone\)=\(1\) is duplicated/s);
    await b.upgrade(undefined);
    const [conflict] = await pending();
    expect((await a.rest('POST', `/api/v1/conflicts/${conflict?.id}/resolve`, { values: { telephone: '2' } })).status).toBe(200);
    await eventually(rows(b, 'nom, telephone'), [['ada', null], ['bob', '1'], ['cleo', '2']]);
    await b.upgrade(await unique());
    for (const [replica, other] of [[a, 'b'], [b, 'a']] as const) await eventually(peer(replica, other), ['CONNECTED', null]);
    for (const replica of [a, b]) expect(await rows(replica, 'nom, telephone')()).toEqual([['ada', null], ['bob', '1'], ['cleo', '2']]);
    expect(await pending()).toEqual([]);
  });
});

const RETYPED = { telephone: 'ALTER TABLE users ALTER COLUMN telephone TYPE integer USING telephone::integer' };
const REKEYED = { key: 'ALTER TABLE users ALTER COLUMN id TYPE bigint' };
const REQUIRED = { badge: "ALTER TABLE users ADD COLUMN badge text NOT NULL DEFAULT lower('NONE')" };

describe('an incompatible change', () => {
  it.each<[string, Record<string, string>, Record<string, string>, RegExp]>([
    ["a field's type", RETYPED, { telephone: 'Int?' }, /^peer "b" (refused the handshake|does not fit this replica): its field User\.telephone is String, here it is Int\. Bring both to the same version of prisma\/schema\.prisma\.?$/],
    ["the key's type", REKEYED, { id: 'BigInt' }, /^peer "b" .*: the key of its model User is id Int, here it is id BigInt\. Bring both to the same version of prisma\/schema\.prisma\.?$/],
    ['a field that must be written', REQUIRED, { badge: 'String' }, /^peer "b" .*: it lacks field User\.badge, which must be written here\. Give User\.badge a constant default here or let it be null, or upgrade that replica\.?$/],
  ])('(%s) stops that link alone, says what to do, and goes on by itself', async (_what, migration, fields, reason) => {
    const [a, b, c] = (await open('abc')) as [FleetReplica, FleetReplica, FleetReplica];
    const newer = () => versions.version(migration, [users(fields)]);
    const ada = await create(a, 'ada');
    await edit(a, ada, { telephone: '1' });
    for (const replica of [b, c]) await eventually(rows(replica, 'nom, telephone'), [['ada', '1']]);

    await a.upgrade(await newer());
    for (const [replica, name] of [[a, 'b'], [a, 'c'], [b, 'a'], [c, 'a']] as const) await eventually(async () => (await peer(replica, name)())[0], 'REJECTED');
    expect((await peer(a, 'b')())[1]).toMatch(reason);
    expect((await peer(b, 'a')())[1]).toMatch(/^peer "a" .*(Bring both to the same version|or upgrade this replica|or upgrade that replica)/);
    // The others go on with each other; what cannot travel waits where it was written.
    await create(b, 'bob');
    await a.sql(`INSERT INTO users (nom, email) VALUES ('late', 'late@x.org')`);
    await eventually(rows(c, 'nom'), [['ada'], ['bob']]);
    expect(await peer(b, 'c')()).toEqual(['CONNECTED', null]);
    expect(await rows(a, 'nom')()).toEqual([['ada'], ['late']]);
    expect((await a.rest('POST', '/api/v1/sync-to-b')).status).toBe(502);

    await c.upgrade(await newer());
    await eventually(rows(c, 'nom'), [['ada'], ['bob'], ['late']].toSorted());
    await eventually(async () => (await peer(c, 'b')())[0], 'REJECTED');
    await b.upgrade(await newer());
    await create(b, 'dora');
    for (const replica of [a, b, c]) {
      await eventually(async () => (await rows(replica, 'nom')()).flat().toSorted(), ['ada', 'bob', 'dora', 'late']);
      for (const other of [a, b, c]) if (other !== replica) await eventually(peer(replica, other.name), ['CONNECTED', null]);
    }
    for (const replica of [a, b, c]) {
      expect(await replica.sql('SELECT FROM replication.record WHERE waiting IS NOT NULL')).toEqual([]);
      expect((await replica.rest<unknown[]>('GET', '/api/v1/conflicts')).body).toEqual([]);
    }
  });
});
