/** Unique values that two replicas give to different records: who holds them, and what the others show. How it is settled is in unique-settled.test.ts. */
import { afterEach, describe, expect, it } from 'vitest';

import { fold } from '../../src/storage/fold.ts';
import { readWaiting } from '../../src/storage/present.ts';
import { recordsOf } from '../support/batches.ts';
import { expectSame, rowsOf } from '../support/compare.ts';
import { interceptOnce } from '../support/intercept.ts';
import { PEOPLE } from '../support/schemas.ts';
import { create, emails, losers, open, pending, replicas, rest, set, sql } from './accounts.ts';

afterEach(() => replicas.close());

describe('a value given to two records', () => {
  it('unique-holder-ignores-arrival-order', async () => {
    for (const [one, two] of [['a', 'b'], ['b', 'a']] as const) {
      await open('abc');
      await create('a', 'r', 'x');
      await create('b', 's', 'x');
      await replicas.sync(one, 'c');
      await replicas.sync(two, 'c');
      expect(await emails('c')).toEqual({ r: 'x', s: 'x#s' });
      expect(await rest()).toEqual({ r: 'x', s: 'x#s' });
      expect(await losers('c')).toEqual([['UNIQUE', 's', 'email', 'r']]);
      expect(await readWaiting(replicas.at('a').replica, 10)).toEqual([]);
      if (one === 'a') await replicas.close();
    }
  });

  it('unique-holder-ignores-arrival-order-while-a-side-waits', async () => {
    for (const order of ['ab', 'ba']) {
      await open('abc');
      await create('a', 'r', '0');
      await replicas.rest();
      // Two sides of r; c shows neither the one that claims x first, nor s's claim before it.
      await set('a', 'r', `email = 'x'`);
      await set('c', 'r', `email = 'y'`);
      await create('b', 's', 'x');
      for (const from of order) await replicas.sync(from, 'c');
      expect(await emails('c')).toEqual({ r: 'y', s: 'x#s' });
      await replicas.rest();
      for (const name of 'abc') expect((await emails(name))['s']).toBe('x#s');
      await expectSame(replicas);
      if (order === 'ab') await replicas.close();
    }
  });

  it('is not marked over what a local writer has put in its place while it is folded', async () => {
    await open('ac');
    await create('a', 'r', '0');
    await replicas.rest();
    await set('a', 'r', `email = 'x'`);
    await set('c', 'r', `email = 'y'`);
    await replicas.sync('a', 'c');
    // The side of r that c does not show claims x.
    await create('c', 's', 'x');
    const { db } = replicas.at('c').replica;
    const between = interceptOnce(db, 'replication.claim', () => set('c', 's', `email = 'z'`));
    await fold(replicas.at('c').replica, () => {});
    expect(between.done).toBe(true);
    await replicas.rest();
    for (const name of 'ac') expect((await emails(name))['s']).toBe('z');
    await expectSame(replicas);
  });

  it('a claim on a side that is not shown counts against what comes in the same batch', async () => {
    await open('abc', 'latest');
    await create('a', 'r', '0');
    await replicas.rest([['a', 'b']]);
    await set('a', 'r', `email = 'x'`);
    await replicas.at('a').settle();
    await sql('b', `DELETE FROM accounts WHERE id = 'r'`);
    await create('b', 's', 'x');
    await replicas.sync('a', 'b');
    // Both come to c at once: r, which shows its deletion, and s.
    await replicas.sync('b', 'c');
    expect(await emails('c')).toEqual({ s: 'x#s' });
    expect(await rest()).toEqual({ s: 'x#s' });
  });

  it('is told of with the side that claims it, where a record shows what its sides make together', async () => {
    await open('ab', 'field-wise');
    await create('a', 'r', '0');
    await rest();
    await create('a', 's', 'x');
    await set('b', 'r', `email = 'x'`);
    // The latest side of r, which claims nothing.
    await set('a', 'r', `name = 'n'`);
    expect(await rest()).toEqual({ r: 'x#r', s: 'x' });
    for (const name of 'ab') {
      expect((await pending(name)).map(({ key, kind, sides }) => [key, kind, sides.map(({ fields }) => fields?.['email'])])).toEqual([['r', 'UNIQUE', ['x']]]);
    }
  });

  it('unrelated-edit-does-not-move-the-holder', async () => {
    await open('ab');
    await create('a', 'r', 'x');
    await create('b', 's', 'x');
    await set('a', 'r', `name = 'n'`);
    expect(await rest()).toEqual({ r: 'x', s: 'x#s' });
    await set('b', 'r', `name = 'm'`);
    await set('a', 's', `name = 'o'`);
    expect(await rest()).toEqual({ r: 'x', s: 'x#s' });
    // What is shown in place of a value is no value: s has its own, as it was written.
    await set('a', 'r', `email = 'z'`);
    expect(await rest()).toEqual({ r: 'z', s: 'x' });
    expect(await pending('b')).toEqual([]);
  });

  it('is shown again when its holder is deleted; a write to what was shown instead is a value', async () => {
    await open('ab');
    await create('a', 'r', 'x');
    await create('b', 's', 'x');
    expect(await rest()).toEqual({ r: 'x', s: 'x#s' });
    await sql('a', `DELETE FROM accounts WHERE id = 'r'`);
    expect(await rest()).toEqual({ s: 'x' });
    await create('a', 't', 'q');
    await create('b', 'u', 'q');
    await rest();
    await set('b', 'u', `email = 'v', name = 'both'`);
    await set('a', 't', `email = 'w'`);
    expect(await rest()).toEqual({ s: 'x', t: 'w', u: 'v' });
    expect(await pending('a')).toEqual([]);
  });

  it('passes through a chain, to three claimants, of whom the next in line follows', async () => {
    await open('abc');
    await create('a', 'r', 'x');
    await create('b', 's', 'x');
    await create('c', 't', 'x');
    expect(await rest('chain')).toEqual({ r: 'x', s: 'x#s', t: 'x#t' });
    expect(await losers('b')).toEqual(expect.arrayContaining([['UNIQUE', 's', 'email', 'r'], ['UNIQUE', 't', 'email', 'r']]));
    await set('c', 'r', `email = 'y'`);
    expect(await rest('chain')).toEqual({ r: 'y', s: 'x', t: 'x#t' });
    expect(await losers('a')).toEqual([['UNIQUE', 't', 'email', 's']]);
  });

  it('of several fields gives way by the one that may be null, each constraint by itself', async () => {
    await open('ab');
    await sql('a', `INSERT INTO accounts (id, email, seat) VALUES ('r', 'x', 1)`);
    await sql('b', `INSERT INTO accounts (id, email, seat) VALUES ('s', 'y', 1), ('t', 'x', 2)`);
    expect(await rest()).toEqual({ r: 'x', s: 'y', t: 'x#t' });
    expect(await sql('b', `SELECT id, seat FROM accounts ORDER BY id`)).toEqual([{ id: 'r', seat: '1' }, { id: 's', seat: null }, { id: 't', seat: '2' }]);
    expect(await losers('a')).toEqual(expect.arrayContaining([['UNIQUE', 's', 'team,seat', 'r'], ['UNIQUE', 't', 'email', 'r']]));
    await set('b', 'r', `team = 'u'`);
    await rest();
    expect(await sql('a', `SELECT seat FROM accounts WHERE id = 's'`)).toEqual([{ seat: '1' }]);
  });

  it('swapped between records goes over in one batch, and in several', async () => {
    await open('ab');
    await create('a', 'r', 'x');
    await create('a', 's', 'y');
    await replicas.rest();
    await set('a', 'r', `email = 'tmp'`);
    await set('a', 's', `email = 'x'`);
    await set('a', 'r', `email = 'y'`);
    expect(await rest()).toEqual({ r: 'y', s: 'x' });
    expect(await sql('b', 'SELECT FROM replication.conflict')).toEqual([]);
  });

  it('that does not fit its column with a mark is set aside, visibly, as is one whose mark is taken', async () => {
    await open('ab');
    await create('a', 'r', 'twelve chars');
    await create('a', 'm', 'x');
    await create('a', 'n', 'x#s2');
    await create('b', 's1', 'twelve chars');
    await create('b', 's2', 'x');
    expect(await rest()).toEqual({ m: 'x', n: 'x#s2', r: 'twelve chars' });
    for (const name of 'ab') {
      const waiting = await readWaiting(replicas.at(name).replica, 10);
      expect(waiting.map(({ key, waiting: reason }) => [key, reason?.slice(0, 21)])).toEqual([['s1', 'record r holds its va'], ['s2', 'record m holds its va']]);
    }
    await set('b', 'r', `email = 'z'`);
    await sql('a', `DELETE FROM accounts WHERE id = 'm'`);
    expect(await rest()).toEqual({ n: 'x#s2', r: 'z', s1: 'twelve chars', s2: 'x' });
    expect(await pending('a')).toEqual([]);
  });

  it.each(['latest', 'field-wise'] as const)('is a conflict under %s too, which does not settle it', async (policy) => {
    await open('ab', policy);
    await create('a', 'r', 'x');
    await create('b', 's', 'x');
    expect(await rest()).toEqual({ r: 'x', s: 'x#s' });
    expect(await losers('b')).toEqual([['UNIQUE', 's', 'email', 'r']]);
  });

  it('is refused on one replica, by its database', async () => {
    await open('ab');
    await create('a', 'r', 'x');
    await replicas.rest();
    await expect(create('b', 's', 'x')).rejects.toThrow('duplicate key');
  });
});

