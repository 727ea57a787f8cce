/**
 * The conflict log, derived from the states and written in the transaction that changes them: at most one pending entry a record, closed when one value
 * remains, however that came about.
 */
import { differingFields, isConflict, kindOf, outcome, type ConflictKind } from '../replication/conflict.ts';
import { sameState, standing, type State } from '../replication/merge.ts';
import type { Fields, Strategy, Version } from '../replication/version.ts';
import type { Change } from './changes.ts';
import { findConflicts, type ConflictPage } from './conflict-log.ts';
import type { Database, Row, Transaction } from './database.ts';
import { decodeState, decodeVersion, encodeState, encodeVersion, type StoredVersion } from './records.ts';
import type { Replica } from './replica.ts';
import { BATCH_BYTES } from './sizes.ts';

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

/** Brings the log up to date with changed states. */
export async function logConflicts(tx: Transaction, replica: Replica, clock: number, changes: readonly Change[]): Promise<ConflictChanges> {
  const candidates = changes.filter(({ before, state }) => before.state.length > 1 || state.length > 1);
  if (candidates.length === 0) return NO_CHANGES;
  const pending = await readPending(tx, candidates);
  const opened: object[] = [];
  const updated: object[] = [];
  const closed: object[] = [];
  for (const { before, state, view } of candidates) {
    const { table, key } = before;
    const entry = pending.get(recordId(table.name, key));
    const conflict = isConflict(state);
    const versions = standing(state);
    const now = { kind: kindOf(state), fields: differingFields(state), sides: encodeState(versions, null) };
    if (conflict && replica.policy === 'manual') {
      if (entry === undefined) opened.push({ model: table.name, key, ...now });
      else if (!sameState(entry.sides, versions)) updated.push({ id: entry.id, ...now });
      continue;
    }
    const end = { by: replica.name, values: view.fields && JSON.stringify(view.fields) };
    if (conflict) {
      // The policy has settled it in the view: logged for what it passed over.
      const settled = { strategy: replica.policy, ...end };
      if (entry !== undefined) closed.push({ id: entry.id, ...now, ...settled });
      else if (!sameState(standing(before.state), versions)) opened.push({ model: table.name, key, ...now, ...settled });
    } else if (entry !== undefined) {
      // A side may have been written to since the entry was last brought up to date, and the write is to be found in the log once it is decided over.
      const last = isConflict(before.settled) ? before.settled : entry.sides;
      closed.push({ id: entry.id, kind: kindOf(last), fields: differingFields(last), sides: encodeState(last, null), ...end, ...outcome(last, state) });
    }
  }
  await updateEntries(tx, updated);
  const resolved = await closeEntries(tx, clock, closed);
  const detected = await openEntries(tx, clock, opened);
  return { detected, resolved: [...resolved, ...(replica.policy === 'manual' ? [] : detected.map(({ id }) => ({ id, strategy: replica.policy as Strategy, seconds: 0 })))] };
}

/** A page of entries, newest first; it ends early where the entries are large. */
export async function listConflicts(db: Pick<Database, 'query'>, page: ConflictPage): Promise<ConflictEntry[]> {
  return (await readConflicts(db, await fittingEntries(db, await findConflicts(db, page), PAGE_BYTES))).toReversed();
}

/** Of entries that a page holds, in bytes, about. */
const PAGE_BYTES = 32 * 1024 * 1024;

/** The first of these entries that together fit so many bytes: at least one, where there is one. */
export async function fittingEntries(db: Pick<Database, 'query'>, ids: readonly string[], limit = BATCH_BYTES): Promise<readonly string[]> {
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
    `SELECT id FROM replication.conflict WHERE status = 'PENDING' AND id > $1 AND id <= $2 ORDER BY id LIMIT $3`,
    [after, upTo, limit],
  );
  return rows.map(([id]) => id as string);
}

