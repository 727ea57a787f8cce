/** A replica that its peer tells of deletions which it was restored to before, over real sockets, as an operator sees it. */
import { afterAll, beforeAll, expect, it } from 'vitest';

import { startFleet, type Fleet } from '../support/fleet.ts';

let fleet: Fleet;
beforeAll(async () => {
  fleet = await startFleet({ a: {}, b: {} });
});
afterAll(() => fleet.close());

/** In order of id. */
const BACK = ['Cyd', 'Ada', 'Bob'];
const ASIDE = '{ replica { reseeding setAside { model recordId values } } }';
const names = async (handle: string): Promise<unknown> => ((await fleet.of(handle).rest('GET', '/api/v1/users')).body as unknown as { nom: string }[]).map(({ nom }) => nom);

it('takes everything anew, shows what nobody has, and brings it back when told to', async () => {
  const [a, b] = [fleet.of('a'), fleet.of('b')];
  const sync = async (): Promise<void> => {
    expect((await a.rest('POST', '/api/v1/sync-to-b')).status).toBe(200);
    expect((await b.rest('POST', '/api/v1/sync-to-a')).status).toBe(200);
  };
  for (const nom of ['Ada', 'Bob']) await b.rest('POST', '/api/v1/users', { nom, email: `${nom}@x.org` });
  await sync();
  // As b is once it has forgotten a record that a had known to be deleted, in a history that a has lost.
  await b.session((client) =>
    client.query(`SET session_replication_role = replica; DELETE FROM users WHERE nom = 'Bob'; DELETE FROM replication.record WHERE key = '12';
      INSERT INTO replication.floor SELECT id, 'lost', replication.clock(), 1 FROM replication.roster WHERE name = 'a'`),
  );
  expect((await a.rest('POST', '/api/v1/sync-to-b')).status).toBe(200);
  expect((await a.graphql(ASIDE)).data).toMatchObject({ replica: { reseeding: true } });
  expect(await names('a')).toEqual(['Ada', 'Bob']);
  await sync();
  // Folding it tidies up what nobody has confirmed.
  await a.rest('POST', '/api/v1/users', { nom: 'Cyd', email: 'c@x.org' });
  await sync();
  expect((await a.graphql(ASIDE)).data).toMatchObject({ replica: { reseeding: false, setAside: [{ model: 'User', recordId: '12', values: { nom: 'Bob' } }] } });
  expect([await names('a'), await names('b')]).toEqual([['Cyd', 'Ada'], ['Cyd', 'Ada']]);
  expect((await a.graphql('mutation { restoreSetAside(model: "User", recordId: "12") { name } }')).errors).toBeUndefined();
  await sync();
  expect([await names('a'), await names('b')]).toEqual([BACK, BACK]);
  expect((await a.graphql(ASIDE)).data).toMatchObject({ replica: { setAside: [] } });
});

it('brings back a deletion, too', async () => {
  const a = fleet.of('a');
  const { body } = await a.rest('POST', '/api/v1/users', { nom: 'Dan', email: 'd@x.org' });
  const id = String((body as unknown as { id: number }).id);
  const gone = JSON.stringify([{ v: { 'a.lost': 1 }, s: { '*': ['a.lost', 1] }, f: null }]);
  await a.session((client) => client.query(`INSERT INTO replication.aside (model, key, versions, since) VALUES ('User', $1, $2, replication.clock())`, [id, gone]));
  expect((await a.graphql('mutation ($id: ID!) { restoreSetAside(model: "User", recordId: $id) { name } }', { id })).errors).toBeUndefined();
  expect(await names('a')).not.toContain('Dan');
});
