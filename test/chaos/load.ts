/** Writers of every kind, at every replica, over a few records that they all want. Each write puts a token of its own into the row. */
import { setMaxListeners } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';

import pg from 'pg';

import { createClashes, type Give } from './clashes.ts';
import type { Operation } from './facts.ts';
import type { History } from './history.ts';
import type { Random } from './random.ts';
import { NobodyThere, PATIENCE_MS, type Site } from './site.ts';
import { appended, appendedSql } from './values.ts';

export interface Load {
  readonly operations: number;
  /** Lets no writer begin anything, at one site or anywhere, and waits until all have ended what they had begun. */
  pause(site?: Site): Promise<void>;
  resume(site?: Site): void;
  stop(): Promise<void>;
}

type Outcome = Operation['outcome'];
type Written = Pick<Operation, 'key' | 'token' | 'kind' | 'email'>;
type Work = (site: Site, random: Random) => Promise<void>;

/** Records that are written at a time, so that replicas meet on them. */
const WANTED = 14;
const CREATE = 'mutation ($input: CreateUserInput!) { createUser(input: $input) { id } }';
const READ = 'query ($id: ID!) { user(id: $id) { nom version } }';
const UPDATE = 'mutation ($id: ID!, $input: UpdateUserInput!, $expected: VersionVector) { updateUser(id: $id, input: $input, expectedVersion: $expected) { id } }';
const DELETE = 'mutation ($id: ID!) { deleteUser(id: $id) { id } }';
/** Codes that say that nothing was done. */
const REFUSALS = new Set(['BAD_USER_INPUT', 'NOT_FOUND', 'UNIQUE_VIOLATION', 'VERSION_MISMATCH']);

/**
 * @param pauseMs - Between two operations of one writer, about.
 * @param deletions - How often something is deleted, of some forty operations.
 */
