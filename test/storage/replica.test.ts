/** Who a replica is: its name, its keys, its incarnation. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import pg from 'pg';
import { afterEach, describe, expect, it } from 'vitest';

import { openDatabase } from '../../src/storage/database.ts';
import { openEmbedded } from '../../src/storage/embedded.ts';
import { installSchema } from '../../src/storage/schema.ts';
import { openReplica, readEras, type Replica, type ReplicaOptions } from '../../src/storage/replica.ts';
import { expectSame } from '../support/compare.ts';
import { createTestDatabase } from '../support/postgres.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { PEOPLE, THINGS } from '../support/schemas.ts';

let replicas: Replicas | null = null;

afterEach(async () => {
  await replicas?.close();
  replicas = null;
});

const incarnation = async (name: string): Promise<string> => (await replicas?.at(name).sql('SELECT replication.incarnation() AS i'))?.[0]?.['i'] as string;

/** Opens a database as a replica, and closes it again. */
async function reopened(url: string, options: Partial<ReplicaOptions>): Promise<Pick<Replica, 'id'>> {
  const db = openDatabase(url, { size: 1, onError: () => {} });
  try {
    return await openReplica(db, { name: 'a', slot: 1, stride: 10, policy: 'manual', models: PEOPLE.models, report: () => {}, ...options });
  } finally {
    await db.close();
  }
}

describe('identity', () => {
  it('stays, and a database of another is refused', async () => {
    replicas = await openReplicas('a', { schema: PEOPLE });
    const { url, replica } = replicas.at('a');
    expect((await reopened(url, {})).id).toBe(replica.id);
    await expect(reopened(url, { name: 'b' })).rejects.toThrow('this database belongs to replica "a", not "b"');
    await expect(reopened(url, { slot: 2 })).rejects.toThrow('was set up with SLOT 1 and ID_STRIDE 10, not 2 and 10');
    await expect(reopened(url, { stride: 16 })).rejects.toThrow('ID_STRIDE 10');
  });

  it('is settled once where several processes start at the same time', async () => {
    const database = await createTestDatabase({ empty: true });
    const client = new pg.Client({ connectionString: database.url });
    await client.connect();
    await client.query(PEOPLE.ddl);
    await client.end();
    const ids = await Promise.all([1, 2, 3].map(() => reopened(database.url, {})));
    expect(new Set(ids.map(({ id }) => id)).size).toBe(1);
    await database.close();
  });
});

describe('keys', () => {
  const create = async (name: string): Promise<string> => (await replicas?.at(name).sql('INSERT INTO people DEFAULT VALUES RETURNING id'))?.[0]?.['id'] as string;

  it('are given out by slot and stride', async () => {
    replicas = await openReplicas('ab', { schema: PEOPLE });
    expect([await create('a'), await create('a'), await create('a')]).toEqual(['1', '11', '21']);
    expect([await create('b'), await create('b'), await create('b')]).toEqual(['2', '12', '22']);
    await replicas.rest();
    await replicas.reopen('a');
    expect([await create('a'), await create('b')]).toEqual(['31', '32']);
  });

  it('go on past the rows that there were', async () => {
    const ddl = `${PEOPLE.ddl}; INSERT INTO people (email) VALUES ('x'), ('y'), ('z')`;
    replicas = await openReplicas('ab', { schema: { ...PEOPLE, ddl } });
    expect([await create('a'), await create('b')]).toEqual(['11', '12']);
  });

  it('of identity columns are as well', async () => {
    replicas = await openReplicas('ab', { schema: { ...PEOPLE, ddl: 'CREATE TABLE people (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, email text, age int)' } });
    expect([await create('a'), await create('b'), await create('b')]).toEqual(['1', '2', '12']);
    await replicas.rest();
    await expectSame(replicas);
  });

  it('go on past those that came back after a restore', async () => {
    replicas = await openReplicas('ab', { schema: PEOPLE });
    const backup = await replicas.backup('a');
    await create('a');
    await create('a');
    await replicas.sync('a', 'b');
    await replicas.restore('a', backup);
    await replicas.sync('b', 'a');
    await replicas.reopen('a');
    expect(await create('a')).toBe('21');
  });
});

