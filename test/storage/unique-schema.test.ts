/** A unique constraint that one replica has and another lacks, while a schema changes: both hold the same, and each shows what its own tables can hold. */
import { afterEach, describe, expect, it } from 'vitest';

import { decide } from '../../src/storage/decide.ts';
import { listConflicts, type ConflictEntry } from '../../src/storage/conflicts.ts';
import { readWaiting } from '../../src/storage/present.ts';
import { rowsOf, statesOf } from '../support/compare.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { ACCOUNTS, type Schema } from '../support/schemas.ts';
import { createChance } from '../simulate/chance.ts';

let replicas: Replicas;
afterEach(() => replicas.close());

/** Without the constraint on the address. */
const LOOSE: Schema = { ...ACCOUNTS, ddl: ACCOUNTS.ddl.replace(' UNIQUE', '') };
const ADD = 'ALTER TABLE accounts ADD CONSTRAINT accounts_email_key UNIQUE (email)';
const DROP = 'ALTER TABLE accounts DROP CONSTRAINT accounts_email_key';

/** Those of `strict` have the constraint, the others not. */
const open = async (names: string, strict: string): Promise<void> => {
  replicas = await openReplicas(names, { schema: LOOSE, schemas: Object.fromEntries([...strict].map((name) => [name, ACCOUNTS])) });
};
const sql = (name: string, text: string): Promise<Record<string, string | null>[]> => replicas.at(name).sql(text);
const create = (name: string, key: string, email: string): Promise<unknown> => sql(name, `INSERT INTO accounts (id, email) VALUES ('${key}', '${email}')`);
const set = (name: string, key: string, change: string): Promise<unknown> => sql(name, `UPDATE accounts SET ${change} WHERE id = '${key}'`);
const emails = async (name: string): Promise<Record<string, string | null>> =>
  Object.fromEntries((await sql(name, 'SELECT id, email FROM accounts ORDER BY id')).map(({ id, email }) => [id, email as string]));
const entries = async (name: string, status: 'PENDING' | 'RESOLVED'): Promise<ConflictEntry[]> => {
  await replicas.at(name).settle();
  return listConflicts(replicas.at(name).replica.db, { status, first: 100, before: null });
};
const losers = async (name: string): Promise<unknown[]> =>
  (await entries(name, 'PENDING')).filter(({ kind }) => kind === 'UNIQUE').map(({ key, fields, holder }) => [key, fields.join(), holder?.key]).toSorted();

async function expectSameStates(): Promise<void> {
  const [first, ...others] = await Promise.all(replicas.names.map((name) => statesOf(replicas.at(name))));
  for (const other of others) expect(other).toEqual(first);
  for (const name of replicas.names) expect(replicas.at(name).problems).toEqual([]);
}

async function expectSameRows(): Promise<void> {
  const [first, ...others] = await Promise.all(replicas.names.map((name) => rowsOf(replicas.at(name))));
  for (const other of others) expect(other).toEqual(first);
}

describe('a unique constraint that one replica has first', () => {
  it('is a conflict there alone; once that is settled, the other may have it too', async () => {
    await open('ab', 'a');
    await create('b', 'r', 'x');
    await create('b', 's', 'x');
    await replicas.rest();
    expect([await emails('a'), await emails('b')]).toEqual([{ r: 'x', s: 'x#s' }, { r: 'x', s: 'x' }]);
    expect([await losers('a'), await losers('b')]).toEqual([[['s', 'email', 'r']], []]);
    await expectSameStates();
    // What each shows is no write: an edit of either leaves the address as it is.
    await set('b', 's', `name = 'b'`);
    await set('a', 'r', `name = 'a'`);
    await replicas.rest();
    expect([await emails('a'), await emails('b')]).toEqual([{ r: 'x', s: 'x#s' }, { r: 'x', s: 'x' }]);
    // Its table holds the value twice.
    await expect(sql('b', ADD)).rejects.toThrow('accounts_email_key');

    const [entry] = await entries('a', 'PENDING');
    await decide(replicas.at('a').replica, [entry?.id as string], { values: { email: 'y' } }, true);
    await replicas.rest();
    await replicas.upgrade('b', ACCOUNTS, ADD);
    await create('b', 't', 'z');
    await create('a', 'u', 'z');
    await replicas.rest();
    expect(await emails('a')).toEqual({ r: 'x', s: 'y', t: 'z', u: 'z#u' });
    expect(await losers('b')).toEqual([['u', 'email', 't']]);
    await expectSameStates();
    await expectSameRows();
  });

  it('judges, where it comes, what is not shown: a side of a conflict claims its value', async () => {
    await open('abc', 'ac');
    await create('a', 'r', '0');
    await create('a', 't', '1');
    await replicas.rest();
    await set('a', 'r', `email = 'x'`);
    await set('b', 'r', `email = 'y'`);
    await set('a', 't', `email = 'v'`);
    await set('b', 't', `email = 'w'`);
    await replicas.rest();
    await create('b', 's', 'x');
    await replicas.at('b').settle();
    await replicas.upgrade('b', ACCOUNTS, ADD);
    // s claims what a side of r had before it, whichever is shown.
    expect(await emails('b')).toEqual({ r: 'y', s: 'x#s', t: 'w' });
    expect(await losers('b')).toEqual([['s', 'email', 'r']]);
    // And so does what comes afterwards.
    await create('c', 'u', 'q');
    await replicas.rest();
    await set('c', 'u', `email = 'late'`);
    await create('b', 'q', 'v').then(() => replicas.at('b').settle());
    await replicas.rest();
    for (const name of 'abc') {
      const { s, q } = await emails(name);
      expect({ s, q }).toEqual({ s: 'x#s', q: 'v#q' });
      expect(await losers(name)).toEqual([['q', 'email', 't'], ['s', 'email', 'r']]);
    }
    await expectSameStates();
  });
});

