/** Records that belong to others: whatever the order of arrival and whatever the foreign keys do, replicas of equal states show equal tables, and nothing cascades in silence. */
import fc from 'fast-check';
import { afterEach, describe, expect, it } from 'vitest';

import { latest } from '../../src/replication/policy.ts';
import type { Fields } from '../../src/replication/version.ts';
import { readWaiting } from '../../src/storage/present.ts';
import { expectSame, rowsOf, valuesOf } from '../support/compare.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { FAMILY, model, type Schema } from '../support/schemas.ts';

const ACTIONS = ['CASCADE', 'SET NULL', 'SET DEFAULT', 'NO ACTION', 'RESTRICT'] as const;

/** Three generations; the third refers to itself as well, and the first to the second, in a circle. */
const generations = (action: (typeof ACTIONS)[number]): Schema => ({
  ddl: `CREATE TABLE g (id text PRIMARY KEY, up text, own text, name text);
        CREATE TABLE p (id text PRIMARY KEY, up text REFERENCES g ON DELETE ${action}, own text, name text);
        CREATE TABLE c (id text PRIMARY KEY, up text REFERENCES p ON DELETE ${action}, own text REFERENCES c ON DELETE ${action}, name text);
        ALTER TABLE g ADD FOREIGN KEY (up) REFERENCES p ON DELETE ${action}`,
  models: ['c', 'g', 'p'].map((name) => model(name.toUpperCase(), name, { id: 'String', up: 'String?', own: 'String?', name: 'String?' })),
});
const PARENT = { g: 'p', p: 'g', c: 'p' } as const;

const on = fc.constantFrom('a', 'b', 'c');
const key = fc.nat(1);
const table = fc.constantFrom('g', 'p', 'c');
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ do: fc.constant('insert' as const), on, table, key, up: fc.option(key), own: fc.option(key, { freq: 1 }) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('delete' as const), on, table, key }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('point' as const), on, table, key, up: fc.option(key), own: fc.option(key, { freq: 1 }) }) },
  // What it is all about: one deletes a parent, and another, who has not heard of it, gives it a child.
  { weight: 3, arbitrary: fc.record({ do: fc.constant('orphan' as const), on, to: on, table, key, up: key }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant('sync' as const), on, to: on }) },
);
const fuzz = Number(process.env['FUZZ'] ?? 0);

let replicas: Replicas;
afterEach(() => replicas.close());

const sql = (name: string, text: string, values: readonly unknown[] = []): Promise<Record<string, string | null>[]> => replicas.at(name).sql(text, values);
const waiting = async (name: string): Promise<[string, string | null][]> =>
  (await readWaiting(replicas.at(name).replica, 1000)).map(({ table: { name: of }, key: id, waiting: reason }) => [`${of} ${id}`, reason]);

it.each(ACTIONS)('ON DELETE %s: equal tables, and whatever lives is shown or waits with a reason', async (action) => {
  replicas = await openReplicas('abc', { schema: generations(action), policies: { a: 'latest', b: 'latest', c: 'latest' } });
  let run = 0;
  let orphans = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 8, maxLength: 16, size: 'max' }), async (history) => {
      run++;
      const named = (n: number | null | undefined): string | null => (n === null || n === undefined ? null : `${run}.${n}`);
      let last = 0;
      // All begin with a family: without one, most of what follows would be refused.
      for (const [of, up] of [['g', null], ['p', 0], ['c', 0]] as const) {
        for (const n of [0, 1]) await sql('a', `INSERT INTO ${of} VALUES ($1, $2, NULL, 'first')`, [named(n), named(up)]);
      }
      await replicas.rest();
      for (const each of history) {
        if (each.do === 'sync') {
          if (each.on !== each.to) await replicas.sync(each.on, each.to);
          continue;
        }
        const id = named(each.key);
        // What the foreign keys refuse was not written.
        const refused = (error: Error & { code?: string }): void => expect(['23503', '23505', '23001']).toContain(error.code);
        if (each.do === 'orphan') {
          await sql(each.on, `DELETE FROM ${PARENT[each.table]} WHERE id = $1`, [named(each.up)]).catch(refused);
          await sql(each.to, `INSERT INTO ${each.table} VALUES ($1, $2, NULL, $3) ON CONFLICT (id) DO UPDATE SET up = excluded.up, name = excluded.name`, [id, named(each.up), `${each.to}${++last}`]).catch(refused);
        } else if (each.do === 'delete') await sql(each.on, `DELETE FROM ${each.table} WHERE id = $1`, [id]).catch(refused);
        else {
          const values = [id, named(each.up), each.table === 'c' ? named(each.own) : null, `${each.on}${++last}`];
          if (each.do === 'insert') await sql(each.on, `INSERT INTO ${each.table} VALUES ($1, $2, $3, $4)`, values).catch(refused);
          else await sql(each.on, `UPDATE ${each.table} SET up = $2, own = $3, name = $4 WHERE id = $1`, values).catch(refused);
        }
      }
      await replicas.rest();
      const states = await expectSame(replicas);
      const living = new Map([...states].flatMap(([record, state]): [string, Fields][] => {
        const { fields } = latest(state);
        return fields === null ? [] : [[record, fields]];
      }));
      // The most that can be shown: whoever lacks a parent goes, and theirs after them.
      const shown = new Map(living);
      for (let before = -1; before !== shown.size; ) {
        before = shown.size;
        for (const [record, { up, own }] of shown) {
          const parent = PARENT[(record[0] as string).toLowerCase() as keyof typeof PARENT].toUpperCase();
          const lacks = (up !== null && !shown.has(`${parent} ${up}`)) || (own !== null && !shown.has(`C ${own}`));
          if (lacks) shown.delete(record);
        }
      }
      const rows = [...shown].map(([record, { up, own, name }]) => `${record[0]} (${[record.slice(2), up, own, name].join(',')})`).toSorted();
      const aside = [...living.keys()].filter((record) => !shown.has(record)).toSorted();
      orphans += aside.length;
      for (const name of replicas.names) {
        expect((await rowsOf(replicas.at(name))).toSorted(), `rows of ${name}`).toEqual(rows);
        const waits = await waiting(name);
        expect(waits.map(([record]) => record).toSorted(), `waiting on ${name}`).toEqual(aside);
        for (const [, reason] of waits) expect(reason).toContain('foreign key');
      }
    }),
    fuzz > 0 ? { numRuns: fuzz } : { numRuns: 5, seed: 20261124 },
  );
  expect(orphans).toBeGreaterThan(0);
}, 120_000 + fuzz * 5_000);

