/** The conflict log's pages, counts and end, whatever wrote to it. */
import fc from 'fast-check';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { countConflicts, findConflicts, lastIdGiven, purgeResolved, type ConflictPage } from '../../src/storage/conflict-log.ts';
import { pendingAmong, pendingByRecord, pendingIds, pendingUnique, readNames } from '../../src/storage/conflicts.ts';
import type { Database, Transaction } from '../../src/storage/database.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';

const KINDS = ['UPDATE_UPDATE', 'UPDATE_DELETE', 'INSERT_INSERT', 'UNIQUE'];
const MODELS = ['Apple', 'Thing', 'Zebra'];

let replicas: Replicas;
let db: Database;

beforeEach(async () => {
  replicas = await openReplicas('a');
  ({ db } = replicas.at('a').replica);
});
afterEach(() => replicas.close());

interface Entry {
  readonly model: string;
  readonly key: string;
  readonly kind: string;
  readonly status: string;
}

/** Resolved ones were resolved as many seconds ago as `age` gives for their place. */
async function add(entries: readonly Entry[], age: (n: number) => number = () => 0): Promise<void> {
  await db.query(
    `INSERT INTO replication.conflict (model, key, kind, status, fields, sides, detected_at, resolved_at, resolution, resolved_seq)
     SELECT model, key, kind, status, '{}', '[]', 1, CASE WHEN status = 'RESOLVED' THEN replication.clock() - age * 1000000 END, 'latest', CASE WHEN status = 'RESOLVED' THEN nextval('replication.resolution') END
       FROM json_to_recordset($1) AS x (model text, key text, kind text, status text, age bigint)`,
    [JSON.stringify(entries.map((entry, n) => ({ ...entry, age: age(n) })))],
  );
}

const counted = async (): Promise<object> => {
  const [row] = await db.query(`SELECT count(*) FILTER (WHERE status = 'PENDING'), count(*) FILTER (WHERE status = 'RESOLVED') FROM replication.conflict`);
  return { pending: Number(row?.[0]), resolved: Number(row?.[1]) };
};

const entryOf = (n: number): Entry => ({
  model: MODELS[n % 3] as string,
  key: `k${n % 5}`,
  kind: KINDS[(n * 7) % 4] as string,
  // A record has one pending entry at most.
  status: n < 5 ? 'PENDING' : 'RESOLVED',
});

it('a page holds the newest that fit, whatever is asked for', async () => {
  const entries = Array.from({ length: 60 }, (_, n) => entryOf(n));
  await add(entries);
  const or = (values: readonly string[]): fc.Arbitrary<string | null> => fc.option(fc.constantFrom(...values, 'none such'));
  const page = fc.record({
    status: fc.option(fc.constantFrom('PENDING' as const, 'RESOLVED' as const)),
    model: or(MODELS),
    key: or(['k0', 'k1', 'k4']),
    kind: fc.option(fc.constantFrom(...KINDS)),
    first: fc.integer({ min: 1, max: 30 }),
    before: fc.option(fc.integer({ min: 1, max: 70 }).map(String)),
  });
  await fc.assert(
    fc.asyncProperty(page, async (asked: ConflictPage) => {
      const fitting = entries.flatMap((entry, n) => {
        const fits = (['status', 'model', 'key', 'kind'] as const).every((name) => (asked[name] ?? entry[name]) === entry[name]);
        return fits && n + 1 < Number(asked.before ?? Infinity) ? [String(n + 1)] : [];
      });
      expect(await findConflicts(db, asked)).toEqual(fitting.toReversed().slice(0, asked.first));
    }),
    { numRuns: 300 },
  );
});

it('the counts are those of the log after whatever came to pass, failed transactions included', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.tuple(fc.constantFrom('open', 'close', 'purge', 'fail'), fc.integer({ min: 1, max: 9 })), { maxLength: 8 }), async (steps) => {
      for (const [step, n] of steps) {
        if (step === 'open') await add([{ model: 'Thing', key: `k${n}`, kind: 'UNIQUE', status: 'PENDING' }]).catch(() => {});
        if (step === 'close') await db.query(`UPDATE replication.conflict SET status = 'RESOLVED', resolved_at = replication.clock(), resolved_seq = nextval('replication.resolution') WHERE status = 'PENDING' AND key < $1`, [`k${n}`]);
        if (step === 'purge') await purgeResolved(replicas.at('a').replica, 0, n);
        if (step === 'fail') {
          const failing = db.transaction(async (tx) => {
            await tx.query('DELETE FROM replication.conflict WHERE id % 2 = 0');
            await tx.query('SELECT 1 / 0');
          });
          await expect(failing).rejects.toThrow('division by zero');
        }
        expect(await countConflicts(db)).toEqual(await counted());
      }
    }),
    { numRuns: 15 },
  );
});

