/** Conflicts: the log, how its entries are settled, and who hears of them. */
import { stampToInstant } from '../replication/clock.ts';
import { changedFields, sides, type ConflictKind, type Side } from '../replication/conflict.ts';
import type { ReplicatedModel } from '../replication/model.ts';
import { foldByName, lastWrite, type Fields, type Vector } from '../replication/version.ts';
import { decide, NoSuchSideError, NotShownError, type Decision } from '../storage/decide.ts';
import {
  detectedAfter,
  lastConflict,
  listConflicts,
  pendingIds,
  readConflicts,
  resolvedAfter,
  type ConflictEntry,
} from '../storage/conflicts.ts';
import { countConflicts, lastIdGiven } from '../storage/conflict-log.ts';
import type { Replica } from '../storage/replica.ts';
import { createCarrier } from './carrier.ts';
import { ServiceError } from './errors.ts';
import { localId, pageSize, parse } from './input.ts';
import type { Keeper } from './keeper.ts';
import type { Notices } from './notices.ts';
import type { VersionVector } from './records.ts';
import { createFollow } from './follow.ts';
import { toJsonValues } from './values.ts';
import { z } from 'zod';

export type { ConflictKind };
export type ConflictStatus = 'PENDING' | 'RESOLVED';
export type Strategy = 'LATEST' | 'FIELD_WISE';

/** One side of a conflict. Instants are ISO 8601 in UTC with microseconds. */
export interface ConflictVersion {
  readonly recordId: string;
  readonly replica: string;
  /** The record's values by field name, its key among them, as JSON holds them; null where this side is a deletion. */
  readonly values: Readonly<Record<string, unknown>> | null;
  readonly deleted: boolean;
  readonly changedFields: readonly string[];
  readonly updatedAt: string;
  readonly version: VersionVector;
}

export interface Conflict {
  /** This replica's own number, in decimal digits. */
  readonly id: string;
  readonly model: string;
  readonly recordId: string;
  readonly kind: ConflictKind;
  readonly status: ConflictStatus;
  readonly fields: readonly string[];
  readonly versions: readonly ConflictVersion[];
  readonly detectedAt: string;
  readonly resolvedAt: string | null;
  readonly resolution: 'latest' | 'field-wise' | 'manual' | null;
  readonly resolvedBy: string | null;
  readonly resolvedValues: Readonly<Record<string, unknown>> | null;
}

/** A peer that did not get the outcome of a resolution yet; the next sync in either direction carries it. */
export interface Undelivered {
  readonly peer: string;
  readonly reason: string;
}

export interface ResolutionResult {
  readonly resolved: number;
  readonly remaining: number;
  /** The conflicts resolved, in order of id, at most `first` of them (1 to 1000). */
  conflicts(first: number): Promise<Conflict[]>;
  readonly undelivered: readonly Undelivered[];
  readonly durationMs: number;
}

/** Which conflicts to list; each but the last two leaves out those that do not fit. */
export interface ConflictQuery {
  readonly status?: ConflictStatus | null | undefined;
  readonly kind?: ConflictKind | null | undefined;
  readonly model?: unknown;
  readonly recordId?: unknown;
  readonly first?: unknown;
  readonly after?: unknown;
}

export interface Conflicts {
  /** Newest first, those older than the conflict `after`; `first` is 1 to 1000, 100 where it is not given. */
  list(page: ConflictQuery): Promise<Conflict[]>;
  get(id: unknown): Promise<Conflict | null>;
  /**
   * Resolves those named, or all that are pending, and carries the outcome to the peers that can be reached.
   * @throws ServiceError BAD_USER_INPUT, NOT_FOUND (an unknown id; nothing is done).
   */
  resolveAll(strategy: Strategy, ids?: unknown): Promise<ResolutionResult>;
  /**
   * By hand: either a side, by its replica's name, or values laid over what this replica shows.
   * @throws ServiceError BAD_USER_INPUT, NOT_FOUND, ALREADY_RESOLVED, UNIQUE_VIOLATION.
   */
  resolveOne(id: unknown, choice: { chosenVersion?: unknown; values?: unknown }): Promise<Conflict>;
  /**
   * Each conflict as it is detected; with `after`, first all detected since that conflict (which may be deleted from the log by now). Ends when the signal aborts.
   * @throws ServiceError BAD_USER_INPUT (an id that was never given out), before the first value.
   */
  detected(after: unknown, signal?: AbortSignal): Promise<AsyncIterableIterator<Conflict>>;
  resolvedFromNow(signal?: AbortSignal): Promise<AsyncIterableIterator<Conflict>>;
}

/** Checks values that a person gives for fields of a record: what goes in is what came from outside, what comes out is PostgreSQL's text. */
export type ValuesParser = (values: unknown) => Fields;

