/**
 * The conflict log, derived from the states and written in the transaction that changes them: at most one pending entry a record, closed when one value
 * remains, however that came about.
 */
import { differingFields, isConflict, kindOf, outcome, type ConflictKind } from '../replication/conflict.ts';
import { sameState, standing, type State } from '../replication/merge.ts';
import type { Fields, Strategy, Version } from '../replication/version.ts';
import { numbers, texts } from './arrays.ts';
import type { Change } from './changes.ts';
import { closeEntries, openEntries, updateEntries, type ClosedEntry, type OpenedEntry, type UpdatedEntry } from './conflict-entries.ts';
import { findConflicts, type ConflictPage } from './conflict-log.ts';
import type { Database, Row, Transaction } from './database.ts';
import { decodeState, decodeVersion, encodeState, encodeVersion, type StoredVersion } from './records.ts';
import type { Replica } from './replica.ts';
import { BATCH_BYTES, type RecordName } from './sizes.ts';

export interface ConflictRef {
  readonly id: string;
  readonly model: string;
  readonly key: string;
  readonly kind: ConflictKind;
}

/** What a transaction did to the log. */
export interface ConflictChanges {
  readonly detected: readonly ConflictRef[];
  readonly resolved: readonly { readonly id: string; readonly strategy: Strategy; readonly seconds: number }[];
}

export const NO_CHANGES: ConflictChanges = { detected: [], resolved: [] };

/** What two transactions did, one after the other. */
export function bothChanges(a: ConflictChanges, b: ConflictChanges): ConflictChanges {
  return { detected: [...a.detected, ...b.detected], resolved: [...a.resolved, ...b.resolved] };
}

/** An entry of the log. Times are microseconds since 1970. */
export interface ConflictEntry extends ConflictRef {
  readonly status: 'PENDING' | 'RESOLVED';
  readonly fields: readonly string[];
  readonly sides: State;
  readonly detectedAt: number;
  readonly resolvedAt: number | null;
  readonly resolution: Strategy | null;
  readonly resolvedBy: string | null;
  readonly resolvedFields: Fields | null;
  readonly resolvedSeq: string | null;
  /** For a unique value: the constraint (empty otherwise), and who holds the value. `sides` has the side of the record that does not. */
  readonly name: string;
  readonly holder: { readonly key: string; readonly version: Version } | null;
}

const COLUMNS = `id, model, key, kind, status, to_json(fields), sides, detected_at, resolved_at, resolution, resolved_by, resolved_values, resolved_seq, name, holder`;

/**
 * Brings the log up to date with changed states.
 *
 * @param encoded - States that are stored whole, as they are stored.
 */
export async function logConflicts(tx: Transaction, replica: Replica, clock: number, changes: readonly Change[], encoded: ReadonlyMap<State, string>): Promise<ConflictChanges> {
  const candidates = changes.filter(({ before, state }) => before.state.length > 1 || state.length > 1);
  if (candidates.length === 0) return NO_CHANGES;
  // One that is pending is over the state that is stored.
  const pending = await pendingByRecord(tx, candidates.flatMap(({ before: { table, key, state } }): RecordName[] => (state.length > 1 ? [[table.name, key]] : [])));
  const opened: OpenedEntry[] = [];
  const updated: UpdatedEntry[] = [];
  const closed: ClosedEntry[] = [];
  for (const { before, state, view } of candidates) {
    const { table, key } = before;
    const id = pending.get(recordId(table.name, key));
    const conflict = isConflict(state);
    const versions = standing(state);
    // A pending entry has the sides of the state that is stored.
    const known = standing(before.state);
    const same = sameState(known, versions);
    if (conflict && id !== undefined && replica.policy === 'manual' && same) continue;
    if (conflict) {
      const kind = kindOf(state);
      const fields = differingFields(state);
      const stored = encoded.get(versions);
      // An automatic policy has settled it in the view: logged for what it passed over.
      const ending = replica.policy === 'manual' ? null : { strategy: replica.policy, by: replica.name, values: valuesOf(view) };
      if (id === undefined) {
        if (ending === null || !same) opened.push({ model: table.name, key, kind, fields, sides: stored === undefined ? encodeState(versions, null) : null, ...(ending && { ending }) });
      } else {
        const sides = stored ?? encodeState(versions, null);
        if (ending === null) updated.push({ id, kind, fields, sides });
        else closed.push({ id, kind, fields, sides, ...ending });
      }
    } else if (id !== undefined) {
      // A side may have been written to since, and the write is to be found in the log once it is decided over.
      const last = isConflict(before.settled) ? before.settled : known;
      closed.push({ id, kind: kindOf(last), fields: differingFields(last), sides: last === before.state ? null : encodeState(last, null), values: valuesOf(view), ...outcome(last, state) });
    }
  }
  await updateEntries(tx, updated);
  const resolved = await closeEntries(tx, clock, closed);
  const detected = await openEntries(tx, clock, opened);
  return { detected, resolved: [...resolved, ...(replica.policy === 'manual' ? [] : detected.map(({ id }) => ({ id, strategy: replica.policy as Strategy, seconds: 0 })))] };
}