it('what was resolved longer ago than it is to be kept is deleted, oldest first and no more at once than is allowed; what is pending stays', async () => {
  const { replica } = replicas.at('a');
  await add(Array.from({ length: 30 }, (_, n) => entryOf(n)), (n) => 1_000 - n * 10);
  const left = async (): Promise<string[]> => (await findConflicts(db, { first: 100, before: null })).toReversed();
  expect(await purgeResolved(replica, 805, 10)).toBe(10);
  expect(await left()).toEqual(Array.from({ length: 30 }, (_, n) => String(n + 1)).filter((id) => Number(id) <= 5 || Number(id) > 15));
  expect([await purgeResolved(replica, 805, 10), await purgeResolved(replica, 805, 10)]).toEqual([5, 0]);
  expect(await purgeResolved(replica, 0, 1_000)).toBe(10);
  expect(await left()).toEqual(['1', '2', '3', '4', '5']);
  expect(await countConflicts(db)).toEqual({ pending: 5, resolved: 0 });
});

it('an id that was given out is known as such after its entry is gone', async () => {
  expect(await lastIdGiven(db)).toBe('0');
  await add([entryOf(9), entryOf(10)]);
  await purgeResolved(replicas.at('a').replica, 0, 10);
  expect(await lastIdGiven(db)).toBe('2');
});

it('an earlier version’s log is counted when it is upgraded', async () => {
  await add(Array.from({ length: 12 }, (_, n) => entryOf(n)));
  await db.query(`DROP TABLE replication.conflict_count; DROP FUNCTION replication.count_conflicts() CASCADE;
    DROP INDEX replication.conflict_by_key, replication.conflict_by_kind, replication.record_by_bucket; DELETE FROM replication.installed WHERE file = '005-log.sql'`);
  await replicas.reopen('a');
  ({ db } = replicas.at('a').replica);
  expect(await countConflicts(db)).toEqual({ pending: 5, resolved: 7 });
});

/** Rows of the log that were passed by within this transaction, and rows that an index led to. */
async function readIn(tx: Transaction): Promise<number> {
  const [row] = await tx.query(
    `SELECT pg_stat_get_xact_tuples_returned('replication.conflict'::regclass) + sum(pg_stat_get_xact_tuples_returned(indexrelid)) FROM pg_index WHERE indrelid = 'replication.conflict'::regclass`,
  );
  return Number(row?.[0]);
}

it('what is pending is found without passing what is resolved', async () => {
  await add(Array.from({ length: 3_000 }, (_, n) => ({ model: 'Thing', key: `k${n}`, kind: 'UNIQUE', status: n % 1_000 === 0 ? 'PENDING' : 'RESOLVED' })));
  const [found, read] = await db.transaction(async (tx) => [await pendingIds(tx, '1', '3000', 10), await readIn(tx)]);
  expect(found).toEqual(['1001', '2001']);
  expect(read).toBe(2);
});

describe('where nothing was pending when statistics were taken', () => {
  beforeEach(async () => {
    const entries = (status: string): Entry[] => Array.from({ length: 3_000 }, (_, n) => ({ model: 'Thing', key: `k${n}`, kind: 'UPDATE_UPDATE', status }));
    await add(entries('RESOLVED'));
    await db.query('ANALYZE replication.conflict');
    await add(entries('PENDING'));
  });

  it('a record’s pending entry is found without passing those of others', async () => {
    const [found, unique, read] = await db.transaction(async (tx) => [await pendingByRecord(tx, [['Thing', 'k7'], ['Thing', 'k2000'], ['Thing', 'none']]), await pendingUnique(tx, [{ m: 'Thing', k: 'k7' }]), await readIn(tx)]);
    expect([...found]).toEqual([['Thing k7', '3008'], ['Thing k2000', '5001']]);
    expect(unique).toEqual([]);
    expect(read).toBeLessThan(10);
  });

  it('so are those with these numbers', async () => {
    const ids = ['8', '3008', '5001'];
    const [names, among, read] = await db.transaction(async (tx) => [await readNames(tx, ids), await pendingAmong(tx, ids), await readIn(tx)]);
    expect(names.map(({ id }) => id)).toEqual(['3008', '5001']);
    expect(among).toEqual(new Set(['3008', '5001']));
    expect(read).toBeLessThan(10);
  });
});