export interface ConflictsOptions {
  readonly replica: Replica;
  readonly keeper: Pick<Keeper, 'settle'>;
  readonly notices: Notices;
  /** By model. */
  readonly parsers: Readonly<Record<string, ValuesParser>>;
  /** Carries resolutions to the peers. */
  readonly deliver: () => Promise<Undelivered[]>;
}

/** Conflicts that one transaction resolves: it holds the state lock, and syncs and folds take their turn between two. */
const RESOLVED_AT_ONCE = 1_000;
/** Of those resolved, as many as a page may show. */
const SHOWN = 1_000;
const MAX_IDS = 10_000;

const idList = z.array(localId).max(MAX_IDS);
const sideName = z.string().max(64);
/** A model's name, or a record's key. */
const wanted = z.string().max(1_000).refine((value) => !value.includes('\0') && value.isWellFormed(), 'is no text that the database can hold').nullish();

export function createConflicts({ replica, keeper, notices, parsers, deliver }: ConflictsOptions): Conflicts {
  const { db, tables } = replica;
  const show = (entry: ConflictEntry): Conflict => toConflict(tables, entry);
  const followDetected = createFollow(notices, async (id, limit) => (await detectedAfter(db, id, limit)).map((entry) => [entry.id, show(entry)] as const));
  const followResolved = createFollow(notices, async (seq, limit) => (await resolvedAfter(db, seq, limit)).map((entry) => [entry.resolvedSeq as string, show(entry)] as const));

  async function one(id: string): Promise<Conflict | null> {
    const [entry] = await readConflicts(db, [id]);
    return entry ? show(entry) : null;
  }

  async function resolvePart(ids: readonly string[], decision: Decision, strict: boolean): Promise<readonly string[]> {
    const { resolved, conflicts } = await decide(replica, ids, decision, strict);
    notices.conflicts(conflicts);
    return resolved;
  }

  /** Resolves portion by portion, a transaction for each; of any number of them the first are remembered. The peers get what is resolved while more is. */
  async function resolveAllOf(portions: AsyncIterable<readonly string[]> | Iterable<readonly string[]>, decision: Decision): Promise<Resolved> {
    const carry = createCarrier(deliver);
    const first: string[] = [];
    let count = 0;
    for await (const ids of portions) {
      if (count > 0) carry();
      const resolved = await resolvePart(ids, decision, false);
      count += resolved.length;
      first.push(...resolved.slice(0, SHOWN - first.length));
    }
    return { count, first };
  }

  /** All that are pending now. */
  async function* pendingPortions(): AsyncGenerator<readonly string[]> {
    const { id: upTo } = await lastConflict(db);
    for (let after: string | undefined = '0'; after !== undefined; ) {
      const ids: readonly string[] = await pendingIds(db, after, upTo, RESOLVED_AT_ONCE);
      if (ids.length > 0) yield ids;
      after = ids.length < RESOLVED_AT_ONCE ? undefined : ids.at(-1);
    }
  }

  async function idsNamed(value: unknown): Promise<string[]> {
    const ids = parse(idList, value, 'ids');
    const known = new Set((await readConflicts(db, ids)).map(({ id }) => id));
    const unknown = ids.filter((id) => !known.has(id));
    if (unknown.length > 0) throw new ServiceError('NOT_FOUND', `there is no conflict ${unknown.slice(0, 5).join(', ')}: nothing was resolved.`);
    return ids;
  }

  return {
    async list({ status, kind, model, recordId, first, after }) {
      const page = {
        status: status ?? null,
        kind: kind ?? null,
        model: parse(wanted, model, 'model') ?? null,
        key: parse(wanted, recordId, 'recordId') ?? null,
        first: first === undefined || first === null ? 100 : parse(pageSize, first, 'first'),
        before: after === undefined || after === null ? null : parse(localId, after, 'after'),
      };
      await keeper.settle();
      return (await listConflicts(db, page)).map(show);
    },

    async get(id) {
      const known = parse(localId, id, 'id');
      await keeper.settle();
      return one(known);
    },

    async resolveAll(strategy, ids) {
      const began = performance.now();
      await keeper.settle();
      const decision: Decision = { strategy: strategy === 'LATEST' ? 'latest' : 'field-wise' };
      const resolved = await resolveAllOf(ids === undefined || ids === null ? pendingPortions() : portionsOf(await idsNamed(ids)), decision);
      const undelivered = resolved.count > 0 ? await deliver() : [];
      return {
        resolved: resolved.count,
        remaining: (await countConflicts(db)).pending,
        undelivered,
        durationMs: performance.now() - began,
        conflicts: async (first) => (await readConflicts(db, resolved.first.slice(0, parse(pageSize, first, 'first')))).map(show),
      };
    },

    async resolveOne(id, { chosenVersion, values }) {
      const known = parse(localId, id, 'id');
      const chosen = chosenVersion !== undefined && chosenVersion !== null;
      if (chosen === (values !== undefined && values !== null)) {
        throw new ServiceError('BAD_USER_INPUT', 'name either the version to keep or the values, one of the two.');
      }
      await keeper.settle();
      const conflict = await one(known);
      if (conflict === null) throw new ServiceError('NOT_FOUND', `there is no conflict ${known}.`);
      if (conflict.status === 'RESOLVED') throw alreadyResolved(conflict);
      const parser = parsers[conflict.model];
      if (!chosen && parser === undefined) throw new ServiceError('BAD_USER_INPUT', `conflicts of ${conflict.model} are settled by choosing a version.`);
      const decision: Decision = chosen ? { side: sideLabel(chosenVersion, conflict) } : { values: (parser as ValuesParser)(values) };
      try {
        const [resolved] = await resolvePart([known], decision, true);
        // Somebody else was faster.
        if (resolved === undefined) throw alreadyResolved((await one(known)) as Conflict);
      } catch (error) {
        if (error instanceof NoSuchSideError) throw new ServiceError('BAD_USER_INPUT', error.message);
        if (error instanceof NotShownError) throw new ServiceError('UNIQUE_VIOLATION', `the choice was not taken: ${error.message} Choose or enter other values.`);
        throw error;
      }
      await deliver();
      return (await one(known)) as Conflict;
    },

    async detected(after, signal) {
      const last = await lastConflict(db);
      let from = last.id;
      if (after !== undefined && after !== null) {
        from = parse(localId, after, 'after');
        // One that is deleted since was given out all the same, and what came after it follows.
        if (BigInt(from) > BigInt(await lastIdGiven(db))) throw new ServiceError('BAD_USER_INPUT', `there is no conflict ${from} to go on after.`, [{ field: 'after', message: 'is no conflict of this replica' }]);
      }
      return followDetected(from, signal);
    },

    async resolvedFromNow(signal) {
      const { resolvedSeq } = await lastConflict(db);
      return followResolved(resolvedSeq, signal);
    },
  };
}

