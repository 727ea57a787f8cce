/** The histories of test/replication/histories.test.ts that can be played on real databases: rows written by SQL, restores from copies. */
import { afterEach, describe, expect, it } from 'vitest';

import { decide } from '../../src/storage/decide.ts';
import { listConflicts } from '../../src/storage/conflicts.ts';
import { SENT_RECORDS } from '../../src/storage/feed.ts';
import { expectSame, valuesOf } from '../support/compare.ts';
import type { TestDatabase } from '../support/postgres.ts';
import { linksOf, openReplicas, type Replicas } from '../support/replicas.ts';

let replicas: Replicas;
/** What a replica may report as a problem. */
let told = 'nothing';

const write = (name: string, field: 'f1' | 'f2', value: string, key = 'r'): Promise<unknown> =>
  replicas.at(name).sql(`UPDATE things SET ${field} = $2 WHERE id = $1`, [key, value]);
const create = (name: string, key = 'r', f1 = '0', f2 = '0'): Promise<unknown> => replicas.at(name).sql('INSERT INTO things VALUES ($1, $2, $3)', [key, f1, f2]);
const remove = (name: string): Promise<unknown> => replicas.at(name).sql(`DELETE FROM things WHERE id = 'r'`);
const row = async (name: string): Promise<string | undefined> => {
  const [found] = await replicas.at(name).sql(`SELECT f1 || ',' || f2 AS row FROM things WHERE id = 'r'`);
  return found?.['row'] ?? undefined;
};
const resolve = async (name: string, strategy: 'latest' | 'field-wise'): Promise<void> => {
  const { replica, settle } = replicas.at(name);
  await settle();
  const [entry] = await listConflicts(replica.db, { status: 'PENDING', first: 1, before: null });
  await decide(replica, [entry?.id as string], { strategy }, true);
};

/** All hold the record. */
async function holding(names: string): Promise<void> {
  replicas = await openReplicas(names);
  await create('a');
  await replicas.rest();
}

/** The database goes back in time, which is told once a peer shows that it had more. */
async function restore(name: string, backup: TestDatabase): Promise<void> {
  await replicas.restore(name, backup);
  told = 'went back in time';
}

/** Comes to rest, and tells the values that are left. */
async function rest(topology: 'mesh' | 'chain' = 'mesh'): Promise<string[]> {
  await replicas.rest(linksOf(topology, replicas.names));
  for (const problem of replicas.names.flatMap((name) => replicas.at(name).problems.splice(0))) expect(problem).toContain(told);
  await expectSame(replicas);
  return valuesOf(replicas.at('a'), 'r');
}

afterEach(async () => {
  told = 'nothing';
  await replicas.close();
});

describe('deliveries', () => {
  it('lost-ack-does-not-starve-the-sender', async () => {
    await holding('ab');
    await write('a', 'f1', 'x');
    await write('b', 'f1', 'y');
    await replicas.sync('a', 'b', 'answer lost');
    expect(await replicas.sync('b', 'a')).toMatchObject({ sent: 1 });
    expect(await rest()).toEqual(['x,0', 'y,0']);
  });

  it('third-replica-in-a-chain-gets-every-side', async () => {
    await holding('abcd');
    await write('b', 'f1', 'x');
    await remove('d');
    expect(await rest('chain')).toEqual(['deleted', 'x,0']);
  });

  it('pipelined-batch-lost-stops-the-checkpoint (also across a restart)', async () => {
    replicas = await openReplicas('ab');
    // Two batches.
    await replicas.at('a').sql(`INSERT INTO things SELECT 'k' || n, 'v', n FROM generate_series(1, ${SENT_RECORDS + 10}) n`);
    const arrived = (): Promise<unknown> => replicas.at('b').sql('SELECT count(*) FROM things');
    expect([await replicas.sync('a', 'b', 'batch lost'), await arrived()]).toEqual([null, [{ count: '0' }]]);
    expect([await replicas.sync('a', 'b', 'arrives', 'batch lost'), await arrived()]).toEqual([null, [{ count: String(SENT_RECORDS) }]]);
    await Promise.all([replicas.reopen('a'), replicas.reopen('b')]);
    expect(await replicas.sync('a', 'b')).toMatchObject({ sent: 10, applied: 10 });
    expect(await arrived()).toEqual([{ count: String(SENT_RECORDS + 10) }]);
  });

  it('set-aside-record-passes-through-a-chain', async () => {
    await holding('abc');
    await replicas.at('b').sql(`ALTER TABLE things ADD CONSTRAINT no_x CHECK (f1 <> 'x')`);
    await write('a', 'f1', 'x');
    await replicas.sync('a', 'b');
    await replicas.sync('b', 'c');
    expect([await row('b'), await row('c')]).toEqual(['0,0', 'x,0']);
    await replicas.at('b').sql('ALTER TABLE things DROP CONSTRAINT no_x');
    expect(await rest('chain')).toEqual(['x,0']);
    expect(await row('b')).toBe('x,0');
  });
});

