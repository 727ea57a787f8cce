/** What is set aside since a restore: what people and peers make of it. */
import { afterEach, describe, expect, it } from 'vitest';

import { readIncarnation } from '../../src/storage/replica.ts';
import { confirm, readUnconfirmed } from '../../src/storage/reseed.ts';
import type { WireVersion } from '../../src/replication/wire.ts';
import { ACCOUNTS } from '../support/schemas.ts';
import { aside, asides, open, replicas, restored, settle, sql } from './restored.ts';

afterEach(() => replicas.close());

describe('what is set aside', () => {
  it('is shown with its values, page by page, and brought back or let go by people', async () => {
    await restored(`INSERT INTO things VALUES ('1', 'x'), ('2', 'y'), ('3', 'z')`, 'DELETE FROM things');
    await settle();
    const list = asides();
    const [first] = await list.list(1, null);
    expect(first).toMatchObject({ model: 'Thing', recordId: '1', values: { id: '1', f1: 'x', f2: null } });
    expect((await list.list(100, first?.id ?? '')).map(({ recordId }) => recordId)).toEqual(['2', '3']);
    await list.restore('Thing', '1');
    await list.discard('Thing', '2');
    await expect(list.discard('Thing', '2')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(list.restore('Nothing', '2')).rejects.toMatchObject({ code: 'NOT_FOUND' });
    await expect(list.list(1, '!')).rejects.toMatchObject({ code: 'BAD_USER_INPUT' });
    expect([await aside(), await list.count()]).toEqual([['3'], 1]);
    await settle();
    for (const name of replicas.names) expect(await sql(name, 'SELECT id, f1 FROM things')).toEqual([{ id: '1', f1: 'x' }]);
  });

  it('is not brought back while its row is still shown: it would leave its table all the same', async () => {
    await restored(`INSERT INTO things VALUES ('dead', '1')`, 'DELETE FROM things');
    await replicas.sync('a', 'b');
    await expect(asides().restore('Thing', 'dead')).rejects.toMatchObject({ code: 'BAD_USER_INPUT' });
    expect(await aside()).toEqual(['dead']);
    await settle();
    await asides().restore('Thing', 'dead');
    await settle();
    for (const name of replicas.names) expect(await sql(name, 'SELECT id, f1 FROM things')).toEqual([{ id: 'dead', f1: '1' }]);
  });

  it('is left as it was where its table refuses it', async () => {
    await restored(`INSERT INTO accounts (id, email) VALUES ('dead', 'x')`, 'DELETE FROM accounts', { schema: ACCOUNTS });
    await settle();
    await sql('a', `INSERT INTO accounts (id, email) VALUES ('new', 'x')`);
    await expect(asides().restore('Account', 'dead')).rejects.toMatchObject({ code: 'UNIQUE_VIOLATION' });
    expect(await aside()).toEqual(['dead']);
  });

  it('is taken off the list by a peer that comes with it later', async () => {
    await restored(`INSERT INTO things VALUES ('dead')`, 'DELETE FROM things', { names: 'abc' });
    await replicas.sync('b', 'a');
    await replicas.at('a').settle();
    expect(await aside()).toEqual(['dead']);
    // As a peer would that had not heard of the deletion.
    const versions = (await sql('a', 'SELECT versions FROM replication.aside'))[0]?.['versions'] as string;
    const [incarnation, generation] = [await readIncarnation(replicas.at('a').replica), (await sql('a', 'SELECT generation FROM replication.collection'))[0]?.['generation']];
    const { id } = replicas.at('c').replica;
    await replicas.at('a').handlers.changes({
      protocol: 1,
      sender: { name: 'c', id, incarnation: await readIncarnation(replicas.at('c').replica) },
      receiver: incarnation,
      generation: Number(generation),
      start: null,
      end: { incarnation: await readIncarnation(replicas.at('c').replica), position: 1 },
      more: false,
      records: [['Thing', 'dead', JSON.parse(versions)]],
      columns: [],
    });
    expect(await aside()).toEqual([]);
    expect(await sql('a', 'SELECT id FROM things')).toEqual([{ id: 'dead' }]);
  });

  it('is taken off the list by a peer that comes with it later, many by column', async () => {
    await restored(`INSERT INTO things SELECT 'dead' || n FROM generate_series(1, 150) n`, 'DELETE FROM things', { names: 'abc' });
    await replicas.sync('b', 'a');
    await replicas.at('a').settle();
    expect(await sql('a', 'SELECT count(*) FROM replication.aside')).toEqual([{ count: '150' }]);
    const written = (await sql('a', 'SELECT key, versions FROM replication.aside ORDER BY key')).map(({ key, versions }) => {
      const [{ v }] = JSON.parse(versions as string) as [WireVersion];
      return { key: key as string, writer: Object.keys(v)[0] as string, stamp: Object.values(v)[0] as number };
    });
    const [incarnation, generation] = [await readIncarnation(replicas.at('a').replica), (await sql('a', 'SELECT generation FROM replication.collection'))[0]?.['generation']];
    const sender = { name: 'c', id: replicas.at('c').replica.id, incarnation: await readIncarnation(replicas.at('c').replica) };
    const keys = written.map(({ key }) => key);
    const columns = { model: 'Thing', writer: written[0]?.writer as string, fields: ['f1', 'f2'], keys, stamps: written.map(({ stamp }) => stamp), values: [keys.map(() => null), keys.map(() => null)] };
    await replicas.at('a').handlers.changes({ protocol: 1, sender, receiver: incarnation, generation: Number(generation), start: null, end: { incarnation: sender.incarnation, position: 1 }, more: false, records: [], columns: [columns] });
    expect(await aside()).toEqual([]);
    expect(await sql('a', 'SELECT count(*) FROM things')).toEqual([{ count: '150' }]);
  });

  it('is looked up record by record, though that was planned while there was nothing', async () => {
    await open('a');
    const { db } = replicas.at('a').replica;
    await db.query('ANALYZE replication.aside');
    const [found, read] = await db.transaction(async (tx) => {
      const look = async (): Promise<readonly string[]> => {
        const unconfirmed = await readUnconfirmed(tx, [['Thing', '7'], ['Thing', '2000'], ['Thing', 'none']]);
        await confirm(tx, [{ model: 'Thing', key: '7', left: [] }, { model: 'Thing', key: '8', left: [{ vector: { 'a.1': 1 }, stamps: {}, fields: null }] }]);
        return [...unconfirmed.keys()];
      };
      await look();
      await tx.query(`INSERT INTO replication.aside (model, key, versions, since) SELECT 'Thing', n::text, '[]', 1 FROM generate_series(1, 3000) n`);
      const keys = await look();
      const [row] = await tx.query(`SELECT pg_stat_get_xact_tuples_returned('replication.aside'::regclass) + sum(pg_stat_get_xact_tuples_returned(indexrelid)) FROM pg_index WHERE indrelid = 'replication.aside'::regclass`);
      return [keys, Number(row?.[0])] as const;
    });
    expect(found).toEqual(['Thing 7', 'Thing 2000']);
    expect(await sql('a', `SELECT count(*), count(*) FILTER (WHERE versions::text <> '[]') AS changed FROM replication.aside`)).toEqual([{ count: '2999', changed: '1' }]);
    expect(read).toBeLessThan(20);
  });
});