describe('a unique constraint that is dropped', () => {
  it('gives back what gave way, and closes its conflicts there', async () => {
    await open('ab', 'ab');
    await create('a', 'r', 'x');
    await create('a', 'm', 'twelve chars');
    await create('b', 's', 'x');
    await create('b', 'n', 'twelve chars');
    await replicas.rest();
    expect(await emails('b')).toEqual({ m: 'twelve chars', r: 'x', s: 'x#s' });
    await set('b', 's', `name = 'edited'`);
    await replicas.upgrade('b', LOOSE, DROP);
    expect(await emails('b')).toEqual({ m: 'twelve chars', n: 'twelve chars', r: 'x', s: 'x' });
    expect(await entries('b', 'PENDING')).toEqual([]);
    expect((await entries('b', 'RESOLVED')).map(({ key, resolution, resolvedBy }) => [key, resolution, resolvedBy])).toEqual([
      ['s', 'manual', 'b'],
      ['n', 'manual', 'b'],
    ].toSorted());
    expect(await readWaiting(replicas.at('b').replica, 10)).toEqual([]);
    expect(await sql('b', 'SELECT FROM replication.claim')).toEqual([]);
    await replicas.rest();
    expect(await emails('a')).toEqual({ m: 'twelve chars', r: 'x', s: 'x#s' });
    await expectSameStates();
    // And comes back, here as there.
    await set('a', 'r', `email = 'r'`);
    await set('b', 'n', `email = 'n'`);
    await replicas.rest();
    await replicas.upgrade('b', ACCOUNTS, ADD);
    await create('a', 'u', 'z');
    await create('b', 'v', 'z');
    await replicas.rest();
    expect(await emails('b')).toEqual({ m: 'twelve chars', n: 'n', r: 'r', s: 'x', u: 'z', v: 'z#v' });
    await expectSameStates();
    await expectSameRows();
  });

  it('and another one of its name over other fields is judged by what it says now', async () => {
    await open('ab', 'ab');
    await create('a', 'r', 'x');
    await create('b', 's', 'x');
    await replicas.rest();
    for (const name of 'ab') {
      await replicas.upgrade(name, ACCOUNTS, `${DROP}; ALTER TABLE accounts ADD CONSTRAINT accounts_email_key UNIQUE (email, id)`);
      await replicas.upgrade(name, ACCOUNTS, `${ADD.replace('(email)', '(email, name)').replace('accounts_email_key', 'accounts_by_name')}; ${DROP}`);
    }
    await replicas.rest();
    for (const name of 'ab') {
      expect(await emails(name)).toEqual({ r: 'x', s: 'x' });
      expect(await losers(name)).toEqual([]);
    }
    await set('a', 'r', `name = 'n'`);
    await set('b', 's', `name = 'n'`);
    await replicas.rest();
    for (const name of 'ab') expect(await losers(name)).toEqual([['s', 'email,name', 'r']]);
    await expectSameStates();
    await expectSameRows();
  });
});

const SEEDS = Array.from({ length: Number(process.env['FUZZ'] ?? 2) }, (_, n) => n + 1);

it.each(SEEDS)('random histories of a constraint that one of three replicas lacks, then has, then lacks again: states are the same throughout, rows where constraints are (%i)', async (seed) => {
  const next = createChance(seed);
  const policy = (['latest', 'field-wise'] as const)[seed % 2] ?? 'latest';
  replicas = await openReplicas('abc', { schema: ACCOUNTS, schemas: { c: LOOSE }, policies: { a: policy, b: policy, c: policy } });
  const play = async (steps: number): Promise<void> => {
    for (let step = 0; step < steps; step++) {
      const name = 'abc'[next.below(3)] as string;
      const other = 'abc'.replace(name, '')[next.below(2)] as string;
      const [key, email, seat] = [`k${next.below(5)}`, `e${next.below(4)}`, next.below(3)];
      const choices = [
        () => sql(name, `INSERT INTO accounts (id, email, seat) VALUES ('${key}', '${email}', ${seat})`),
        () => sql(name, `DELETE FROM accounts WHERE id = '${key}'`),
        () => set(name, key, `name = '${step}'`),
        () => set(name, key, `email = '${email}'`),
        () => set(name, key, `seat = ${seat}`),
        () => replicas.sync(name, other),
      ];
      // A value that is taken on this replica is refused by its database.
      await (choices[next.below(choices.length)] as () => Promise<unknown>)().catch((error: unknown) => expect(String(error)).toContain('duplicate key'));
    }
  };
  const compare = async (same: string): Promise<void> => {
    await replicas.rest();
    await expectSameStates();
    const [first, ...others] = await Promise.all([...same].map((name) => rowsOf(replicas.at(name))));
    for (const other of others) expect(other).toEqual(first);
  };
  await play(40);
  await compare('ab');
  // The addresses are settled where they collide, so that the other may have the constraint too.
  for (;;) {
    const collision = (await entries('a', 'PENDING')).find(({ kind, fields }) => kind === 'UNIQUE' && fields.join() === 'email');
    if (collision === undefined) break;
    await decide(replicas.at('a').replica, [collision.id], { values: { email: `own ${collision.key}` } }, true);
  }
  await replicas.rest();
  await replicas.upgrade('c', ACCOUNTS, ADD);
  await compare('abc');
  await play(40);
  await compare('abc');
  await replicas.upgrade('c', LOOSE, DROP);
  expect(await sql('c', `SELECT FROM replication.record, json_each_text(masked) m WHERE m.key = 'accounts_email_key'`)).toEqual([]);
  await play(20);
  await compare('ab');
});