describe('equal values and policies', () => {
  it('equal-values-overwritten-on-both-sides-leave-no-third-side', async () => {
    await holding('abc');
    await write('a', 'f1', 'x');
    await write('b', 'f1', 'x');
    await replicas.sync('a', 'c');
    await write('a', 'f1', 'new1');
    await replicas.sync('b', 'c', 'answer lost');
    await write('b', 'f1', 'new2');
    expect(await rest()).toEqual(['new1,0', 'new2,0']);
  });

  it('merge-is-associative-with-equal-values', async () => {
    replicas = await openReplicas('abc');
    await create('a', 'r', 'x');
    await create('c', 'r', 'x');
    await replicas.sync('c', 'b');
    await write('c', 'f1', 'v2');
    await replicas.sync('a', 'b');
    await replicas.sync('c', 'b');
    expect(await rest()).toEqual(['v2,0', 'x,0']);
  });

  it.each(['manual', 'latest', 'field-wise'] as const)('edit-then-delete-against-delete-stays-dead under %s', async (policy) => {
    replicas = await openReplicas('abc', { policies: { a: policy, b: policy, c: policy } });
    await create('a');
    await replicas.rest();
    await remove('a');
    await write('c', 'f1', 'v3');
    await replicas.at('c').settle();
    await remove('c');
    expect(await rest()).toEqual(['deleted']);
    expect(await row('b')).toBeUndefined();
  });

  it('policy-never-conflicts-with-its-own-old-value', async () => {
    replicas = await openReplicas('abc', { policies: { a: 'latest', b: 'latest', c: 'latest' } });
    await create('a');
    await replicas.rest();
    await write('b', 'f2', 'b');
    await write('c', 'f1', 'old');
    await replicas.sync('c', 'a');
    await write('c', 'f1', 'new');
    expect(await rest()).toEqual(['0,b', 'new,0']);
    expect(await row('a')).toBe('new,0');
  });

  it('rejected-value-does-not-return', async () => {
    await holding('abc');
    await write('b', 'f2', 'bad');
    await replicas.sync('b', 'c');
    await write('a', 'f1', 'good');
    await replicas.sync('b', 'a');
    await resolve('a', 'latest');
    expect(await row('a')).toBe('good,0');
    await write('c', 'f1', 'c1');
    await replicas.sync('c', 'a');
    await resolve('a', 'field-wise');
    expect(await rest()).toEqual(['c1,0']);
  });

  it('mixed-policies-keep-equal-states', async () => {
    replicas = await openReplicas('ab', { policies: { a: 'latest', b: 'field-wise' } });
    await create('a');
    await replicas.rest();
    await remove('a');
    await remove('b');
    expect(await rest()).toEqual(['deleted']);
  });

  it('own-side-survives-a-newer-third-side', async () => {
    await holding('abc');
    await write('b', 'f1', 'x');
    await replicas.sync('b', 'c', 'answer lost');
    await write('c', 'f1', 'v2');
    await replicas.sync('c', 'b');
    await write('a', 'f2', 'a');
    await replicas.sync('a', 'b');
    expect(await row('b')).toBe('v2,0');
    await write('b', 'f1', 'b2');
    expect(await rest()).toEqual(['0,a', 'b2,0']);
  });

  it('policy-changed-to-manual-does-not-cover-its-own-side', async () => {
    replicas = await openReplicas('ab', { policies: { a: 'latest' } });
    await create('a');
    await replicas.rest();
    await write('a', 'f1', 'x');
    await write('b', 'f1', 'y');
    await replicas.sync('b', 'a');
    expect(await row('a')).toBe('y,0');
    await replicas.reopen('a', 'manual');
    await write('a', 'f2', 'a');
    expect(await rest()).toEqual(['x,a', 'y,0']);
  });
});

describe('restores', () => {
  it('restored-replica-gets-its-writes-back', async () => {
    await holding('ab');
    const backup = await replicas.backup('a');
    await write('a', 'f1', 'x');
    await replicas.sync('a', 'b');
    await restore('a', backup);
    expect(await row('a')).toBe('0,0');
    expect(await replicas.sync('b', 'a')).toMatchObject({ sent: 1, applied: 1 });
    expect(await rest()).toEqual(['x,0']);
  });

  it('write-before-first-handshake-after-restore', async () => {
    await holding('ab');
    const backup = await replicas.backup('a');
    await write('a', 'f1', 'x');
    await replicas.sync('a', 'b');
    await restore('a', backup);
    await write('a', 'f1', 'z');
    await replicas.sync('a', 'b');
    expect(await rest()).toEqual(['x,0', 'z,0']);
  });

  it('write-before-first-handshake-after-restore-through-a-third-replica', async () => {
    await holding('abc');
    const backup = await replicas.backup('a');
    await write('a', 'f1', 'x');
    await replicas.sync('a', 'b');
    await restore('a', backup);
    await write('a', 'f1', 'z');
    await replicas.sync('a', 'c');
    await write('c', 'f2', 'c');
    await replicas.sync('c', 'b');
    expect(await rest()).toEqual(['x,0', 'z,c']);
  });
});

it('place-passed-in-a-lost-history-is-sent-again', async () => {
  replicas = await openReplicas('ab');
  await create('a');
  await replicas.at('a').settle();
  await replicas.at('a').sql(`INSERT INTO things SELECT 'k' || n, '0', '0' FROM generate_series(1, ${SENT_RECORDS}) n`);
  await replicas.at('a').settle();
  const backup = await replicas.backup('a');
  // r moves behind the others, which fill a batch: b takes those alone, whose places the backup knows, and r never comes.
  await write('a', 'f1', '1');
  expect(await replicas.sync('a', 'b', 'arrives', 'batch lost')).toBeNull();
  expect(await replicas.at('b').sql(`SELECT count(*), count(*) FILTER (WHERE id = 'r') AS r FROM things`)).toEqual([{ count: String(SENT_RECORDS), r: '0' }]);
  await replicas.restore('a', backup);
  await replicas.sync('a', 'b');
  expect([await row('b'), await valuesOf(replicas.at('b'), 'r')]).toEqual(['0,0', ['0,0']]);
  expect(await replicas.sync('b', 'a')).toMatchObject({ sent: 0 });
});
