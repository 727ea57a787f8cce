/** Services in memory, for tests of the edges: they validate as the real ones do, and keep everything in maps. */
import type { PrismaClient } from '../../src/generated/prisma/client.ts';
import type { Comparison } from '../../src/services/comparison.ts';
import type { Conflict, ResolutionResult } from '../../src/services/conflicts.ts';
import { ServiceError } from '../../src/services/errors.ts';
import { createUserInput, localId, pageSize, parse, updateUserInput, userId } from '../../src/services/input.ts';
import type { Services } from '../../src/services/services.ts';
import type { SyncResult } from '../../src/services/sync.ts';
import type { UserRow } from '../../src/services/users.ts';

export interface Fake {
  readonly services: Services;
  /** Nothing is read through it. */
  readonly prisma: PrismaClient;
  readonly users: Map<number, UserRow>;
  readonly conflicts: Map<string, Conflict>;
  /** Calls of `users.versioned` and `records.conflicts`, each with its keys. */
  readonly batches: string[][];
  /** Subscriptions that are open now. */
  subscribers(): number;
  /** How often the log was asked for a next conflict. */
  pulls(): number;
  detect(conflict: Conflict): void;
  /** Makes any service call of this kind fail. */
  fail(what: 'peers' | 'ready' | 'list' | 'sync' | 'user', error: Error): void;
}

export const NOW = '2026-01-02T03:04:05.678901Z';

/** @returns a pending conflict between a (which wrote a phone number) and b (which deleted, or wrote another). */
export function conflictOf(id: string, overrides: Partial<Conflict> = {}): Conflict {
  const side = (replica: string, telephone: string) => ({
    recordId: '1',
    replica,
    values: { id: 1, nom: 'Ada', email: 'ada@x.org', telephone, createdAt: NOW },
    deleted: false,
    changedFields: ['telephone'],
    updatedAt: NOW,
    version: { [replica]: '1764000000000000' },
  });
  return {
    id,
    model: 'User',
    recordId: '1',
    kind: 'UPDATE_UPDATE',
    status: 'PENDING',
    fields: ['telephone'],
    versions: [side('a', '1'), side('b', '2')],
    detectedAt: NOW,
    resolvedAt: null,
    resolution: null,
    resolvedBy: null,
    resolvedValues: null,
    ...overrides,
  };
}