describe('a batch with more behind it', () => {
  const half = async (more: boolean): Promise<void> => {
    const [first] = replicas.names as [string];
    expect(first).toBe('a');
    const { replica, settle } = replicas.at('b');
    await settle();
    const { applyRecords } = await import('../../src/storage/apply.ts');
    const { readFeed } = await import('../../src/storage/feed.ts');
    const { readIncarnation } = await import('../../src/storage/replica.ts');
    const { readPeer } = await import('../../src/storage/checkpoints.ts');
    await replicas.at('a').settle();
    const [from, to] = await Promise.all([readIncarnation(replicas.at('a').replica), readIncarnation(replica)]);
    const { taken } = await readPeer(replica.db, 'a');
    const after = taken?.position ?? 0;
    const records = recordsOf(await readFeed(replicas.at('a').replica, after, `b.${to}`));
    const start = taken && { incarnation: taken.incarnation, position: taken.position };
    await applyRecords(replica, { name: 'a', incarnation: from }, records.slice(0, 1), { receiver: to, start, end: { incarnation: from, position: after + 1 }, more });
  };

  it('leaves what collides to be told when nothing follows, if it still stands', async () => {
    await open('ab');
    await create('a', 'r', 'x');
    await create('a', 's', 'y');
    await replicas.rest();
    await set('a', 'r', `email = 'tmp'`);
    await set('a', 's', `email = 'x'`);
    await replicas.at('a').settle();
    await set('a', 'r', `email = 'y'`);
    await half(true);
    expect(await pending('b')).toEqual([]);
    expect(await rest()).toEqual({ r: 'y', s: 'x' });
    expect(await sql('b', 'SELECT FROM replication.conflict UNION ALL SELECT FROM replication.deferral')).toEqual([]);
  });

  it('and is told by the keeper where the sender went away', async () => {
    await open('ab');
    await create('b', 's', 'x');
    await create('a', 'r', 'x');
    await half(true);
    expect(await pending('b')).toEqual([]);
    await sql('b', 'UPDATE replication.deferral SET since = 0');
    expect(await losers('b')).toEqual([['UNIQUE', 'r', 'email', 's']]);
  });
});

