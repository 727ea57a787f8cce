/** Large values: whatever is read at once is bounded by bytes, on the way, in a conflict, in its resolution and in the log. */
import { afterEach, describe, expect, it } from 'vitest';

import { listConflicts } from '../../src/storage/conflicts.ts';
import { decide } from '../../src/storage/decide.ts';
import { readStates } from '../../src/storage/states.ts';
import { expectSame } from '../support/compare.ts';
import { intercept } from '../support/intercept.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';

let replicas: Replicas;
afterEach(() => replicas.close());

const MIB = 2 ** 20;

/** Notes the largest answer, in bytes, that a replica gets from its database. */
function watch(name: string): { largest: number } {
  const seen = { largest: 0 };
  intercept(replicas.at(name).replica.db, async (_text, next) => {
    const rows = await next();
    const bytes = (rows ?? []).reduce((sum, row) => sum + row.reduce((all, value) => all + (value?.length ?? 0), 0), 0);
    seen.largest = Math.max(seen.largest, bytes);
    return rows;
  });
  return seen;
}

describe('records of two megabytes each', () => {
  it('are taken over, opposed, listed and resolved a few at a time', async () => {
    replicas = await openReplicas('ab');
    const seen = ['a', 'b'].map(watch);
    await replicas.at('a').sql(`INSERT INTO things SELECT n, repeat('x', ${2 * MIB}), '0' FROM generate_series(1, 12) n`);
    await replicas.rest();
    await replicas.at('a').sql(`UPDATE things SET f1 = repeat('a', ${2 * MIB})`);
    await replicas.at('b').sql(`UPDATE things SET f2 = 'b'`);
    await replicas.rest();
    const { db } = replicas.at('a').replica;
    const page = await listConflicts(db, { status: 'PENDING', first: 100, before: null });
    expect(page.length).toBeLessThan(12);
    const ids: string[] = [];
    for (let before: string | null = null; ; ) {
      const next = await listConflicts(db, { status: 'PENDING', first: 100, before });
      if (next.length === 0) break;
      ids.push(...next.map(({ id }) => id));
      before = ids.at(-1) as string;
    }
    expect(ids.length).toBe(12);
    expect((await decide(replicas.at('a').replica, ids, { strategy: 'field-wise' }, false)).resolved.length).toBe(12);
    await replicas.rest();
    await expectSame(replicas);
    // Two sides and a row of a record, and a page of the log of four times a batch.
    for (const { largest } of seen) expect(largest / MIB).toBeLessThan(40);
  }, 240_000);

  it('that are deleted by a small batch are not all read at once', async () => {
    replicas = await openReplicas('ab');
    await replicas.at('a').sql(`INSERT INTO things SELECT n, repeat('x', ${2 * MIB}), '0' FROM generate_series(1, 12) n`);
    await replicas.rest();
    await replicas.at('b').sql('DELETE FROM things');
    await replicas.at('b').settle();
    const seen = watch('a');
    await replicas.sync('b', 'a');
    expect(await replicas.at('a').sql('SELECT FROM things')).toEqual([]);
    expect(seen.largest / MIB).toBeLessThan(12);
    await expectSame(replicas);
  }, 240_000);
});

describe('a record that no message can hold', () => {
  it('is left out and told of, and stops nothing else; smaller, it is sent', async () => {
    replicas = await openReplicas('ab');
    const a = replicas.at('a');
    await a.sql(`INSERT INTO things VALUES ('huge', repeat('x', ${49 * MIB}), '0')`);
    await a.sql(`INSERT INTO things VALUES ('small', 'y', '0')`);
    await replicas.sync('a', 'b');
    expect(await replicas.at('b').sql('SELECT id FROM things')).toEqual([{ id: 'small' }]);
    // Nor does it break what mends differences.
    expect(await readStates(a.replica, [['Thing', 'huge'], ['Thing', 'small']])).toMatchObject({ count: 1, records: [] });
    expect(a.problems.splice(0)).toEqual([expect.stringContaining('Thing huge: its 1 versions take 49 MiB')]);
    await a.sql(`UPDATE things SET f1 = 'z' WHERE id = 'huge'`);
    await replicas.rest();
    await expectSame(replicas);
  }, 240_000);
});
