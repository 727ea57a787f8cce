/** Comparing and mending over real sockets, as a person asks for it. */
import { afterAll, beforeAll, expect, it } from 'vitest';

import { startFleet, type Fleet } from '../support/fleet.ts';

let fleet: Fleet;
beforeAll(async () => {
  // Only a knows the other's address: mending needs no call back.
  fleet = await startFleet({ a: {}, b: { peers: [] } });
});
afterAll(() => fleet.close());

const COUNTS = '{ records same onTheirWay differing corrupted ratio samples { recordId difference here { values } there { values } } }';

it('what a peer lost is shown, mended on request, and gone afterwards', async () => {
  const [a, b] = [fleet.of('a'), fleet.of('b')];
  for (const nom of ['Ada', 'Bob']) expect((await a.rest('POST', '/api/v1/users', { nom, email: `${nom}@x.org` })).status).toBe(201);
  expect((await a.graphql(`{ compare(peer: "b") ${COUNTS} }`)).data).toMatchObject({ compare: { records: 2, same: 0, onTheirWay: 2, differing: 0 } });
  expect((await a.rest('POST', '/api/v1/sync-to-b')).status).toBe(200);
  await b.session((client) => client.query(`SET session_replication_role = replica; DELETE FROM users WHERE nom = 'Bob'; DELETE FROM replication.record WHERE key = '11'`));
  const { data } = await a.graphql(`{ compare(peer: "b", deep: true) ${COUNTS} }`);
  expect(data).toMatchObject({ compare: { records: 2, same: 1, differing: 1, ratio: 0.5, samples: [{ recordId: '11', difference: 'DIFFERING', here: [{ values: { nom: 'Bob' } }], there: [] }] } });
  const repaired = await a.graphql(`mutation { repair(peer: "b", deep: true) { mended before ${COUNTS} after ${COUNTS} } }`);
  expect(repaired.data).toMatchObject({ repair: { mended: 1, before: { differing: 1 }, after: { same: 2, differing: 0 } } });
  expect((await b.rest('GET', '/api/v1/users')).body).toMatchObject([{ nom: 'Ada' }, { nom: 'Bob' }]);
});

it('a peer that is none, or is away, is told as for a sync', async () => {
  const { cut } = fleet.of('b');
  expect(await fleet.of('a').codes('{ compare(peer: "z") { ratio } }')).toEqual(['UNKNOWN_PEER']);
  cut();
  expect(await fleet.of('a').codes('{ compare(peer: "b") { ratio } }')).toEqual(['PEER_UNREACHABLE']);
  expect(await fleet.of('a').codes('mutation { repair(peer: "b") { mended } }')).toEqual(['PEER_UNREACHABLE']);
});
