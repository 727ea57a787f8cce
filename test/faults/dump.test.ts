/** A replica's database is dumped by pg_dump and restored by pg_restore, where there are such tools for this server's version. */
import { execFile } from 'node:child_process';
import { mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import pg from 'pg';
import { afterEach, expect, inject, it } from 'vitest';

import { expectSame, valuesOf } from '../support/compare.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { PEOPLE } from '../support/schemas.ts';

const run = promisify(execFile);

/** The folder of tools that can dump this server; null where there are none: those of an older version refuse. */
async function findTools(): Promise<string | null> {
  const client = new pg.Client({ connectionString: inject('postgresUrl') });
  await client.connect();
  const { rows } = await client.query<{ major: number }>(`SELECT current_setting('server_version_num')::int / 10000 AS major`);
  await client.end();
  const versions = await readdir('/usr/lib/postgresql').catch(() => []);
  for (const folder of ['', ...versions.map((version) => `/usr/lib/postgresql/${version}/bin`)]) {
    const { stdout } = await run(join(folder, 'pg_dump'), ['--version']).catch(() => ({ stdout: '' }));
    if (Number(/\d+/.exec(stdout)?.[0]) >= Number(rows[0]?.major)) return folder;
  }
  return null;
}

const tools = await findTools();
if (tools === null) process.stderr.write('Skipped: restoring a dump. There is no pg_dump for this version of PostgreSQL.\n');

let replicas: Replicas | null = null;
let folder: string | null = null;
const restored: TestDatabase[] = [];
afterEach(async () => {
  await replicas?.close();
  await Promise.all(restored.splice(0).map((database) => database.close()));
  if (folder !== null) await rm(folder, { recursive: true, force: true });
});

it.skipIf(tools === null)('a replica restored from a dump gets its writes back, and loses none made since', async () => {
  replicas = await openReplicas('ab', { schema: PEOPLE });
  const sql = (name: string, text: string) => (replicas as Replicas).at(name).sql(text);
  await sql('a', `INSERT INTO people (email, age) VALUES ('r', 1), ('s', 1)`);
  await replicas.rest();
  folder = await mkdtemp(join(tmpdir(), 'replique-dump-'));
  const file = join(folder, 'a.dump');
  await run(join(tools ?? '', 'pg_dump'), ['--format=custom', `--file=${file}`, replicas.at('a').url]);
  await sql('a', 'UPDATE people SET age = 2');
  await sql('a', `INSERT INTO people (email, age) VALUES ('t', 2)`);
  await replicas.sync('a', 'b');
  const before = (await sql('a', 'SELECT replication.incarnation() AS i'))[0]?.['i'];
  await replicas.move('a', async () => {
    const database = await createTestDatabase({ empty: true });
    restored.push(database);
    await run(join(tools ?? '', 'pg_restore'), ['--exit-on-error', `--dbname=${database.url}`, file]);
    return database.url;
  });
  expect((await sql('a', 'SELECT replication.incarnation() AS i'))[0]?.['i']).not.toBe(before);
  await sql('a', `UPDATE people SET email = 'since' WHERE email = 's'`);
  await replicas.rest();
  await sql('a', `INSERT INTO people (email, age) VALUES ('u', 3)`);
  await replicas.rest();
  for (const name of replicas.names) for (const problem of replicas.at(name).problems.splice(0)) expect(problem).toContain('this database went back in time');
  await expectSame(replicas);
  expect(await valuesOf(replicas.at('a'), '1', 'Person')).toEqual(['r,2']);
  expect(await valuesOf(replicas.at('a'), '11', 'Person')).toEqual(['s,2', 'since,1']);
  expect(await sql('b', 'SELECT id, email FROM people WHERE id > 11 ORDER BY id')).toEqual([{ id: '21', email: 't' }, { id: '31', email: 'u' }]);
});