it('a value that a local write gives up is given on, though the write is taken in with what another record claims', async () => {
  await open('ab');
  await create('b', 'r', 'x');
  await create('a', 's', 'x');
  expect(await rest()).toEqual({ r: 'x', s: 'x#s' });
  await create('b', 't', 'y');
  // Captured, and not folded yet when t comes.
  await set('a', 'r', `email = 'y'`);
  await replicas.sync('b', 'a');
  expect(await emails('a')).toEqual({ r: 'y#r', s: 'x', t: 'y' });
  expect(await rest()).toEqual({ r: 'y#r', s: 'x', t: 'y' });
  expect(await losers('a')).toEqual([['UNIQUE', 'r', 'email', 't']]);
});

it('a claim that the first portion of a batch hides is seen by the next', async () => {
  await open('abc');
  for (const [key, email] of [['r', 'p'], ['s', 'q']] as const) await sql('a', `INSERT INTO accounts (id, email, name) VALUES ('${key}', '${email}', repeat('n', 5 * 1024 * 1024))`);
  await replicas.rest();
  // What comes is small, what is there is read in two portions.
  await sql('a', 'UPDATE accounts SET name = NULL');
  await replicas.sync('a', 'c');
  await set('a', 'r', `email = 'x'`);
  await set('c', 's', `email = 'x'`);
  await replicas.sync('c', 'a');
  await set('b', 'r', `email = 'o'`);
  await replicas.sync('a', 'b');
  expect(await emails('b')).toEqual({ r: 'o', s: 'x#s' });
});

