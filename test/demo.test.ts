/** `npm run demo` as a person runs it: what it tells is what the replicas hold. */
import { afterEach, beforeEach, describe, expect, test } from 'vitest';

import { answers, openWorkplace, until, type Workplace } from './support/commands.ts';
import { createTestDatabase, type TestDatabase } from './support/postgres.ts';

let workplace: Workplace;
let databases: readonly TestDatabase[];
let env: Readonly<Record<string, string>>;

beforeEach(async () => {
  workplace = await openWorkplace();
  databases = await Promise.all([createTestDatabase(), createTestDatabase()]);
  env = { DATABASE_URL_A: databases[0]?.url ?? '', DATABASE_URL_B: databases[1]?.url ?? '' };
});

afterEach(async () => {
  await workplace.close();
  await Promise.all(databases.map((database) => database.close()));
});

const address = (name: 'a' | 'b'): string => `http://127.0.0.1:${workplace.basePort + (name === 'a' ? 0 : 1)}`;

async function demo(over: Readonly<Record<string, string>> = {}): Promise<string> {
  const command = workplace.run(['demo'], { ...env, ...over });
  expect([await command.ended, command.stderr.replaceAll(/^.* ….*\n/gm, '')]).toEqual([0, '']);
  return command.stdout;
}

async function get(url: string): Promise<Record<string, unknown>> {
  const response = await fetch(url);
  expect([url, response.status]).toEqual([url, 200]);
  return (await response.json()) as Record<string, unknown>;
}

/** Runs a command of the story, as curl would. */
async function curl(line: string): Promise<Record<string, unknown>> {
  const [, url] = /(http:\S+)/.exec(line) ?? [];
  const [, body] = /-d '(.*)'$/.exec(line) ?? [];
  if (url === undefined || body === undefined) throw new Error(`no command: ${line}`);
  const response = await fetch(url, { method: 'POST', headers: { 'content-type': 'application/json' }, body });
  expect([line, response.status]).toEqual([line, 200]);
  return (await response.json()) as Record<string, unknown>;
}

const linesWith = (story: string, part: string): string[] => story.split('\n').filter((line) => line.includes(part)).map((line) => line.trim());

/** The tables of a scene, each a row of cells by label. */
function tablesOf(story: string, scene: string): Record<string, string[]>[] {
  const text = story.slice(story.indexOf(scene)).split(/\n\n\d\. /)[0] ?? '';
  const rows = text.split('\n').map((line) => /^ {3}(nom|email|telephone) +(.*)$/.exec(line)).filter((match) => match !== null);
  const tables: Record<string, string[]>[] = [];
  for (const [, label = '', cells = ''] of rows) {
    if (label === 'nom') tables.push({});
    Object.assign(tables.at(-1) ?? {}, { [label]: cells.split(/ {3,}/) });
  }
  return tables;
}

describe('npm run demo', () => {
  test('starts the replicas, tells four scenes and leaves a conflict; without a terminal it ends, and nothing runs', async () => {
    const story = await demo({ CONFLICT_POLICY: 'latest' });
    expect(story).not.toContain('\x1b');
    expect(story.match(/^\d\. .*$/gm)).toEqual(['1. Different fields', '2. The same field', '3. Update against delete', '4. Identical values', '5. One for you']);

    const [before, after] = tablesOf(story, '1. Different fields');
    expect(before?.['telephone']).toEqual(['null', '+1 555 0100']);
    expect(new Set(before?.['email']).size).toBe(2);
    expect(after).toEqual({ nom: ['Grace Hopper', 'Grace Hopper'], email: [before?.['email']?.[0], before?.['email']?.[0]], telephone: ['+1 555 0100', '+1 555 0100'] });
    expect(tablesOf(story, '2. The same field').map((each) => each['telephone'])).toEqual([
      ['+44 20 7946 0001', '+44 20 7946 0002'],
      ['+44 20 7946 0002', '+44 20 7946 0002'],
    ]);
    expect(tablesOf(story, '3. Update').map((each) => each['nom'])).toEqual([['-', 'Edsger Dijkstra'], ['Edsger Dijkstra', 'Edsger Dijkstra']]);
    expect(tablesOf(story, '4. Identical')).toHaveLength(1);

    expect(linesWith(story, 'conflict  ').map((line) => line.split(/ {2,}/)[1]?.split(';')[0])).toEqual([
      'UPDATE_UPDATE on email, telephone',
      'UPDATE_UPDATE on telephone',
      expect.stringMatching(/^UPDATE_DELETE/),
      'none: both say the same',
      'UPDATE_UPDATE on nom, email, telephone',
    ]);
    expect(linesWith(story, 'outcome  ').map((line) => /\((.*)\)/.exec(line)?.[1])).toEqual(['field-wise, on a', 'latest, on b', 'manual, on a', undefined]);
    expect(story).toMatch(/npm start has them again, with this conflict\.\n$/);
    for (const port of [workplace.basePort, workplace.basePort + 1]) expect(await answers(port)).toBe(false);
  });

  test('plays on replicas that run, again and again; what it says to run does what it says', async () => {
    const fleet = await workplace.start(env);
    for (const choice of [0, 1, 2]) {
      const story = await demo();
      const [here, there] = ['a', 'b'].map((name) => linesWith(story, `/api/v1/conflicts/`).find((line) => line.startsWith(`curl ${address(name as 'a' | 'b')}`))?.slice('curl '.length) ?? '');
      for (const url of [here, there]) expect((await get(url ?? ''))['status']).toBe('pending');
      const ways = linesWith(story, 'curl -X POST');
      expect(ways).toHaveLength(3);
      await curl(ways[choice] ?? '');
      for (const url of [here, there]) expect((await get(url ?? ''))['status']).toBe('resolved');
      const users = linesWith(story, '/api/v1/users/').map((line) => line.slice('curl '.length));
      expect(users).toHaveLength(2);
      const [one, other] = await Promise.all(users.map(get));
      expect(one?.['nom']).toBe(['Ada King', 'Ada King', 'Ada, Countess of Lovelace'][choice]);
      expect(other).toEqual(one);
    }
    expect(fleet.child.exitCode).toBe(null);
    for (const name of ['a', 'b'] as const) expect(await get(`${address(name)}/livez`)).toEqual({ status: 'ok' });
  });

  test('replicas that decide by themselves are no stage for it', async () => {
    await workplace.start({ ...env, CONFLICT_POLICY: 'latest' });
    const command = workplace.run(['demo'], env);
    expect(await command.ended).toBe(1);
    expect(command.stderr.trim()).toMatch(/^replica a resolved the conflict at once, .* Restart the replicas with SYNC_MODE=manual and CONFLICT_POLICY=manual, or stop them/);
  });

  test('one replica is too few, configured or running', async () => {
    const alone = workplace.run(['demo'], { REPLICAS: 'a' });
    expect(await alone.ended).toBe(1);
    expect(alone.stderr.trim()).toMatch(/^the demo needs two replicas, and REPLICAS names 1\./);

    const replica = workplace.run(['replica'], { REPLICA: 'a', PORT: String(workplace.basePort), DATABASE_URL: env['DATABASE_URL_A'] ?? '' });
    await until('the banner', () => replica.stdout.includes('Ctrl-C'));
    const lonely = workplace.run(['demo'], env);
    expect(await lonely.ended).toBe(1);
    expect(lonely.stderr.trim()).toBe(`replica a is running, and b is not (${address('b')}). Start it too, or stop a: the demo then starts both.`);
  });
});