interface Resolved {
  readonly count: number;
  /** The ids of the first of them. */
  readonly first: readonly string[];
}

function* portionsOf(ids: readonly string[]): Generator<readonly string[]> {
  for (let i = 0; i < ids.length; i += RESOLVED_AT_ONCE) yield ids.slice(i, i + RESOLVED_AT_ONCE);
}

/** An entry of the log as the API shows it. */
export function toConflict(models: ReadonlyMap<string, ReplicatedModel>, entry: ConflictEntry): Conflict {
  const { id, model, key, kind, status, fields, resolution, resolvedBy, resolvedFields } = entry;
  const described = models.get(model);
  const valuesOf = (of: string, values: Fields | null): Record<string, unknown> | null =>
    values === null ? null : described ? toJsonValues(described, of, values) : { ...values };
  // Over a unique value the sides are two records: the entry's own, and the one that holds it.
  const { holder } = entry;
  const all = holder === null ? sides(entry.sides) : sides([...entry.sides, holder.version]);
  const recordOf = ({ version }: Side): string => (version === holder?.version ? holder.key : key);
  return {
    id,
    model,
    recordId: key,
    kind,
    status,
    fields,
    versions: all.map((side) => ({
      recordId: recordOf(side),
      replica: side.label,
      values: valuesOf(recordOf(side), side.version.fields),
      deleted: side.version.fields === null,
      changedFields: holder === null ? changedFields(side.version, entry.sides) : fields,
      updatedAt: stampToInstant(lastWrite(side.version.vector)[1]),
      version: toVersionVector(side.version.vector),
    })),
    detectedAt: stampToInstant(entry.detectedAt),
    resolvedAt: entry.resolvedAt === null ? null : stampToInstant(entry.resolvedAt),
    resolution,
    resolvedBy,
    resolvedValues: status === 'RESOLVED' ? valuesOf(key, resolvedFields) : null,
  };
}

/** A vector as the API shows it: by name, in decimal digits. */
export function toVersionVector(vector: Vector): VersionVector {
  return Object.fromEntries(Object.entries(foldByName(vector)).map(([name, stamp]) => [name, String(stamp)]));
}

/** `node_a` is taken for `a`, unless a side is named so. */
function sideLabel(value: unknown, { versions }: Conflict): string {
  const label = parse(sideName, value, 'chosenVersion');
  const named = versions.some(({ replica }) => replica === label);
  return named ? label : label.replace(/^node_/, '');
}

function alreadyResolved({ id, resolution, resolvedBy }: Conflict): ServiceError {
  return new ServiceError('ALREADY_RESOLVED', `conflict ${id} is resolved already (${resolution}, on "${resolvedBy}").`);
}