/** What is shown, as an entry keeps it. */
function valuesOf({ fields }: Change['view']): string | null {
  return fields && JSON.stringify(fields);
}

/** A page of entries, newest first; it ends early where the entries are large. */
export async function listConflicts(db: Pick<Database, 'query'>, page: ConflictPage): Promise<ConflictEntry[]> {
  return (await readConflicts(db, await fittingEntries(db, await findConflicts(db, page), PAGE_BYTES))).toReversed();
}

/** Of entries that a page holds, in bytes, about. */
const PAGE_BYTES = 32 * 1024 * 1024;

/** The first of these entries that together fit so many bytes: at least one, where there is one. */
async function fittingEntries(db: Pick<Database, 'query'>, ids: readonly string[], limit = BATCH_BYTES): Promise<readonly string[]> {
  const rows = await db.query(
    `SELECT count(*) FROM (
       SELECT sum(octet_length(c.sides::text) + coalesce(octet_length(c.holder::text), 0) + coalesce(octet_length(c.resolved_values::text), 0)) OVER (ORDER BY x.n) AS bytes
         FROM unnest($1::bigint[]) WITH ORDINALITY AS x (id, n) LEFT JOIN replication.conflict c USING (id)
     ) sized WHERE coalesce(bytes, 0) <= $2`,
    [ids, limit],
  );
  return ids.slice(0, Math.max(1, Number(rows[0]?.[0])));
}

/** Entries by id, in order of id; unknown ids are left out. */
export async function readConflicts(db: Pick<Database, 'query'>, ids: readonly string[]): Promise<ConflictEntry[]> {
  const rows = await db.query(`SELECT ${COLUMNS} FROM replication.conflict WHERE id = ANY($1::bigint[]) ORDER BY id`, [ids]);
  return rows.map(toEntry);
}

/** The pending entries of these records. */
export async function pendingOf(db: Pick<Database, 'query'>, model: string, keys: readonly string[]): Promise<ConflictEntry[]> {
  const rows = await db.query(
    `SELECT ${COLUMNS} FROM replication.conflict WHERE status = 'PENDING' AND model = $1 AND key = ANY($2::text[])`,
    [model, keys],
  );
  return rows.map(toEntry);
}

/** Entries detected after `id`, oldest first: ids are given out in the order in which conflicts become visible. */
export async function detectedAfter(db: Pick<Database, 'query'>, id: string, limit: number): Promise<ConflictEntry[]> {
  const ids = await db.query('SELECT id FROM replication.conflict WHERE id > $1 ORDER BY id LIMIT $2', [id, limit]);
  return readConflicts(db, await fittingEntries(db, ids.map(([found]) => found as string)));
}

/** Entries resolved after the `seq`th resolution, in order of resolution. */
export async function resolvedAfter(db: Pick<Database, 'query'>, seq: string, limit: number): Promise<ConflictEntry[]> {
  const ids = await db.query('SELECT id FROM replication.conflict WHERE resolved_seq > $1 ORDER BY resolved_seq LIMIT $2', [seq, limit]);
  const entries = await readConflicts(db, await fittingEntries(db, ids.map(([id]) => id as string)));
  return entries.toSorted((a, b) => Number(a.resolvedSeq) - Number(b.resolvedSeq));
}

/** The last id and the last resolution's number; '0' where there is none. */
export async function lastConflict(db: Pick<Database, 'query'>): Promise<{ readonly id: string; readonly resolvedSeq: string }> {
  const [row] = await db.query(
    'SELECT coalesce((SELECT max(id) FROM replication.conflict), 0), coalesce((SELECT max(resolved_seq) FROM replication.conflict), 0)',
  );
  return { id: row?.[0] ?? '0', resolvedSeq: row?.[1] ?? '0' };
}

