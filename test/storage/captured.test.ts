/** The log of captured writes in its raw form: databases whose log has another are upgraded, and a line is read as it was meant. */
import pg from 'pg';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { rowsOf } from '../support/compare.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { THINGS, THINGS_WITH_F3 } from '../support/schemas.ts';

let replicas: Replicas;

beforeEach(async () => {
  replicas = await openReplicas('ab', { schema: THINGS });
});
afterEach(() => replicas.close());

const sql = (text: string): Promise<Record<string, string | null>[]> => replicas.at('a').sql(text);

/** The log as it is read, in order. */
const log = (): Promise<Record<string, string | null>[]> => sql('SELECT model, key, op::text, clock, to_json(fields)::text AS fields, incarnation FROM replication.log ORDER BY seq');

/** The trigger of an earlier version, as far as these tests need it. */
const EARLIER_TRIGGER = `
  CREATE OR REPLACE FUNCTION replication."capture_update_Thing"() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $$ BEGIN
    IF current_setting('replication.applying', true) = 'on' THEN RETURN NULL; END IF;
    INSERT INTO replication.log (model, key, op, clock, fields, incarnation) SELECT 'Thing', new.id, 'U', replication.clock(), '{f1}', replication.incarnation();
    RETURN NULL;
  END $$;`;

/** What an earlier version's database had in place of it. */
const EARLIER = `
  DROP VIEW replication.log;
  DROP TABLE replication.captured, replication.field_list;
  DROP FUNCTION replication.list_of, replication.log_line;
  CREATE OR REPLACE FUNCTION replication.incarnation() RETURNS text STABLE LANGUAGE sql AS $$ SELECT 'beef' $$;
  DROP FUNCTION replication.incarnation_number, replication.incarnation_name;
  CREATE TABLE replication.log (seq bigint GENERATED ALWAYS AS IDENTITY, model text NOT NULL, key text NOT NULL, op "char" NOT NULL, clock bigint NOT NULL, fields text[], incarnation text NOT NULL);
  CREATE INDEX log_by_record ON replication.log (key text_pattern_ops);
  ${EARLIER_TRIGGER}
  UPDATE replication.model SET definition = 'an earlier one';
  DELETE FROM replication.installed WHERE file = '019-captured.sql'`;

async function session<T>(work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: replicas.at('a').url });
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

describe('the log of an earlier version', () => {
  it('is read as it was', async () => {
    await sql(`INSERT INTO things VALUES ('x', '1', '2')`);
    await replicas.at('a').settle();
    await sql(EARLIER);
    await sql(`INSERT INTO replication.log (model, key, op, clock, fields, incarnation) VALUES
      ('Thing', 'x', 'U', 1764270000123457, '{f1,f2}', '0a1b2c3d4e5f'), ('Thing', 'x', 'D', 5, NULL, 'f'), ('Thing', 'x', 'I', 1764270000123458, NULL, 'ffffffffffff'), ('Thing', 'x', 'U', 6, '{f2}', '7')`);
    const before = await sql('SELECT model, key, op::text, clock, to_json(fields)::text AS fields, ltrim(incarnation, $$0$$) AS incarnation FROM replication.log ORDER BY seq');
    await replicas.reopen('a');
    expect(await log()).toEqual(before);
    await replicas.rest();
    expect(await rowsOf(replicas.at('b'))).toEqual(['Thing (x,1,2)']);
  });

  it('takes nothing from writers who are at work while it gets its new form', async () => {
    await sql(`INSERT INTO things VALUES ('x', '1', '2'), ('y', '1', '2')`);
    await replicas.at('a').settle();
    await sql(EARLIER);
    await session((first) =>
      session(async (second) => {
        await second.query(`UPDATE things SET f1 = 'known' WHERE id = 'y'`);
        await first.query('BEGIN');
        await first.query(`UPDATE things SET f1 = 'first' WHERE id = 'x'`);
        const opened = replicas.reopen('a');
        const waiting = async (): Promise<number> => Number((await first.query(`SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'things'::regclass`)).rows[0].count);
        await expect.poll(waiting).toBe(1);
        const written = second.query(`UPDATE things SET f2 = 'second' WHERE id = 'y'`);
        await expect.poll(waiting).toBe(2);
        await first.query('COMMIT');
        await Promise.all([opened, written]);
      }),
    );
    expect((await log()).map(({ op, key, fields }) => `${op} ${key} ${fields}`)).toEqual(['U y ["f1"]', 'U x ["f1"]', 'U y ["f2"]']);
    await replicas.rest();
    expect(await rowsOf(replicas.at('b'))).toEqual(['Thing (x,first,2)', 'Thing (y,known,second)']);
  });
});

it('a process of an earlier version goes on beside this one: its triggers log, and it reads and takes out lines by their places', async () => {
  await sql(`INSERT INTO things VALUES ('x', '1', '2')`);
  await replicas.at('a').settle();
  await sql(EARLIER_TRIGGER);
  await sql(`UPDATE things SET f1 = 'e'`);
  const [now] = await sql('SELECT replication.incarnation() AS incarnation, replication.clock() AS clock');
  const [line] = await log();
  expect(line).toMatchObject({ op: 'U', key: 'x', fields: '["f1"]', incarnation: now?.['incarnation'] });
  expect(Number(now?.['clock']) - Number(line?.['clock'])).toBeLessThan(60_000_000);
  const [place] = await sql('SELECT ctid::text FROM replication.log');
  await sql(`DELETE FROM replication.log WHERE ctid = ANY (ARRAY['${place?.['ctid']}']::text[]::tid[])`);
  expect(await log()).toEqual([]);
});

it('a line is read as it was meant after the fields have changed', async () => {
  await sql(`INSERT INTO things VALUES ('x', '1', '2')`);
  await replicas.at('a').settle();
  await sql(`UPDATE things SET f2 = 'before'`);
  // By name it comes first.
  await replicas.upgrade('a', { ...THINGS_WITH_F3, models: THINGS_WITH_F3.models.map((each) => ({ ...each, columns: { f3: 'a3' } })) }, 'ALTER TABLE things ADD a3 text');
  await sql(`UPDATE things SET a3 = 'after'`);
  expect((await log()).map(({ fields }) => fields)).toEqual(['["f2"]', '["f3"]']);
});