async function readPending(tx: Transaction, changes: readonly Change[]): Promise<Map<string, ConflictEntry>> {
  const rows = await tx.query(
    `SELECT ${COLUMNS} FROM replication.conflict JOIN json_to_recordset($1) AS x (m text, k text) ON model = x.m AND key = x.k WHERE status = 'PENDING' AND name = ''`,
    [JSON.stringify(changes.map(({ before }) => ({ m: before.table.name, k: before.key })))],
  );
  return new Map(rows.map(toEntry).map((entry) => [recordId(entry.model, entry.key), entry]));
}

/** The pending entries of these records over unique values. */
export async function pendingUnique(tx: Transaction, records: readonly { readonly m: string; readonly k: string }[]): Promise<ConflictEntry[]> {
  const rows = await tx.query(
    `SELECT ${COLUMNS} FROM replication.conflict JOIN (SELECT DISTINCT m, k FROM json_to_recordset($1) AS x (m text, k text)) x ON model = x.m AND key = x.k
      WHERE status = 'PENDING' AND name <> ''`,
    [JSON.stringify(records)],
  );
  return rows.map(toEntry);
}

/** Who holds a unique value, as an entry keeps it. */
export function encodeHolder(key: string, version: Version): string {
  return JSON.stringify({ k: key, ...encodeVersion(version) });
}

/** Brings pending entries up to date. */
export async function updateEntries(tx: Transaction, entries: readonly object[]): Promise<void> {
  if (entries.length === 0) return;
  await tx.query(
    `UPDATE replication.conflict c SET kind = x.kind, fields = x.fields, sides = x.sides::json, holder = x.holder::json
       FROM json_to_recordset($1) AS x (id bigint, kind text, fields text[], sides text, holder text) WHERE c.id = x.id`,
    [JSON.stringify(entries)],
  );
}

/** Opens entries; those with a strategy are resolved at once. */
export async function openEntries(tx: Transaction, clock: number, entries: readonly object[]): Promise<ConflictRef[]> {
  if (entries.length === 0) return [];
  const rows = await tx.query(
    `INSERT INTO replication.conflict (model, key, kind, status, fields, sides, detected_at, resolved_at, resolution, resolved_by, resolved_values, resolved_seq, name, holder)
     SELECT model, key, kind, CASE WHEN strategy IS NULL THEN 'PENDING' ELSE 'RESOLVED' END, fields, sides::json, $2::bigint,
            CASE WHEN strategy IS NOT NULL THEN $2::bigint END, strategy, "by", "values"::json,
            CASE WHEN strategy IS NOT NULL THEN nextval('replication.resolution') END, coalesce(name, ''), holder::json
       FROM json_to_recordset($1) AS x (model text, key text, kind text, fields text[], sides text, strategy text, "by" text, "values" text, name text, holder text)
     RETURNING id, model, key, kind`,
    [JSON.stringify(entries), clock],
  );
  return rows.map(([id, model, key, kind]) => ({
    id: id as string,
    model: model as string,
    key: key as string,
    kind: kind as ConflictKind,
  }));
}

export async function closeEntries(tx: Transaction, clock: number, entries: readonly object[]): Promise<ConflictChanges['resolved']> {
  if (entries.length === 0) return [];
  const rows = await tx.query(
    `UPDATE replication.conflict c
        SET status = 'RESOLVED', kind = x.kind, fields = x.fields, sides = x.sides::json, resolved_at = $2::bigint, resolution = x.strategy,
            resolved_by = x."by", resolved_values = x."values"::json, resolved_seq = nextval('replication.resolution')
       FROM json_to_recordset($1) AS x (id bigint, kind text, fields text[], sides text, strategy text, "by" text, "values" text)
      WHERE c.id = x.id
      RETURNING c.id, c.resolution, c.resolved_at - c.detected_at`,
    [JSON.stringify(entries), clock],
  );
  return rows.map(([id, strategy, micros]) => ({ id: id as string, strategy: strategy as Strategy, seconds: Number(micros) / 1e6 }));
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

