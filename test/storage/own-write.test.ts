/** Writes that are folded in their own transaction: what comes of them is what comes of any, and they wait for nobody. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { readFeed } from '../../src/storage/feed.ts';
import { beginChange } from '../../src/storage/replica.ts';
import { writeFolded, type FoldedWrite, type OwnWrite } from '../../src/storage/own-write.ts';
import { recordsOf } from '../support/batches.ts';
import { expectSame, statesOf } from '../support/compare.ts';
import { openReplicas, type Replicas, type TestReplica } from '../support/replicas.ts';
import { ACCOUNTS } from '../support/schemas.ts';

let replicas: Replicas;
let a: TestReplica;
let b: TestReplica;
const open = async (...args: Parameters<typeof openReplicas>): Promise<void> => {
  replicas = await openReplicas(...args);
  [a, b] = [replicas.at('a'), replicas.at('b')];
};
afterEach(() => replicas.close());

/** A statement that returns the key of the row that it writes. @param key - Where that is known before. */
const by = (model: string, sql: string, values: readonly string[], key?: string): OwnWrite<string | null> => ({
  db: a.replica.db,
  ...(key !== undefined && { name: [model, key] }),
  make: async (over = a.replica.db) => (await over.query(sql, values))[0]?.[0] ?? null,
  nameOf: (written) => (written === null ? null : [model, written]),
});
const insert = (...values: string[]): OwnWrite<string | null> => by('Thing', 'INSERT INTO things VALUES ($1, $2, $3) RETURNING id', values);
const update = (key: string, f1: string): OwnWrite<string | null> => by('Thing', 'UPDATE things SET f1 = $2 WHERE id = $1 RETURNING id', [key, f1], key);
const writing = async (write: OwnWrite<string | null>): Promise<FoldedWrite | null> => (await writeFolded(a.replica, write)).folded;
const sentOf = (folded: FoldedWrite | null): unknown[] => recordsOf(folded?.fresh?.batch ?? { records: '' });
const logged = (): Promise<unknown> => a.sql('SELECT key, op FROM replication.log ORDER BY seq');

describe('a write that is folded in its own transaction', () => {
  beforeEach(() => open('ab'));

  it('is in the feed, and nothing of it in the log', async () => {
    const made = await writing(insert('x', '1', '2'));
    expect([made?.end, made?.fresh?.after, await logged()]).toEqual([1, 0, []]);
    expect(sentOf(made)).toEqual(recordsOf(await readFeed(a.replica, 0, 'b.1')));
    const changed = await writing(update('x', '3'));
    expect([changed?.end, changed?.fresh?.after, await logged()]).toEqual([2, 1, []]);
    expect(sentOf(changed)).toEqual(recordsOf(await readFeed(a.replica, 1, 'b.1')));
    await replicas.rest();
    await expectSame(replicas);
  });

  it('makes the same version as one that is folded later, but for the time', async () => {
    const shapeOf = async (): Promise<unknown> =>
      [...(await statesOf(a)).values()].map((state) => state.map(({ fields, vector, stamps }) => [fields, Object.keys(vector).length, Object.keys(stamps).toSorted(), new Set(Object.values(stamps).map(([, stamp]) => stamp)).size]));
    await writing(insert('x', '1', '2'));
    await writing(update('x', '3'));
    const own = await shapeOf();
    await a.sql(`DELETE FROM things; DELETE FROM replication.log; DELETE FROM replication.record; DELETE FROM replication.digest`);
    await a.sql(`INSERT INTO things VALUES ('x', '1', '2')`);
    await a.settle();
    await a.sql(`UPDATE things SET f1 = '3' WHERE id = 'x'`);
    await a.settle();
    expect(own).toEqual(await shapeOf());
  });

  it('takes what was captured of the record before with it', async () => {
    await a.sql(`INSERT INTO things VALUES ('x', '1', '2'), ('y', '1', '2')`);
    expect(sentOf(await writing(update('x', '3')))).toHaveLength(1);
    expect(await logged()).toEqual([{ key: 'y', op: 'I' }]);
    await replicas.rest();
    await expectSame(replicas);
  });

  it('is left in the log while somebody else changes states, and does not wait for that', async () => {
    let over = (): void => {};
    const ended = new Promise<void>((resolve) => (over = resolve));
    let other: Promise<void> | null = null;
    await new Promise<void>((begun) => {
      other = a.replica.db.transaction(async (tx) => {
        await beginChange(tx);
        begun();
        await ended;
      });
    });
    try {
      expect(await writing(insert('x', '1', '2'))).toBeNull();
      expect(await writing(update('x', '3'))).toBeNull();
      expect(await logged()).toEqual([
        { key: 'x', op: 'I' },
        { key: 'x', op: 'U' },
      ]);
    } finally {
      over();
      await other;
    }
  });

  it('is left in the log where the record has several sides', async () => {
    await a.sql(`INSERT INTO things VALUES ('x', '1', '2')`);
    await replicas.rest();
    await a.sql(`UPDATE things SET f1 = 'a'`);
    await b.sql(`UPDATE things SET f1 = 'b'`);
    await replicas.rest();
    expect(await writing(update('x', '3'))).toBeNull();
    expect(await logged()).toEqual([{ key: 'x', op: 'U' }]);
  });

  it('that fails, or finds no row, leaves everything as it was', async () => {
    await writing(insert('x', '1', '2'));
    await expect(writeFolded(a.replica, insert('x', '3', '4'))).rejects.toMatchObject({ code: '23505' });
    expect(await writeFolded(a.replica, update('none', '3'))).toEqual({ written: null, folded: null });
    expect(await writeFolded(a.replica, update('x', '1'))).toEqual({ written: 'x', folded: null });
    expect([await logged(), await a.sql('SELECT last_value FROM replication.position'), await a.sql('SELECT * FROM things')]).toEqual([[], [{ last_value: '1' }], [{ id: 'x', f1: '1', f2: '2' }]]);
  });
});

it('a write to what gives way to another record is left in the log', async () => {
  await open('ab', { schema: ACCOUNTS });
  await a.sql(`INSERT INTO accounts (id, email) VALUES ('1', 'same')`);
  await b.sql(`INSERT INTO accounts (id, email) VALUES ('2', 'same')`);
  await replicas.rest();
  for (const key of ['1', '2']) expect(await writing(by('Account', 'UPDATE accounts SET name = $2 WHERE id = $1 RETURNING id', [key, 'n'], key))).toBeNull();
  await replicas.rest();
  await expectSame(replicas);
});
