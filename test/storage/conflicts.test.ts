/** The conflict log, and how its entries are settled. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { Policy } from '../../src/replication/policy.ts';
import { decide, type Decided, type Decision } from '../../src/storage/decide.ts';
import { listConflicts, type ConflictEntry } from '../../src/storage/conflicts.ts';
import { expectSame, rowsOf, valuesOf } from '../support/compare.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { PEOPLE } from '../support/schemas.ts';

let replicas: Replicas;

const sql = (name: string, text: string): Promise<unknown> => replicas.at(name).sql(text);
const log = async (name: string): Promise<ConflictEntry[]> => (await listConflicts(replicas.at(name).replica.db, { status: null, first: 100, before: null })).toReversed();
const sidesOf = ({ sides }: ConflictEntry): (string | null | undefined)[] => sides.map(({ fields }) => fields && fields['f1']).toSorted();
const resolve = async (name: string, decision: Decision, strict = true): Promise<Decided> => {
  const pending = (await log(name)).filter(({ status }) => status === 'PENDING');
  return decide(replicas.at(name).replica, pending.map(({ id }) => id), decision, strict);
};

async function open(names: string, policies: Record<string, Policy> = {}): Promise<void> {
  replicas = await openReplicas(names, { policies });
  await sql('a', `INSERT INTO things VALUES ('x', '0', '0')`);
  await replicas.rest();
}

afterEach(() => replicas.close());

it('a record has one pending entry on each replica, with every side whole', async () => {
  await open('abc');
  for (const name of ['a', 'b', 'c']) await sql(name, `UPDATE things SET f1 = '${name}'`);
  await replicas.sync('a', 'b');
  for (const name of ['a', 'b']) expect((await log(name)).map(sidesOf)).toEqual([['a', 'b']]);
  await replicas.rest();
  for (const name of ['a', 'b', 'c']) {
    const entries = await log(name);
    expect(entries).toMatchObject([{ model: 'Thing', key: 'x', kind: 'UPDATE_UPDATE', status: 'PENDING', fields: ['f1'], resolution: null }]);
    expect(entries.map(sidesOf)).toEqual([['a', 'b', 'c']]);
    expect(entries[0]?.sides.map(({ fields }) => fields?.['f2'])).toEqual(['0', '0', '0']);
  }
});

describe('under manual', () => {
  beforeEach(() => open('ab'));

  it('it follows its sides: a write extends one, a deletion makes another kind of it', async () => {
    await sql('a', `UPDATE things SET f1 = 'a'`);
    await sql('b', `UPDATE things SET f1 = 'b'`);
    await replicas.rest();
    await sql('a', `UPDATE things SET f1 = 'a2', f2 = 'a2'`);
    await sql('b', 'DELETE FROM things');
    await replicas.rest();
    for (const name of ['a', 'b']) {
      const entries = await log(name);
      expect(entries).toMatchObject([{ kind: 'UPDATE_DELETE', status: 'PENDING', fields: ['f1', 'f2'] }]);
      expect(entries.map(sidesOf)).toEqual([['a2', null]]);
    }
  });

  it('it is closed everywhere by one decision, and told by how and by whom', async () => {
    await sql('a', `UPDATE things SET f1 = 'a'`);
    await sql('b', `UPDATE things SET f2 = 'b'`);
    await replicas.rest();
    expect(await resolve('b', { strategy: 'field-wise' })).toMatchObject({ resolved: ['1'], conflicts: { resolved: [{ strategy: 'field-wise' }] } });
    await replicas.rest();
    for (const name of ['a', 'b']) {
      expect(await log(name)).toMatchObject([{ status: 'RESOLVED', resolution: 'field-wise', resolvedBy: 'b', resolvedFields: { f1: 'a', f2: 'b' } }]);
      expect((await log(name)).map(sidesOf)).toEqual([['0', 'a']]);
      expect(await rowsOf(replicas.at(name))).toEqual(['Thing (x,a,b)']);
    }
    await expectSame(replicas);
  });

  it.each<[Decision, string[]]>([
    [{ strategy: 'latest' }, ['Thing (x,b,0)']],
    [{ side: 'a' }, ['Thing (x,a,0)']],
    [{ values: { f1: 'c', f2: null } }, ['Thing (x,c,)']],
  ])('it is settled by %j', async (decision, rows) => {
    await sql('a', `UPDATE things SET f1 = 'a'`);
    await sql('b', `UPDATE things SET f1 = 'b'`);
    await replicas.rest();
    await resolve('a', decision);
    await replicas.rest();
    expect(await rowsOf(replicas.at('b'))).toEqual(rows);
    await expectSame(replicas);
  });

  it('a deletion can be chosen, or an edit kept against one', async () => {
    for (const [side, rows] of [['b', []], ['a', ['Thing (y,a,0)']]] as const) {
      await sql('a', `DELETE FROM things`);
      await sql('a', `INSERT INTO things VALUES ('y', '0', '0') ON CONFLICT DO NOTHING`);
      await replicas.rest();
      await sql('a', `UPDATE things SET f1 = 'a'`);
      await sql('b', 'DELETE FROM things');
      await replicas.rest();
      await resolve('a', { side });
      await replicas.rest();
      expect(await rowsOf(replicas.at('b'))).toEqual(rows);
    }
    await expectSame(replicas);
  });

  it('a side that is none is refused with those that are; nothing is changed', async () => {
    await sql('a', `UPDATE things SET f1 = 'a'`);
    await sql('b', `UPDATE things SET f1 = 'b'`);
    await replicas.rest();
    await expect(resolve('a', { side: 'z' })).rejects.toThrow('"z" is no side of this conflict. Its sides are "a", "b".');
    expect(await log('a')).toMatchObject([{ status: 'PENDING' }]);
  });

  it('it closes by itself once the sides are equal, and a new one opens when they part again', async () => {
    await sql('a', `UPDATE things SET f1 = 'a'`);
    await sql('b', `UPDATE things SET f1 = 'b'`);
    await replicas.rest();
    await sql('a', `UPDATE things SET f1 = 'b'`);
    await replicas.rest();
    for (const name of ['a', 'b']) expect(await log(name)).toMatchObject([{ status: 'RESOLVED', resolution: 'manual' }]);
    await sql('a', `UPDATE things SET f1 = 'a'`);
    await sql('b', `UPDATE things SET f2 = 'b'`);
    await replicas.rest();
    for (const name of ['a', 'b']) expect((await log(name)).map(({ status }) => status)).toEqual(['RESOLVED', 'PENDING']);
    await expectSame(replicas);
  });

  it('two decisions at once are a new conflict where they differ, and none where they do not', async () => {
    await sql('a', `UPDATE things SET f1 = 'a'`);
    await sql('b', `UPDATE things SET f1 = 'b'`);
    await replicas.rest();
    await resolve('a', { side: 'a' });
    await resolve('b', { side: 'a' });
    await replicas.rest();
    expect(await log('b')).toMatchObject([{ status: 'RESOLVED' }]);
    await sql('a', `UPDATE things SET f1 = 'a2'`);
    await sql('b', `UPDATE things SET f1 = 'b2'`);
    await replicas.rest();
    await resolve('a', { side: 'a' });
    await resolve('b', { side: 'b' });
    await replicas.rest();
    expect((await log('b')).map(({ status }) => status)).toEqual(['RESOLVED', 'RESOLVED', 'PENDING']);
    expect(await valuesOf(replicas.at('b'), 'x')).toEqual(['a2,0', 'b2,0']);
  });

  it('a write that no fold has seen is among the sides of the decision over it', async () => {
    await sql('a', `UPDATE things SET f1 = 'a'`);
    await sql('b', `UPDATE things SET f1 = 'b'`);
    await replicas.rest();
    await sql('a', `UPDATE things SET f1 = 'a2', f2 = 'a2'`);
    await resolve('a', { side: 'b' });
    const [entry] = await log('a');
    expect(entry).toMatchObject({ status: 'RESOLVED', fields: ['f1', 'f2'], resolvedFields: { f1: 'b' } });
    expect(sidesOf(entry as ConflictEntry)).toEqual(['a2', 'b']);
  });

  it('a decision twice, or after the fact, decides once', async () => {
    await sql('a', `UPDATE things SET f1 = 'a'`);
    await sql('b', `UPDATE things SET f1 = 'b'`);
    await replicas.rest();
    const { replica } = replicas.at('a');
    const both = await Promise.all([decide(replica, ['1'], { side: 'a' }, true), decide(replica, ['1'], { side: 'b' }, true)]);
    expect(both.flatMap(({ resolved }) => resolved)).toEqual(['1']);
    expect(await decide(replica, ['1', '99'], { side: 'b' }, true)).toMatchObject({ resolved: [] });
  });
});

it('a decision that cannot be shown is refused whole where strict, and passed over where not', async () => {
  replicas = await openReplicas('ab', { schema: PEOPLE });
  await sql('a', `INSERT INTO people (email, age) VALUES ('x', 0), ('taken', 0)`);
  await replicas.rest();
  await sql('a', 'UPDATE people SET age = 1 WHERE id = 1');
  await sql('b', 'UPDATE people SET age = 2 WHERE id = 1');
  await replicas.rest();
  await expect(resolve('a', { values: { email: 'taken' } })).rejects.toThrow('another record claimed the value before');
  await expect(resolve('a', { values: { age: 'ten' } })).rejects.toThrow('invalid input syntax');
  expect(await log('a')).toMatchObject([{ status: 'PENDING' }]);
  expect(await resolve('a', { values: { age: '-1' } }, false)).toMatchObject({ resolved: [] });
  expect(await log('a')).toMatchObject([{ status: 'PENDING' }]);
  await replicas.rest();
  expect(await valuesOf(replicas.at('b'), '1', 'Person')).toEqual(['x,1', 'x,2']);
});

describe('under a policy', () => {
  it.each([
    ['latest', 'Thing (x,0,b)'],
    ['field-wise', 'Thing (x,a,b)'],
  ] as const)('%s shows its choice everywhere, and logs what it passed over', async (policy, row) => {
    await open('ab', { a: policy, b: policy });
    await sql('a', `UPDATE things SET f1 = 'a'`);
    await sql('b', `UPDATE things SET f2 = 'b'`);
    await replicas.rest();
    for (const name of ['a', 'b']) {
      expect(await rowsOf(replicas.at(name))).toEqual([row]);
      expect(await log(name)).toMatchObject([{ status: 'RESOLVED', resolution: policy, resolvedBy: name, fields: ['f1', 'f2'] }]);
      expect((await log(name)).map(sidesOf)).toEqual([['0', 'a']]);
    }
    // The next write has seen both.
    await sql('a', `UPDATE things SET f1 = 'next'`);
    await replicas.rest();
    expect(await valuesOf(replicas.at('b'), 'x')).toHaveLength(1);
    await expectSame(replicas);
  });

  it('that is changed between starts what waits is shown anew, and its entry follows', async () => {
    await open('ab');
    await sql('a', `UPDATE things SET f1 = 'a'`);
    await sql('b', `UPDATE things SET f1 = 'b'`);
    await replicas.rest();
    await sql('a', `UPDATE things SET f2 = 'captured'`);
    await replicas.reopen('a', 'latest');
    expect(await rowsOf(replicas.at('a'))).toEqual(['Thing (x,a,captured)']);
    expect(await log('a')).toMatchObject([{ status: 'RESOLVED', resolution: 'latest' }]);
    await sql('b', `UPDATE things SET f1 = 'b2'`);
    await replicas.rest();
    expect(await rowsOf(replicas.at('a'))).toEqual(['Thing (x,b2,0)']);
    await replicas.reopen('a', 'manual');
    const entries = await log('a');
    expect(entries.at(-1)).toMatchObject({ status: 'PENDING' });
    expect(entries.filter(({ status }) => status === 'PENDING')).toHaveLength(1);
    await expectSame(replicas);
  });
});