describe('the incarnation', () => {
  it('is the same for every connection and every start of a replica', async () => {
    replicas = await openReplicas('a');
    const before = await incarnation('a');
    expect(before).toMatch(/^[0-9a-f]{1,12}$/);
    await replicas.reopen('a');
    expect(await incarnation('a')).toBe(before);
    expect(await readEras(replicas.at('a').replica)).toEqual([{ incarnation: before, first: 1 }]);
  });

  it('is new in a copy of the database, from the first write on, and takes its place in the feed', async () => {
    replicas = await openReplicas('a');
    const before = await incarnation('a');
    await replicas.at('a').sql(`INSERT INTO things VALUES ('x', '1', '1'), ('y', '1', '1')`);
    await replicas.at('a').settle();
    await replicas.restore('a', await replicas.backup('a'));
    const after = await incarnation('a');
    expect(after).not.toBe(before);
    await replicas.at('a').sql(`UPDATE things SET f1 = '2' WHERE id = 'x'`);
    expect(await replicas.at('a').sql('SELECT incarnation FROM replication.log')).toEqual([{ incarnation: after }]);
    expect(await readEras(replicas.at('a').replica)).toEqual([
      { incarnation: before, first: 1 },
      { incarnation: after, first: 3 },
    ]);
  });

  it('is new in what pg_dump would make of the database', async () => {
    replicas = await openReplicas('a');
    const { url, sql, replica, settle } = replicas.at('a');
    await sql(`INSERT INTO things VALUES ('x', '1', '1')`);
    await settle();
    const copy = await createTestDatabase({ empty: true });
    const db = openDatabase(copy.url, { size: 1, onError: () => {} });
    await db.query(THINGS.ddl);
    await db.transaction(installSchema);
    // The data of each table, as COPY moves it, and what sequences have given out.
    const source = new pg.Client({ connectionString: url });
    await source.connect();
    for (const table of ['public.things', ...['replica', 'roster', 'era', 'record', 'digest', 'conflict', 'peer'].map((name) => `replication.${name}`)]) {
      const { rows } = await source.query<{ rows: string }>(`SELECT coalesce(json_agg(t), '[]')::text AS rows FROM ${table} t`);
      await db.query(`INSERT INTO ${table} OVERRIDING SYSTEM VALUE SELECT * FROM json_populate_recordset(NULL::${table}, $1)`, [rows[0]?.rows]);
    }
    await source.end();
    await db.query(`SELECT setval('replication.position', 1)`);
    const opened = await openReplica(db, { name: 'a', slot: 1, stride: 10, policy: 'manual', models: THINGS.models, report: () => {} });
    expect(opened.id).toBe(replica.id);
    const eras = await readEras(opened);
    expect(eras).toHaveLength(2);
    expect(eras[0]).toEqual({ incarnation: await incarnation('a'), first: 1 });
    expect(eras[1]?.first).toBe(2);
    await db.close();
    await copy.close();
  });

  it('is new after a restart of the database server', async () => {
    const dataDir = await mkdtemp(join(tmpdir(), 'replique-incarnation-'));
    const settings = { fsync: 'off', synchronous_commit: 'off', log_min_messages: 'fatal' };
    const seen: string[] = [];
    try {
      for (let start = 0; start < 2; start++) {
        const server = await openEmbedded({ dataDir, name: 'a', settings });
        const db = openDatabase(server.url, { size: 1, onError: () => {} });
        if (start === 0) await db.query(THINGS.ddl);
        const replica = await openReplica(db, { name: 'a', slot: 1, stride: 10, policy: 'manual', models: THINGS.models, report: () => {} });
        // By the first write, whoever makes it.
        await db.query(`INSERT INTO things VALUES ($1, '1', '1')`, [String(start)]);
        seen.push((await db.query('SELECT incarnation FROM replication.log ORDER BY seq DESC LIMIT 1'))[0]?.[0] as string);
        expect((await readEras(replica)).map((era) => era.incarnation)).toEqual(seen);
        await db.close();
        await server.close();
      }
    } finally {
      await rm(dataDir, { recursive: true, force: true });
    }
    expect(new Set(seen).size).toBe(2);
  });
});
