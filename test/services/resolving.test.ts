/** Resolving more conflicts than one transaction takes: the peers get what is resolved meanwhile. */
import { afterEach, beforeEach, expect, it } from 'vitest';

import { createConflicts, type Undelivered } from '../../src/services/conflicts.ts';
import { createNotices } from '../../src/services/notices.ts';
import { countConflicts } from '../../src/storage/conflict-log.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';

const COUNT = 3_010;
let replicas: Replicas;
/** How many conflicts were pending at each delivery. */
let deliveries: number[];

beforeEach(async () => {
  deliveries = [];
  replicas = await openReplicas('ab');
  await replicas.at('a').sql(`INSERT INTO things SELECT n, '0', '0' FROM generate_series(1, ${COUNT}) n`);
  await replicas.sync('a', 'b');
  await replicas.at('a').sql(`UPDATE things SET f1 = 'a'`);
  await replicas.at('b').sql(`UPDATE things SET f2 = 'b'`);
  await replicas.sync('a', 'b');
});
afterEach(() => replicas.close());

function conflictsOf(deliver: (pending: number) => Promise<Undelivered[]>): ReturnType<typeof createConflicts> {
  const { replica, settle } = replicas.at('a');
  return createConflicts({
    replica,
    keeper: { settle },
    notices: createNotices(),
    parsers: {},
    deliver: async () => {
      const { pending } = await countConflicts(replica.db);
      deliveries.push(pending);
      return deliver(pending);
    },
  });
}

it('delivers while more are resolved, and once more when all are', async () => {
  const conflicts = conflictsOf(async () => []);
  const result = await conflicts.resolveAll('FIELD_WISE');
  expect(result).toMatchObject({ resolved: COUNT, remaining: 0, undelivered: [] });
  expect((await result.conflicts(1000)).map(({ id }) => Number(id))).toEqual(Array.from({ length: 1000 }, (_, n) => n + 1));
  expect(deliveries[0]).toBeGreaterThan(0);
  expect([deliveries.length > 1, deliveries.at(-1)]).toEqual([true, 0]);
});

it('waits once for a peer that does not answer, and tells of it', async () => {
  const conflicts = conflictsOf(async () => [{ peer: 'b', reason: 'it does not answer' }]);
  const ids = Array.from({ length: COUNT }, (_, n) => String(n + 1));
  expect(await conflicts.resolveAll('LATEST', ids)).toMatchObject({ resolved: COUNT, remaining: 0, undelivered: [{ peer: 'b' }] });
  expect(deliveries).toHaveLength(2);
});

it('goes on where a delivery fails meanwhile, and fails where the last one does', async () => {
  const conflicts = conflictsOf(async (pending) => {
    if (pending > 0) throw new Error('the database is gone');
    return [];
  });
  expect(await conflicts.resolveAll('LATEST')).toMatchObject({ resolved: COUNT });
  expect(deliveries).toHaveLength(2);
});