export function startLoad(sites: readonly Site[], history: History, random: Random, pauseMs: number, deletions: number): Load {
  const keys: string[] = [];
  const busy = new Map<Site, Set<Promise<void>>>(sites.map((site) => [site, new Set()]));
  let paused = false;
  let operations = 0;
  const closing = new AbortController();
  // Every writer waits for it.
  setMaxListeners(0, closing.signal);

  const learn = (key: string, email: string): void => {
    clashes.made(key, email);
    keys.push(key);
    if (keys.length > WANTED) keys.splice(0, keys.length - WANTED);
  };
  const record = (operation: Omit<Operation, 'id'>, began: number): void => {
    operations++;
    history.operation(operation, began);
  };

  /** Over GraphQL: null where nobody can tell whether it happened. */
  async function call<T>(site: Site, query: string, variables: object): Promise<{ outcome: Outcome; data: T | null }> {
    try {
      const { data, errors } = await site.graphql<T>(query, variables);
      if (!errors) return { outcome: 'ok', data: data ?? null };
      return { outcome: errors.every(({ extensions }) => REFUSALS.has(extensions?.code ?? '')) ? 'failed' : 'unknown', data: null };
    } catch (error) {
      return { outcome: error instanceof NobodyThere ? 'failed' : 'unknown', data: null };
    }
  }

  async function request(site: Site, method: string, path: string, body?: object): Promise<{ outcome: Outcome; body: Record<string, unknown> | null }> {
    const at = site.gateway();
    if (at === null) return { outcome: 'failed', body: null };
    try {
      const sent = body === undefined ? {} : { headers: { 'content-type': 'application/json' }, body: JSON.stringify(body) };
      const response = await fetch(`${at.url}/api/v1${path}`, { method, ...sent, signal: AbortSignal.timeout(PATIENCE_MS) });
      const text = await response.text();
      if (response.status >= 500) return { outcome: 'unknown', body: null };
      return { outcome: response.ok ? 'ok' : 'failed', body: text === '' ? null : (JSON.parse(text) as Record<string, unknown>) };
    } catch {
      return { outcome: 'unknown', body: null };
    }
  }

  /** One transaction: its writes by key, committed at last or rolled back. */
  async function transaction(site: Site, via: string, write: (client: pg.Client) => Promise<readonly Written[]>, end: { holdMs?: number; rollback?: boolean } = {}): Promise<void> {
    const began = performance.now();
    let written: readonly Written[] = [];
    let outcome = 'failed' as Outcome;
    let committing = false;
    try {
      await site.session(async (client) => {
        await client.query('BEGIN');
        written = await write(client);
        if (end.holdMs) await sleep(end.holdMs);
        if (end.rollback) {
          await client.query('ROLLBACK');
          return;
        }
        committing = true;
        await client.query('COMMIT');
        outcome = 'ok';
      });
    } catch {
      if (committing) outcome = 'unknown';
    }
    for (const each of written) {
      record({ replica: site.name, via, ...each, outcome }, began);
      if (each.kind === 'create' && outcome === 'ok' && each.key !== null) learn(each.key, each.email ?? '');
    }
  }

  async function insert(client: pg.Client, email?: string): Promise<Written[]> {
    const token = history.token();
    const given = email ?? addressOf(token);
    const { rows } = await client.query<{ id: number }>('INSERT INTO users (nom, email) VALUES ($1, $2) RETURNING id', [token, given]);
    return [{ kind: 'create', key: String(rows[0]?.id), token, email: given }];
  }

  async function createOver(site: Site, email?: string): Promise<void> {
    const token = history.token();
    const given = email ?? addressOf(token);
    const began = performance.now();
    const { outcome, data } = await call<{ createUser: { id: string } }>(site, CREATE, { input: { nom: token, email: given } });
    if (data) learn(data.createUser.id, given);
    record({ replica: site.name, via: 'graphql', kind: 'create', key: data?.createUser.id ?? null, token, email: given, outcome }, began);
  }

  const give: Give = async (site, chance, email, key) => {
    const bySql = chance.chance(0.5);
    if (key === null) return bySql ? transaction(site, 'sql', (client) => insert(client, email)) : createOver(site, email);
    if (!bySql) {
      const began = performance.now();
      const { outcome } = await call(site, UPDATE, { id: key, input: { email } });
      record({ replica: site.name, via: 'graphql', kind: 'update', key, token: null, email, outcome }, began);
      return;
    }
    await transaction(site, 'sql', async (client) => {
      const { rowCount } = await client.query('UPDATE users SET email = $2 WHERE id = $1', [key, email]);
      return rowCount === 0 ? [] : [{ kind: 'update', key, token: null, email }];
    });
  };
  const occupy = (site: Site, work: Promise<void>): Promise<void> => {
    busy.get(site)?.add(work);
    return work.finally(() => busy.get(site)?.delete(work));
  };
  const clashes = createClashes(sites, history, give, occupy);

  async function append(client: pg.Client, chosen: readonly string[]): Promise<Written[]> {
    const base = history.token();
    const { rows } = await client.query<{ id: number }>(`UPDATE users SET nom = ${appendedSql(`'${base}.' || id`)} WHERE id = ANY ($1::integer[]) RETURNING id`, [chosen]);
    return rows.map(({ id }) => ({ kind: 'update', key: String(id), token: `${base}.${id}` }));
  }

  const works: readonly (readonly [weight: number, work: Work])[] = [
    [3, (site) => createOver(site)],
    [1, async (site) => {
      const token = history.token();
      const began = performance.now();
      const { outcome, body } = await request(site, 'POST', '/users', { nom: token, email: addressOf(token) });
      const key = outcome === 'ok' ? String(body?.['id']) : null;
      if (key !== null) learn(key, addressOf(token));
      record({ replica: site.name, via: 'rest', kind: 'create', key, token, email: addressOf(token), outcome }, began);
    }],
    [8, async (site, chance) => {
      const key = chance.pick(keys);
      const read = await call<{ user: { nom: string; version: object } | null }>(site, READ, { id: key });
      if (!read.data?.user) return;
      const { nom, version } = read.data.user;
      const token = history.token();
      const began = performance.now();
      const { outcome } = await call(site, UPDATE, { id: key, input: { nom: appended(nom, token) }, expected: version });
      record({ replica: site.name, via: 'graphql', kind: 'update', key, token, outcome, expected: nom }, began);
    }],
    [4, async (site, chance) => {
      const key = chance.pick(keys);
      const token = history.token();
      const began = performance.now();
      const { outcome } = await call(site, UPDATE, { id: key, input: { telephone: token } });
      record({ replica: site.name, via: 'graphql', kind: 'update', key, token, outcome }, began);
    }],
    [4, async (site, chance) => {
      const key = chance.pick(keys);
      const { body } = await request(site, 'GET', `/users/${key}`);
      if (typeof body?.['nom'] !== 'string') return;
      const token = history.token();
      const began = performance.now();
      const { outcome } = await request(site, 'PUT', `/users/${key}`, chance.chance(0.5) ? { telephone: token } : { nom: appended(body['nom'], token) });
      record({ replica: site.name, via: 'rest', kind: 'update', key, token, outcome }, began);
    }],
    [deletions, async (site, chance) => {
      const key = chance.pick(keys);
      const began = performance.now();
      const outcome = chance.chance(0.5) ? (await call(site, DELETE, { id: key })).outcome : (await request(site, 'DELETE', `/users/${key}`)).outcome;
      record({ replica: site.name, via: 'api', kind: 'delete', key, token: null, outcome }, began);
    }],
    [1, (site) => transaction(site, 'sql', (client) => insert(client))],
    [6, (site, chance) => transaction(site, 'sql', (client) => append(client, [chance.pick(keys)]))],
    [2, (site, chance) => transaction(site, 'sql, many rows', (client) => append(client, keys.filter(() => chance.chance(0.4))))],
    [1, (site, chance) => transaction(site, 'sql, rolled back', (client) => append(client, [chance.pick(keys), chance.pick(keys)]), { rollback: true })],
    // Written early, committed late.
    [1, (site, chance) => transaction(site, 'sql, late', (client) => append(client, [chance.pick(keys)]), { holdMs: chance.between(500, 4_000) })],
    [1, (site) => transaction(site, 'sql, late', (client) => insert(client), { holdMs: 2_000 })],
    [3, (site, chance) => clashes.clash(site, chance, keys)],
    [deletions, (site, chance) =>
      transaction(site, 'sql', async (client) => {
        const { rows } = await client.query<{ id: number }>('DELETE FROM users WHERE id = $1 RETURNING id', [chance.pick(keys)]);
        return rows.map(({ id }) => ({ kind: 'delete', key: String(id), token: null }));
      })],
  ];
  const drawn = works.flatMap(([weight, work]) => Array.from({ length: weight }, () => work));

  async function writer(site: Site, chance: Random): Promise<void> {
    while (!closing.signal.aborted) {
      if (!paused && !site.closed) {
        const work = keys.length < 4 ? (works[0] as (typeof works)[number])[1] : chance.pick(drawn);
        await occupy(site, work(site, chance));
      }
      await sleep(chance.between(0.2, 1.8) * pauseMs, undefined, { signal: closing.signal }).catch(() => {});
    }
  }
  const writers = sites.flatMap((site) => [1, 2, 3].map((n) => writer(site, random.fork(`${site.name}${n}`))));
  const idle = (wanted: readonly Site[]): Promise<unknown> => Promise.all(wanted.flatMap((site) => [...(busy.get(site) ?? [])]));

  return {
    get operations() {
      return operations;
    },
    async pause(site) {
      if (site === undefined) paused = true;
      else site.closed = true;
      await idle(site === undefined ? sites : [site]);
    },
    resume(site) {
      if (site === undefined) paused = false;
      else site.closed = false;
    },
    async stop() {
      closing.abort();
      await Promise.all(writers);
    },
  };
}

/** The address of a record that nobody else claims. */
function addressOf(token: string): string {
  return `${token}@x.org`;
}
