/** A link that goes on without another handshake, while either side is given another schema. */
import { afterEach, describe, expect, it, vi } from 'vitest';

import { openDatabase } from '../../src/storage/database.ts';
import { readFeed, type Fresh } from '../../src/storage/feed.ts';
import { fold } from '../../src/storage/fold.ts';
import { openReplica, schemaOf } from '../../src/storage/replica.ts';
import { expectSame } from '../support/compare.ts';
import { model, THINGS, THINGS_WITH_DEFAULT, type Schema } from '../support/schemas.ts';
import { batches, capture, handshakes, linkToB, open, replicas, write } from './link-to-b.ts';

afterEach(() => replicas.close());

/** f2 as a number. */
const RETYPED: Schema = { ddl: '', models: [model('Thing', 'things', { id: 'String', f1: 'String?', f2: 'Int?' })] };
const RETYPE = 'ALTER TABLE things ALTER COLUMN f2 TYPE integer USING f2::integer';

describe('a link that has shaken hands', () => {
  it('sends what was just folded without reading it, where it has sent all before that', async () => {
    await open('ab');
    const link = linkToB();
    await write('x');
    await link.push(false, true);
    const { replica } = replicas.at('a');
    const read = vi.spyOn(replica.db, 'transaction');
    const folded = async (key: string): Promise<Fresh | null> => {
      await capture(key);
      const { fresh } = await fold(replica, () => {}, [['Thing', key]]);
      read.mockClear();
      return fresh;
    };
    const first = await folded('y');
    expect(await link.push(false, true, first)).toMatchObject({ sent: 1, applied: 1 });
    expect(read).not.toHaveBeenCalled();
    // Of what stands in between it knows nothing.
    await write('z');
    expect(await link.push(false, true, await folded('u'))).toMatchObject({ sent: 2, applied: 2 });
    expect(await link.push(false, true, first)).toMatchObject({ sent: 0 });
    await expectSame(replicas);
    expect(handshakes).toBe(1);
  });

  it('takes it of no other peer that all of a change came from it', async () => {
    await open('ab');
    const link = linkToB();
    await write('x');
    await link.push(false, true);
    const { replica } = replicas.at('a');
    const { standing } = await readFeed(replica, 1, '');
    const none = { after: 1, batch: { end: 2, count: 0, records: '', columns: '', next: 1, more: false, standing } };
    await write('y');
    expect(await link.push(false, true, { ...none, peer: 'b.elsewhen' })).toMatchObject({ sent: 1, applied: 1 });
    await write('z');
    const peer = `b.${(await replicas.at('b').sql('SELECT replication.incarnation() AS i'))[0]?.['i']}`;
    expect(await link.push(false, true, { ...none, after: 2, batch: { ...none.batch, end: 3 }, peer })).toMatchObject({ sent: 0 });
    await write('u');
    expect(await link.push(false, true)).toMatchObject({ sent: 1 });
  });

  it('goes on without another handshake', async () => {
    await open('ab');
    const link = linkToB();
    for (const key of 'xyz') {
      await write(key);
      expect(await link.push(false, true)).toMatchObject({ sent: 1, applied: 1 });
    }
    await replicas.reopen('b');
    await write('u');
    expect(await link.push(false, true)).toMatchObject({ sent: 1, applied: 1 });
    expect(handshakes).toBe(1);
  });

  it('sends what is folded; one that has not, folds first', async () => {
    await open('ab');
    const link = linkToB();
    await link.push(false, true);
    await capture('x');
    expect(await link.push(false, true)).toMatchObject({ sent: 0 });
    expect(await link.push(false, false)).toMatchObject({ sent: 1, applied: 1 });
  });

  it('goes on where it is asked to send, too, but asks the peer where there is nothing to send', async () => {
    await open('ab');
    const link = linkToB();
    for (const key of 'xy') {
      await capture(key);
      expect(await link.push(false, false)).toMatchObject({ sent: 1, applied: 1 });
    }
    expect([handshakes, link.hasNews()]).toEqual([1, true]);
    expect(await link.push(false, false)).toMatchObject({ sent: 0 });
    expect([handshakes, link.hasNews()]).toEqual([2, false]);
  });

  it('shakes hands again where this replica has forgotten deletions: else nothing of what the peer answers would be taken', async () => {
    await open('ab');
    const [a, b] = [replicas.at('a'), replicas.at('b')];
    const link = linkToB();
    await write('x');
    await link.push(false, false);
    await a.sql('UPDATE replication.collection SET generation = generation + 1');
    await a.sql(`UPDATE things SET f1 = 'a'`);
    await b.sql(`UPDATE things SET f1 = 'b'`);
    expect(await link.push(false, false)).toMatchObject({ sent: 1, conflictsDetected: 1 });
    expect(handshakes).toBe(2);
    await expectSame(replicas);
  });

  it('shakes hands again where the peer was given another schema, and sends nothing where that does not fit', async () => {
    await open('ab');
    const link = linkToB();
    await write('x');
    await link.push(false, true);
    await replicas.upgrade('b', RETYPED, RETYPE);
    await write('y');
    await expect(link.push(false, true)).rejects.toThrow(/its field Thing\.f2 is Int, here it is String/);
    expect(await replicas.at('b').sql('SELECT id FROM things')).toEqual([{ id: 'x' }]);
    await replicas.upgrade('b', THINGS, 'ALTER TABLE things ALTER COLUMN f2 TYPE text');
    expect(await link.push(false, true)).toMatchObject({ sent: 1, applied: 1 });
  });

  it('may meet another process of the peer, which has not looked since a third one brought a field', async () => {
    await open('ab');
    let schema: string | null = null;
    const link = linkToB((request) => ({ ...request, ...(schema !== null && { schema }) }));
    await write('x');
    await link.push(false, true);
    await replicas.at('b').sql(`ALTER TABLE things ADD COLUMN f3 text NOT NULL DEFAULT 'd'`);
    const db = openDatabase(replicas.at('b').url, { size: 1, onError: () => {} });
    try {
      schema = schemaOf(await openReplica(db, { name: 'b', slot: 2, stride: 10, policy: 'manual', models: THINGS_WITH_DEFAULT.models, report: () => {} }));
      await write('y');
      expect(await link.push(false, true)).toMatchObject({ sent: 1, applied: 1 });
      expect(handshakes).toBe(1);
    } finally {
      await db.close();
    }
  });

  it('shakes hands again where this replica has taken up a field that another process brought', async () => {
    await open('ab');
    const link = linkToB();
    await write('x');
    await link.push(false, true);
    // Another process of a: it must be written, and b does not know it.
    await replicas.at('a').sql(`ALTER TABLE things ADD COLUMN f3 text NOT NULL DEFAULT lower('X')`);
    const db = openDatabase(replicas.at('a').url, { size: 1, onError: () => {} });
    try {
      await openReplica(db, { name: 'a', slot: 1, stride: 10, policy: 'manual', models: THINGS_WITH_DEFAULT.models, report: () => {} });
      await write('y');
      await expect(link.push(false, true)).rejects.toThrow(/it lacks field Thing\.f3, which must be written here/);
      expect(await replicas.at('b').sql('SELECT id FROM things')).toEqual([{ id: 'x' }]);
    } finally {
      await db.close();
    }
  });
});

it('passes over what the peer has, however long that is, and sends nothing for it', async () => {
  await open('ab');
  await replicas.at('b').sql(`INSERT INTO things (id) SELECT n::text FROM generate_series(1, 10001) n`);
  await replicas.sync('b', 'a');
  await write('z');
  expect(await linkToB().push(false, false)).toMatchObject({ sent: 1, applied: 1 });
  expect(batches).toBe(1);
});