describe('a deletion', () => {
  it('waits for a child of a table that is not replicated, and takes nothing along', async () => {
    const ddl = `${FAMILY.ddl}; CREATE TABLE notes (parent text REFERENCES parents ON DELETE CASCADE)`;
    replicas = await openReplicas('ab', { schema: { ...FAMILY, ddl } });
    await sql('a', `INSERT INTO parents VALUES ('p', 'P')`);
    await replicas.rest();
    await sql('b', `INSERT INTO notes VALUES ('p')`);
    await sql('a', 'DELETE FROM parents');
    await replicas.rest();
    expect(await waiting('b')).toEqual([['Parent p', expect.stringContaining('a row of public.notes, Key (parent)=(p), still belongs to it')]]);
    expect(await sql('b', 'SELECT count(*) FROM notes')).toEqual([{ count: '1' }]);
    await sql('b', 'DELETE FROM notes');
    await replicas.rest();
    expect(await rowsOf(replicas.at('b'))).toEqual([]);
  });

  it('made here takes the children along as writes of its own', async () => {
    replicas = await openReplicas('ab', { schema: FAMILY });
    await sql('a', `INSERT INTO parents VALUES ('p', 'P')`);
    await sql('a', `INSERT INTO children VALUES ('c', 'p', 'C')`);
    await replicas.rest();
    await sql('b', 'DELETE FROM parents');
    await replicas.rest();
    await expectSame(replicas);
    expect(await valuesOf(replicas.at('a'), 'c', 'Child')).toEqual(['deleted']);
    expect([await rowsOf(replicas.at('a')), await waiting('a')]).toEqual([[], []]);
  });
});

describe('children that wait', () => {
  it('are not covered by a row made anew under their key: its writer had not seen them', async () => {
    replicas = await openReplicas('ab', { schema: FAMILY });
    await sql('a', `INSERT INTO parents VALUES ('p', 'P'), ('q', 'Q')`);
    await replicas.rest();
    await sql('a', `DELETE FROM parents WHERE id = 'p'`);
    await sql('b', `INSERT INTO children VALUES ('c', 'p', 'unseen')`);
    await replicas.rest();
    await sql('b', `INSERT INTO children VALUES ('c', 'q', 'anew')`);
    await replicas.rest();
    await expectSame(replicas);
    for (const name of ['a', 'b']) expect(await valuesOf(replicas.at(name), 'c', 'Child')).toEqual(['p,unseen', 'q,anew']);
  });

  it('are all shown with their parent, however many', async () => {
    replicas = await openReplicas('ab', { schema: FAMILY });
    await sql('a', `INSERT INTO parents VALUES ('p', 'P')`);
    await replicas.rest();
    await sql('a', 'DELETE FROM parents');
    await sql('b', `INSERT INTO children SELECT 'c' || n, 'p', n FROM generate_series(1, 12000) n`);
    await replicas.rest();
    expect(await sql('b', 'SELECT count(*) FROM children')).toEqual([{ count: '0' }]);
    await sql('a', `INSERT INTO parents VALUES ('p', 'again')`);
    await replicas.sync('a', 'b');
    for (const name of ['a', 'b']) {
      await replicas.at(name).settle();
      expect(await sql(name, 'SELECT count(*) FROM children')).toEqual([{ count: '12000' }]);
    }
    await expectSame(replicas);
  });
});