describe('while nobody claimed any when statistics were taken, claims are looked up by', () => {
  /** Pages of the indices that were looked at on a replica since it was opened, for each claim that is there. */
  async function readEach(name: string): Promise<number> {
    // Sessions tell that when they end.
    await replicas.reopen(name);
    const [read] = await sql(name, `SELECT sum(idx_blks_hit + idx_blks_read) AS pages, (SELECT count(*) FROM replication.claim) AS claims FROM pg_statio_all_indexes WHERE relid = 'replication.claim'::regclass`);
    const claims = Number(read?.['claims']);
    expect(claims).toBeGreaterThanOrEqual(3_000);
    return Number(read?.['pages']) / claims;
  }

  it('their values', async () => {
    await open('ab');
    for (const name of 'ab') {
      await sql(name, 'ANALYZE replication.claim');
      await sql(name, `INSERT INTO accounts (id, email) SELECT '${name}' || n, 'email' || n FROM generate_series(1, 3000) n`);
    }
    await replicas.rest();
    for (const name of 'ab') expect(await readEach(name)).toBeLessThan(80);
  });

  it('their records', async () => {
    await open('ab');
    await sql('a', `INSERT INTO accounts (id, email) SELECT 'r' || n, 'email' || n FROM generate_series(1, 3000) n`);
    await replicas.rest();
    for (const name of 'ab') await sql(name, 'ANALYZE replication.claim');
    await sql('a', 'DELETE FROM accounts');
    await sql('b', `UPDATE accounts SET name = 'kept'`);
    await replicas.rest();
    // Over what was planned by then.
    await sql('b', `UPDATE accounts SET name = 'again'`);
    await replicas.rest();
    for (const name of 'ab') expect(await readEach(name)).toBeLessThan(80);
  });
});

describe('a value that may be null', () => {
  it('gives way to null', async () => {
    await open('ab', 'manual', PEOPLE);
    await sql('a', `INSERT INTO people (email, age) VALUES ('x', 1)`);
    await sql('b', `INSERT INTO people (email, age) VALUES ('x', 2)`);
    await replicas.rest();
    await expectSame(replicas);
    for (const name of 'ab') expect(await rowsOf(replicas.at(name))).toEqual(['Person (1,x,1)', 'Person (2,,2)']);
    await sql('a', 'DELETE FROM people WHERE id = 1');
    await replicas.rest();
    for (const name of 'ab') expect(await rowsOf(replicas.at(name))).toEqual(['Person (2,x,2)']);
  });
});
