import { afterAll, beforeAll, expect, it } from 'vitest';

import { createConflicts, type Conflicts } from '../../src/services/conflicts.ts';
import { createNotices } from '../../src/services/notices.ts';
import { createRetention } from '../../src/services/retention.ts';
import type { Replica } from '../../src/storage/replica.ts';
import { createParties, type Parties } from './parties.ts';

let parties: Parties;
let a: Replica;
let conflicts: Conflicts;

beforeAll(async () => {
  parties = createParties();
  a = await parties.open('a', { slot: 1 });
  const keeper = { settle: async () => {} };
  conflicts = createConflicts({ replica: a, keeper, notices: createNotices(), parsers: {}, deliver: async () => [] });
  await a.db.query(
    `INSERT INTO replication.conflict (model, key, kind, status, fields, sides, detected_at, resolved_at, resolution, resolved_seq)
     SELECT 'User', n, 'UPDATE_UPDATE', 'RESOLVED', '{}', '[]', 1, replication.clock() - CASE WHEN n <= 2500 THEN 7200000000 ELSE 0 END, 'manual', nextval('replication.resolution') FROM generate_series(1, 2503) n`,
  );
});
afterAll(() => parties.close());

it('what is due is deleted when it starts, however much it is, and the rest is kept', async () => {
  const errors: unknown[] = [];
  const forever = createRetention(a, Infinity, (error) => errors.push(error));
  expect(await forever.purge()).toBe(0);
  await forever.start()();
  const retention = createRetention(a, 3_600, (error) => errors.push(error));
  const stop = retention.start();
  await retention.purge();
  expect((await conflicts.list({ status: 'RESOLVED' })).map(({ id }) => id)).toEqual(['2503', '2502', '2501']);
  await stop();
  expect(errors).toEqual([]);
});

it('a subscriber goes on after a conflict that was deleted since, and is refused one that never was', async () => {
  const closing = new AbortController();
  const following = await conflicts.detected('2000', closing.signal);
  const seen = [await following.next(), await following.next(), await following.next()];
  expect(seen.map(({ value }) => value?.id)).toEqual(['2501', '2502', '2503']);
  closing.abort();
  await expect(conflicts.detected('2504')).rejects.toMatchObject({ code: 'BAD_USER_INPUT' });
});

it('a page is narrowed by record, kind and model', async () => {
  expect(await conflicts.list({ recordId: '2502' })).toHaveLength(1);
  expect(await conflicts.list({ recordId: '2502', kind: 'UNIQUE' })).toEqual([]);
  expect(await conflicts.list({ model: 'Thing' })).toEqual([]);
  await expect(conflicts.list({ recordId: 'a\0' })).rejects.toMatchObject({ code: 'BAD_USER_INPUT' });
});