export function createFake(): Fake {
  const users = new Map<number, UserRow>();
  const conflicts = new Map<string, Conflict>();
  const batches: string[][] = [];
  const failures = new Map<string, Error>();
  const listeners = new Set<() => void>();
  let nextId = 1;
  let pulled = 0;

  const check = (what: string): void => {
    const error = failures.get(what);
    if (error) throw error;
  };
  const found = (id: unknown): UserRow => {
    const key = parse(userId, id, 'id');
    const row = users.get(key);
    if (!row) throw new ServiceError('NOT_FOUND', `there is no user ${key}`);
    return row;
  };
  const free = (email: string | undefined, id?: number): void => {
    for (const row of users.values()) {
      if (row.email === email && row.id !== id) throw new ServiceError('UNIQUE_VIOLATION', `the email ${email} is taken`);
    }
  };

  /** Follows the log from a place on, and waits at its end: what a real one does. */
  async function* follow(from: number, signal?: AbortSignal): AsyncGenerator<Conflict> {
    let place = from;
    const wake = { call: () => {}, ended: false };
    const listener = (): void => {
      wake.ended = signal?.aborted === true;
      wake.call();
    };
    listeners.add(listener);
    signal?.addEventListener('abort', listener);
    listener();
    try {
      while (!wake.ended) {
        const next = [...conflicts.values()][place];
        if (next) {
          place += 1;
          pulled += 1;
          yield next;
        } else {
          await new Promise<void>((resolve) => {
            wake.call = resolve;
          });
        }
      }
    } finally {
      listeners.delete(listener);
    }
  }

  const services: Services = {
    asides: {
      reseeding: async () => false,
      count: async () => 1,
      list: async (first) => [{ id: 'VXNlcgo3', model: 'User', recordId: '7', since: NOW, values: { nom: 'Y' } }].slice(0, first),
      restore: async (_model, recordId) => check(`restore ${recordId}`),
      discard: async (_model, recordId) => check(`discard ${recordId}`),
    },
    users: {
      async list({ first, after }) {
        check('list');
        check('user');
        const from = after === undefined ? 0 : parse(userId, after, 'after');
        return [...users.values()].filter(({ id }) => id > from).slice(0, page(first));
      },
      async get(id) {
        check('user');
        return users.get(parse(userId, id, 'id')) ?? null;
      },
      async create(input) {
        check('user');
        const { nom, email, telephone } = parse(createUserInput, input, 'user');
        free(email);
        const row = { id: nextId++, nom, email, telephone: telephone ?? null, createdAt: new Date(NOW) };
        users.set(row.id, row);
        return row;
      },
      async update(id, input, expectedVersion) {
        const row = found(id);
        const { nom = row.nom, email = row.email, telephone = row.telephone } = parse(updateUserInput, input, 'user');
        free(email, row.id);
        if (expectedVersion !== undefined && JSON.stringify(expectedVersion) !== JSON.stringify({ a: String(row.id) })) {
          throw new ServiceError('VERSION_MISMATCH', `user ${row.id} has moved on`);
        }
        const updated = { ...row, nom, email, telephone };
        users.set(row.id, updated);
        return updated;
      },
      async delete(id) {
        const row = found(id);
        users.delete(row.id);
        return { ...row, known: { version: { a: String(row.id) }, updatedAt: NOW } };
      },
      async versioned(rows) {
        batches.push(rows.map(({ id }) => String(id)));
        return rows.map((row) => ({ ...row, ...users.get(row.id), known: { version: { a: String(row.id) }, updatedAt: NOW } }));
      },
    },
    records: {
      look: async (_model, keys) => keys.map(() => ({ values: null, known: null })),
      async conflicts(_model, keys) {
        batches.push([...keys]);
        return keys.map((key) => [...conflicts.values()].find((one) => one.recordId === key && one.status === 'PENDING') ?? null);
      },
    },
    conflicts: {
      async list({ status, first }) {
        return [...conflicts.values()].toReversed().filter((one) => !status || one.status === status).slice(0, page(first));
      },
      get: async (id) => conflicts.get(parse(localId, id, 'id')) ?? null,
      async resolveAll(strategy, ids): Promise<ResolutionResult> {
        const named = ids === undefined ? [...conflicts.keys()] : parse(localId.array(), ids, 'ids');
        for (const id of named) {
          if (!conflicts.has(id)) throw new ServiceError('NOT_FOUND', `there is no conflict ${id}`);
        }
        const done = named.map((id) => conflictOf(id, { status: 'RESOLVED', resolution: strategy === 'LATEST' ? 'latest' : 'field-wise' }));
        for (const one of done) conflicts.set(one.id, one);
        return {
          resolved: done.length,
          remaining: 0,
          conflicts: async (first) => done.slice(0, first),
          undelivered: [{ peer: 'b', reason: 'it does not answer' }],
          durationMs: 1.5,
        };
      },
      async resolveOne(id, { chosenVersion, values }) {
        const key = parse(localId, id, 'id');
        const conflict = conflicts.get(key);
        if (!conflict) throw new ServiceError('NOT_FOUND', `there is no conflict ${key}`);
        if (conflict.status === 'RESOLVED') throw new ServiceError('ALREADY_RESOLVED', `conflict ${key} is resolved`);
        const side = conflict.versions.find(({ replica }) => replica === chosenVersion);
        if ((chosenVersion === undefined) === (values === undefined) || (chosenVersion !== undefined && !side)) {
          throw new ServiceError('BAD_USER_INPUT', 'name a side or values');
        }
        const resolvedValues = side ? side.values : { ...conflict.versions[0]?.values, ...(values as object) };
        const resolved = { ...conflict, status: 'RESOLVED' as const, resolution: 'manual' as const, resolvedAt: NOW, resolvedBy: 'a', resolvedValues };
        conflicts.set(key, resolved);
        return resolved;
      },
      async detected(after, signal) {
        const place = after === undefined ? conflicts.size : [...conflicts.keys()].indexOf(parse(localId, after, 'after')) + 1;
        if (after !== undefined && place === 0) throw new ServiceError('BAD_USER_INPUT', `after: there is no conflict ${String(after)}`);
        return follow(place, signal);
      },
      resolvedFromNow: async (signal) => follow(conflicts.size, signal),
    },
    sync: {
      async syncTo(peer): Promise<SyncResult> {
        check('sync');
        if (peer !== 'b') throw new ServiceError('UNKNOWN_PEER', `there is no peer "${peer}"`);
        const list = [...conflicts.values()];
        return {
          peer,
          sent: 3,
          applied: 2,
          skipped: 1,
          conflictsDetected: list.length,
          conflicts: async (first) => list.slice(0, first),
          durationMs: 2.5,
        };
      },
    },
    peering: {
      async add(name, url) {
        if (name === 'b') throw new ServiceError('PEER_EXISTS', `"b" is a peer already`);
        return { name, url, state: 'UNKNOWN', reason: null, lastSyncAt: null, pendingChanges: 0, lagSeconds: 0, consistency: null, clockSkewSeconds: null };
      },
      async remove(name) {
        if (name !== 'b') throw new ServiceError('UNKNOWN_PEER', `there is no peer "${name}"`);
        return { name, url: 'http://127.0.0.1:8002', state: 'CONNECTED', reason: null, lastSyncAt: NOW, pendingChanges: 0, lagSeconds: 0, consistency: 1, clockSkewSeconds: 0 };
      },
    },
    comparison: {
      compare: async (peer) => compared(peer),
      repair: async (peer, { dryRun }) => ({ before: compared(peer), after: dryRun ? null : compared(peer), mended: 1, durationMs: 2 }),
    },
    roster: {
      members: async () => [{ name: 'a', struck: false }, { name: 'b', struck: false }],
      strike: async () => check('strike'),
    },
    status: {
      name: 'a',
      leading: () => true,
      records: async () => users.size,
      pendingConflicts: async () => conflicts.size,
      resolvedConflicts: async () => 0,
      conflictRetentionSeconds: 7_776_000,
      async peers() {
        check('peers');
        return [
          { name: 'b', url: 'http://127.0.0.1:8002', state: 'CONNECTED', reason: null, lastSyncAt: NOW, pendingChanges: 4, lagSeconds: 1.5, consistency: 0.5, clockSkewSeconds: -0.25 },
        ];
      },
      waiting: async (first) => [{ model: 'User', recordId: '9', reason: 'the email is taken', values: { nom: 'X' } }].slice(0, first),
      recordsWaiting: async () => new Map(),
      fenceSeconds: async () => 0,
      tombstones: async () => 0,
      async ready() {
        check('ready');
        return true;
      },
    },
  };

  return {
    services,
    prisma: {} as PrismaClient,
    users,
    conflicts,
    batches,
    subscribers: () => listeners.size,
    pulls: () => pulled,
    detect(conflict) {
      conflicts.set(conflict.id, conflict);
      for (const wake of listeners) wake();
    },
    fail: (what, error) => failures.set(what, error),
  };
}

const compared = (peer: string): Comparison => ({
  peer,
  records: 3,
  same: 1,
  onTheirWay: 1,
  differing: 1,
  corrupted: 0,
  ratio: 1 / 3,
  samples: [{ model: 'User', recordId: '1', difference: 'DIFFERING', here: [{ values: { nom: 'Ada' }, version: { a: '1' } }], there: [] }],
  durationMs: 1,
});

function page(first: unknown): number {
  return parse(pageSize, first ?? 100, 'first');
}