/** Ids of pending conflicts after `after`, in order. */
export async function pendingIds(db: Pick<Database, 'query'>, after: string, upTo: string, limit: number): Promise<string[]> {
  const rows = await db.query(
    `SELECT id FROM replication.conflict WHERE resolved_at IS NULL AND id > $1 AND id <= $2 ORDER BY id LIMIT $3`,
    [after, upTo, limit],
  );
  return rows.map(([id]) => id as string);
}

/** What a pending entry is over, and how many bytes its sides take. */
export interface PendingName {
  readonly id: string;
  readonly model: string;
  readonly key: string;
  /** The unique constraint; empty where it is over none. */
  readonly name: string;
  readonly bytes: number;
}

/** Entries by id. Asked for what is pending as well, the planner would rather walk through all of that, of which there may have been none when it looked. */
const GIVEN = 'unnest($1::bigint[]) AS x (given) CROSS JOIN LATERAL (SELECT * FROM replication.conflict WHERE id = x.given OFFSET 0) c';

/** Those of these entries that are pending, in order of id. */
export async function readNames(db: Pick<Database, 'query'>, ids: readonly string[]): Promise<PendingName[]> {
  const rows = await db.query(
    `SELECT id, model, key, name, octet_length(sides::text) + coalesce(octet_length(holder::text), 0) FROM ${GIVEN} WHERE status = 'PENDING' ORDER BY id`,
    [numbers(ids)],
  );
  return rows.map(([id, model, key, name, bytes]) => ({ id: id as string, model: model as string, key: key as string, name: name as string, bytes: Number(bytes) }));
}

/** Which of these entries are pending. */
export async function pendingAmong(tx: Transaction, ids: readonly string[]): Promise<ReadonlySet<string>> {
  const rows = await tx.query(`SELECT id FROM ${GIVEN} WHERE status = 'PENDING'`, [numbers(ids)]);
  return new Set(rows.map(([id]) => id as string));
}

/** By record, the ids of the pending entries of these records, but for those over unique values. */
export async function pendingByRecord(tx: Transaction, records: readonly RecordName[]): Promise<ReadonlyMap<string, string>> {
  if (records.length === 0) return new Map();
  const rows = await tx.query(
    `SELECT x.model, x.key, c.id FROM unnest($1::text[], $2::text[]) AS x (model, key)
      CROSS JOIN LATERAL (SELECT id FROM replication.conflict c WHERE c.model = x.model AND c.key = x.key AND c.status = 'PENDING' AND c.name = '' OFFSET 0) c`,
    [texts(records.map(([model]) => model)), texts(records.map(([, key]) => key))],
  );
  return new Map(rows.map(([model, key, id]) => [recordId(model as string, key as string), id as string]));
}

/** The pending entries of these records over unique values. */
export async function pendingUnique(tx: Transaction, records: readonly { readonly m: string; readonly k: string }[]): Promise<ConflictEntry[]> {
  const rows = await tx.query(
    `SELECT ${COLUMNS} FROM (SELECT DISTINCT m, k FROM json_to_recordset($1) AS x (m text, k text)) x
      CROSS JOIN LATERAL (SELECT * FROM replication.conflict c WHERE c.model = x.m AND c.key = x.k AND c.status = 'PENDING' AND c.name <> '' OFFSET 0) c`,
    [JSON.stringify(records)],
  );
  return rows.map(toEntry);
}

/** Who holds a unique value, as an entry keeps it. */
export function encodeHolder(key: string, version: Version): string {
  return JSON.stringify({ k: key, ...encodeVersion(version) });
}

function toEntry(row: Row): ConflictEntry {
  const [id, model, key, kind, status, fields, stored, detectedAt, resolvedAt, resolution, resolvedBy, values, seq, name, holder] = row;
  const held = holder ? (JSON.parse(holder) as StoredVersion & { readonly k: string }) : null;
  return {
    id: id as string,
    model: model as string,
    key: key as string,
    kind: kind as ConflictKind,
    status: status as ConflictEntry['status'],
    fields: JSON.parse(fields as string) as string[],
    sides: decodeState(stored as string, null),
    detectedAt: Number(detectedAt),
    resolvedAt: resolvedAt === null || resolvedAt === undefined ? null : Number(resolvedAt),
    resolution: (resolution ?? null) as Strategy | null,
    resolvedBy: resolvedBy ?? null,
    resolvedFields: values ? (JSON.parse(values) as Fields) : null,
    resolvedSeq: seq ?? null,
    name: name as string,
    holder: held && { key: held.k, version: decodeVersion(held, null) },
  };
}

function recordId(model: string, key: string): string {
  return `${model} ${key}`;
}

