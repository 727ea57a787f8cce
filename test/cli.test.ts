/** The commands as a person runs them: real processes, real databases, real signals. */
import { once } from 'node:events';
import { readFile, readdir, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { join } from 'node:path';

import pg from 'pg';
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { readPostmaster } from '../src/storage/embedded-server.ts';
import { answers, openWorkplace, until, type Workplace } from './support/commands.ts';
import { createTestDatabase } from './support/postgres.ts';

let workplace: Workplace;
let folder: string;
let basePort: number;

const run: Workplace['run'] = (args, env) => workplace.run(args, env);
const start: Workplace['start'] = (env) => workplace.start(env);
const server = (name: string) => readPostmaster(join(folder, '.data', name, 'postgres'));
const childrenOf = async (pid: number | undefined) => (await readFile(`/proc/${pid}/task/${pid}/children`, 'utf8')).trim().split(' ').map(Number);

async function query(url: string, sql: string): Promise<unknown[]> {
  const client = new pg.Client({ connectionString: url });
  await client.connect();
  const { rows } = await client.query<Record<string, unknown>>({ text: sql });
  await client.end();
  return rows;
}

async function expectAllGone(): Promise<void> {
  for (const name of ['a', 'b']) expect(await server(name)).toBeNull();
  for (const port of [basePort, basePort + 1]) expect(await answers(port)).toBe(false);
}

beforeEach(async () => {
  workplace = await openWorkplace();
  ({ folder, basePort } = workplace);
});

afterEach(() => workplace.close());

describe('npm start', () => {
  test.each(['SIGINT', 'SIGTERM'] as const)('starts two replicas, says where they are, and stops all of it on %s', async (signal) => {
    const command = await start();
    for (const port of [basePort, basePort + 1]) {
      expect(await answers(port)).toBe(true);
      for (const path of ['/graphql', '/docs', '/metrics']) expect(command.stdout).toContain(`http://127.0.0.1:${port}${path}\n`);
    }
    expect(command.stdout).toContain(`curl -X POST http://127.0.0.1:${basePort}/api/v1/sync-to-b\n`);
    expect(await server('a')).not.toBeNull();
    command.child.kill(signal);
    expect(await command.ended).toBe(0);
    await expectAllGone();
  });

  test('stopped while it starts, it leaves nothing running', async () => {
    const command = run(['start']);
    await until('a database is being made', async () => (await readdir(join(folder, '.data/a')).catch(() => [])).length > 0);
    command.child.kill('SIGINT');
    expect(await command.ended).toBe(0);
    expect(command.stdout).toBe('');
    await expectAllGone();
  });

  test('a replica that is killed takes the rest with it, its database included; data stays', async () => {
    const command = await start();
    const [replica] = await childrenOf(command.child.pid);
    process.kill(replica ?? 0, 'SIGKILL');
    expect(await command.ended).toBe(1);
    expect(command.stderr).toMatch(/replica a ended unexpectedly \(signal SIGKILL\), and all others with it\./);
    await expectAllGone();
    await start();
  });

  test('killed itself, its replicas stop by themselves', async () => {
    const command = await start();
    command.child.kill('SIGKILL');
    await command.ended;
    await until('all are gone', async () => (await server('a')) === null && (await server('b')) === null);
    await expectAllGone();
  });

  test('all killed at once: the next start takes over what is left', async () => {
    const command = await start();
    const replicas = await childrenOf(command.child.pid);
    for (const pid of [command.child.pid ?? 0, ...replicas]) process.kill(pid, 'SIGKILL');
    await command.ended;
    const left = await server('a');
    expect(left).not.toBeNull();
    await start();
    expect(await server('a')).toEqual(left);
  });

  test('two at once over the same data: the second is told', async () => {
    await start();
    const second = run(['start'], { BASE_PORT: '19101' });
    expect(await second.ended).toBe(1);
    expect(second.stderr).toMatch(/^replica [ab] cannot run: another process has the database in .*\.data\/[ab] open\. Stop that replica/m);
    expect(second.stderr).not.toMatch(/^\s+at /m);
    for (const port of [basePort, basePort + 1]) expect(await answers(port)).toBe(true);
  });

  test('a taken port is named, and nothing starts', async () => {
    const other = createServer().listen(basePort + 1, '127.0.0.1');
    await once(other, 'listening');
    const command = run(['start']);
    expect(await command.ended).toBe(1);
    other.close();
    expect(command.stderr.trim()).toBe(`replica b cannot listen on 127.0.0.1:${basePort + 1}: another program does. Stop it, or set BASE_PORT to another port.`);
    expect(await readdir(folder)).toEqual([]);
  });

  test('databases that do not answer are named, and nothing starts', async () => {
    const command = run(['start'], { DATABASE_URL_A: 'postgresql://u:hidden@127.0.0.1:1/d', DATABASE_URL_B: 'postgresql://u:hidden@replique.invalid/d' });
    expect(await command.ended).toBe(1);
    expect(command.stderr.trim().split('\n')).toEqual([
      'replica a cannot reach its database: nothing listens on 127.0.0.1:1. Start PostgreSQL there, or correct DATABASE_URL_A.',
      expect.stringMatching(/^replica b cannot reach its database: .*replique\.invalid.* correct DATABASE_URL_B\.$/i),
    ]);
    expect(command.stderr).not.toContain('hidden');
  });

  test('mistakes are listed, all at once, those of .env as well', async () => {
    await writeFile(join(folder, '.env'), 'CONFLICT_POLICY=newest\nREPLICAS=a,b,c\n');
    const command = run(['start'], { BASE_PORT: 'x', REPLICAS: 'a,b' });
    expect(await command.ended).toBe(1);
    expect(command.stderr.trim().split('\n')).toEqual([
      'the configuration has 2 mistakes:',
      expect.stringMatching(/^ {2}- BASE_PORT is "x"/),
      expect.stringMatching(/^ {2}- CONFLICT_POLICY is "newest"/),
    ]);
  });
});

describe('npm run replica', () => {
  test('runs one alone, on a database of its own', async () => {
    const database = await createTestDatabase({ empty: true });
    const command = run(['replica'], { REPLICA: 'c', PORT: String(basePort), DATABASE_URL: database.url });
    await until('the banner', () => command.stdout.includes('Ctrl-C'));
    expect(command.stdout).toContain('One replica is ready.');
    expect(command.stdout).not.toContain(new URL(database.url).password);
    expect(await answers(basePort)).toBe(true);
    command.child.kill('SIGTERM');
    expect(await command.ended).toBe(0);
    await database.close();
  });

  test('says what it lacks', async () => {
    const command = run(['replica'], { REPLICA: 'a', DATABASE_URL: 'postgresql://u:hidden@127.0.0.1:1/d', PORT: String(basePort) });
    expect(await command.ended).toBe(1);
    expect(command.stderr.trim()).toBe('replica a cannot reach its database: nothing listens on 127.0.0.1:1. Start PostgreSQL there, or correct DATABASE_URL.');
  });
});

describe('npm run reset', () => {
  test('without a terminal and without --yes, says what it would delete and does nothing', async () => {
    const command = run(['reset']);
    expect(await command.ended).toBe(1);
    expect(command.stderr).toMatch(/reset deletes for good:\n {2}a: the embedded database in \.data\/a\n {2}b: .*\nNothing was done/);
  });

  test('refuses while a replica runs, then removes the embedded databases', async () => {
    const fleet = await start();
    const refused = run(['reset', '--yes']);
    expect(await refused.ended).toBe(1);
    expect(refused.stderr).toMatch(/another process has the database in .* open/);
    fleet.child.kill('SIGINT');
    await fleet.ended;

    const command = run(['reset', '--yes']);
    expect(await command.ended).toBe(0);
    expect(command.stdout).toBe('emptied a: the embedded database in .data/a\nemptied b: the embedded database in .data/b\n');
    expect(await readdir(join(folder, '.data'))).toEqual([]);
  });

  test('of another database, removes what the migrations made and nothing else', async () => {
    const [ours, theirs] = await Promise.all([createTestDatabase(), createTestDatabase({ empty: true })]);
    const tables = "SELECT string_agg(relname, ',' ORDER BY relname) AS names FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace";
    await query(ours.url, 'CREATE TABLE kept (id int)');
    await query(theirs.url, 'CREATE TABLE users (id int)');

    const env = { DATABASE_URL_A: ours.url, DATABASE_URL_B: theirs.url };
    const command = run(['reset', '--yes'], env);
    expect(await command.ended).toBe(0);
    expect(command.stdout).toMatch(/^emptied a: this project's tables in the database test_\w+ on 127\.0\.0\.1:\d+\nb has no data\n$/);
    expect(await query(ours.url, tables)).toEqual([{ names: 'kept' }]);
    expect(await query(ours.url, "SELECT to_regnamespace('replication')::text AS schema")).toEqual([{ schema: null }]);
    expect(await query(theirs.url, tables)).toEqual([{ names: 'users' }]);
    await Promise.all([ours.close(), theirs.close()]);
  });
});

test('an unknown command is answered with those there are', async () => {
  const command = run(['stert']);
  expect(await command.ended).toBe(1);
  expect(command.stderr).toMatch(/there is no command "stert"\.[\s\S]*npm start/);
});
