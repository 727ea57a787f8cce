/**
 * Reading records: the stored state, the captured writes that are not in it yet, and the model's row, all of one snapshot.
 */
import type { State } from '../replication/merge.ts';
import { show, type View } from '../replication/policy.ts';
import { unmasked, type Masked } from '../replication/unique.ts';
import type { Fields, Vector, Version } from '../replication/version.ts';
import { writeBeside, writeLocally, type LocalWrite } from '../replication/write.ts';
import { texts } from './arrays.ts';
import { RetryTransaction, type Row, type Transaction } from './database.ts';
import type { Replica } from './replica.ts';
import { BATCH_BYTES, FRAME_BYTES, longValues, versionBytes } from './sizes.ts';
import { matchesKey, refreshTable, showFields, type Column, type ModelTable } from './tables.ts';

/** A version as `replication.record` and `replication.conflict` hold it. */
export interface StoredVersion {
  readonly v: Vector;
  readonly s: Version['stamps'];
  readonly f?: Fields | null;
  /** Of a version without `f`: its row holds the values of this generation's fields (1 where it is left out), and `x` those of any other field. */
  readonly g?: number;
  readonly x?: Fields;
  readonly r?: Version['resolution'];
  readonly c?: true;
}

/** What is stored of a record. */
export interface StoredRecord {
  readonly table: ModelTable;
  readonly key: string;
  /** 0 where nothing is stored. */
  readonly position: number;
  readonly origin: string | null;
  readonly state: State;
  /** The vector of the version shown, where there is a choice. */
  readonly shown: Vector | null;
  /** Why the state cannot be shown; then `held` is the version in the row, null where there is no row. */
  readonly waiting: string | null;
  readonly held: Version | null;
  /** What of the row gives way to another record's value; null where nothing does. */
  readonly masked: Masked | null;
  /** Of the stored state, in decimal digits; null where nothing is stored but ghosts. */
  readonly hash: string | null;
  /** The model's row; null where there is none. */
  readonly row: Fields | null;
  readonly writes: readonly LocalWrite[];
  /** The present incarnation of this replica. */
  readonly incarnation: string;
  /** The largest stamp among the tombstones that this replica has forgotten. */
  readonly forgotten: number;
  /** Where the writes lie in the log. */
  readonly places: readonly string[];
}

/** A record with its captured writes folded in: as it would be stored now. */
export interface SettledRecord extends StoredRecord {
  readonly settled: State;
  /** What is to be shown; what the row of a record shows that waits is `held`, the last write to it included. */
  readonly view: View;
}

const KINDS = { I: 'insert', U: 'update', D: 'delete' } as const;

/**
 * Locks the rows of these keys, in key order, as local writers lock them: their captured writes are all visible afterwards and no more can come.
 */
export async function lockRows(tx: Transaction, table: ModelTable, keys: readonly string[]): Promise<void> {
  const { keyColumn } = table;
  await tx.query(
    `SELECT FROM ${table.table} t JOIN unnest($1::text[]) AS k (key) ON ${matchesKey('t', keyColumn, 'k.key')} ORDER BY t.${keyColumn.column} FOR UPDATE OF t`,
    [texts(keys)],
  );
}

/**
 * Reads records; one answer a key, in the order of the keys.
 *
 * `OFFSET 0` keeps each look-up a look-up by key: with the statistics of a table that has just grown, the planner would rather join with the whole of it.
 */
export async function readRecords(tx: Transaction, table: ModelTable, keys: readonly string[]): Promise<StoredRecord[]> {
  return (await readWithin(tx, table, keys, null)).records;
}

/** Those of these records that together fit `BATCH_BYTES`, in the order of the keys. */
export async function readFitting(tx: Transaction, table: ModelTable, keys: readonly string[]): Promise<readonly StoredRecord[]> {
  return (await readWithin(tx, table, keys, { bytes: BATCH_BYTES, least: false })).records;
}

/** Bytes that records may take, about; the first is read whatever it takes where `least` says so. */
interface Room {
  readonly bytes: number;
  readonly least: boolean;
}

/** Reads the first of these records that fit, in the order of the keys; `bytes` is what they take. */
async function readWithin(tx: Transaction, table: ModelTable, keys: readonly string[], room: Room | null): Promise<{ readonly records: StoredRecord[]; readonly bytes: number }> {
  if (keys.length === 0) return { records: [], bytes: 0 };
  const { columns, name } = table;
  // What a record takes says where the room ends, before any of its values is unpacked.
  const total = `sum(${FRAME_BYTES}::float8 + coalesce(t.bytes, 0) + coalesce(r.bytes, 0)) OVER (ORDER BY k.n ROWS UNBOUNDED PRECEDING)`;
  // Most have none, and an aggregate over none costs more than the look-up.
  const written = 'FROM replication.log l WHERE l.model = $2 AND l.key = f.key';
  const rows = await tx.query(
    `WITH here AS MATERIALIZED (
       SELECT replication.incarnation() AS incarnation, (SELECT forgotten FROM replication.collection) AS forgotten,
              (SELECT generation FROM replication.generation WHERE model = $2) AS generation
     ), found AS (
       SELECT k.n, k.key, r.position, r.origin, r.versions, r.shown, r.waiting, r.held, r.hash, r.masked, t.present${columns.map((_, i) => `, t.c${i}`).join('')}, ${room === null ? '0' : total} AS total
         FROM unnest($1::text[]) WITH ORDINALITY AS k (key, n)
         LEFT JOIN LATERAL (SELECT *, ${versionBytes('versions')} AS bytes FROM replication.record WHERE model = $2 AND key = k.key OFFSET 0) r ON true
         LEFT JOIN LATERAL (
           SELECT true AS present, ${longValues(table)} AS bytes${columns.map(({ column }, i) => `, t.${column} AS c${i}`).join('')}
             FROM ${table.table} t WHERE ${matchesKey('t', table.keyColumn, 'k.key')} OFFSET 0
         ) t ON true
     )
     SELECT CASE WHEN f.n = 1 THEN here.generation END, CASE WHEN f.n = 1 THEN here.incarnation END, CASE WHEN f.n = 1 THEN here.forgotten END, f.total,
            f.key, f.position, f.origin, f.versions, f.shown, f.waiting, f.held, f.hash,
            CASE WHEN EXISTS (SELECT ${written}) THEN (
              SELECT json_agg(json_build_array(l.ctid::text, l.op, l.clock, l.fields, l.incarnation) ORDER BY l.seq) ${written}
            ) END,
            f.masked, f.present${columns.map((_, i) => `, f.c${i}::text`).join('')}
       FROM here CROSS JOIN found f
      WHERE ${room === null ? 'true' : 'f.total <= $3 OR ($4 AND f.n = 1)'} ORDER BY f.n`,
    [texts(keys), name, ...(room === null ? [] : [room.bytes, room.least])],
  );
  const [first] = rows;
  if (first === undefined) return { records: [], bytes: 0 };
  if (Number(first[0]) !== table.generation) {
    // Another process has upgraded the database, and what it has stored may lie in columns that were not asked for.
    await refreshTable(tx, table);
    return readWithin(tx, table, keys, room);
  }
  const incarnation = first[1] as string;
  const forgotten = Number(first[2]);
  return { records: rows.map((row) => toRecord(table, incarnation, forgotten, row)), bytes: Number(rows.at(-1)?.[3]) };
}

/** Folds a record's captured writes into its state. Pure. */
export function settle(record: StoredRecord, replica: Pick<Replica, 'name' | 'policy'>): SettledRecord {
  const { state, writes, waiting, held } = record;
  const self = `${replica.name}.${record.incarnation}`;
  const shown = waiting === null ? show(state, replica.policy, self, record.shown) : null;
  const row = meant(record, shown?.fields ?? held?.fields ?? null);
  const view: View = shown ?? { fields: row, version: held };
  if (writes.length === 0) return settledAs(record, state, held, view);
  const own = writes.map((write) => ({ ...write, replica: `${replica.name}.${write.replica}` }));
  const settled =
    waiting === null
      ? writeLocally(state, view, replica.policy, own, row, state.length === 0 ? record.forgotten : 0)
      : writeBeside(state, held, own, row, record.forgotten);
  const written = settled.find((version) => !state.includes(version));
  return settledAs(record, settled, written ?? held, show(settled, replica.policy, self, written?.vector ?? record.shown));
}

/** Spelt out: V8 is slow at spreading a record of so many properties, and this is done for each record that is folded, sent or merged. */
function settledAs(record: StoredRecord, settled: State, held: Version | null, view: View): SettledRecord {
  const { table, key, position, origin, state, shown, waiting, masked, hash, row, writes, incarnation, forgotten, places } = record;
  return { table, key, position, origin, state, shown, waiting, held, masked, hash, row, writes, incarnation, forgotten, places, settled, view };
}

/** Locks, reads and folds records. */
export async function readLocked(tx: Transaction, replica: Replica, table: ModelTable, keys: readonly string[]): Promise<SettledRecord[]> {
  if (keys.length === 0) return [];
  const [, records] = await Promise.all([lockRows(tx, table, keys), readRecords(tx, table, keys)]);
  return records.map((record) => settle(record, replica));
}

/** Some of several records, and whether they are the last. */
export interface Portion {
  readonly records: readonly SettledRecord[];
  readonly last: boolean;
}

/**
 * Locks all of these records, and reads and folds them in portions of `BATCH_BYTES`, one after the other, and whether it is the last. What a portion was read for is to be done with before the next is
 * asked for.
 *
 * @param wanted - Keys, by table.
 */
export async function* lockedPortions(tx: Transaction, replica: Replica, wanted: Iterable<readonly [ModelTable, readonly string[]]>): AsyncGenerator<Portion> {
  let portion: SettledRecord[] = [];
  let left = BATCH_BYTES;
  for (const [table, keys] of wanted) {
    const locking = keys.length > 0 ? lockRows(tx, table, keys) : null;
    for (let rest = keys; rest.length > 0; ) {
      const [{ records, bytes }] = await Promise.all([readWithin(tx, table, rest, { bytes: left, least: portion.length === 0 }), locking]);
      for (const record of records) portion.push(settle(record, replica));
      rest = rest.slice(records.length);
      left -= bytes;
      if (rest.length === 0) break;
      yield { records: portion, last: false };
      portion = [];
      left = BATCH_BYTES;
    }
  }
  if (portion.length > 0) yield { records: portion, last: true };
}

/**
 * A local writer may have created a key, and deleted it again, after its record was read and before its row was made: then all is read again, with those writes. A row that was there was locked.
 *
 * @param made - Records whose rows were made in this transaction, and the captured writes that were known of them.
 */
export async function refuseIfWrittenMeanwhile(tx: Transaction, made: readonly Pick<StoredRecord, 'table' | 'key' | 'places'>[]): Promise<void> {
  if (made.length === 0) return;
  const written = `json_to_recordset($1) AS x (model text, key text)
      CROSS JOIN LATERAL (SELECT FROM replication.log l WHERE l.model = x.model AND l.key = x.key AND l.ctid <> ALL ($2::tid[]) OFFSET 0) l LIMIT 1`;
  const values = [JSON.stringify(made.map(({ table, key }) => ({ model: table.name, key }))), made.flatMap(({ places }) => places)];
  if (tx.isHopeful) return tx.hope(`SELECT replication.refuse(x.key) FROM ${written}`, values);
  const [found] = await tx.query(`SELECT x.key FROM ${written}`, values);
  if (found) throw new RetryTransaction(`a row with key ${found[0]} was created and deleted meanwhile`);
}

/** A state with captured writes in it is no longer what a peer sent. */
export function originOf(record: SettledRecord): string | null {
  return record.writes.length > 0 ? null : record.origin;
}

/** What is to be shown of the state that a record comes to have. */
export function viewOf(replica: Replica, before: SettledRecord, state: State): View {
  return show(state, replica.policy, `${replica.name}.${before.incarnation}`, before.view.version?.vector ?? before.shown);
}

/** The values that a record's row stands for, where some of it gives way to another record's. A field that was written since is what was written. */
export function meant({ row, masked, writes }: StoredRecord, version: Fields | null): Fields | null {
  if (row === null || masked === null) return row;
  const whole = writes.some(({ kind }) => kind !== 'update');
  return unmasked(row, masked, version, whole ? null : new Set(writes.flatMap(({ changed }) => changed)));
}

/**
 * The versions of a record as they are stored.
 *
 * @param asRow - The table whose row holds the values of the only one.
 */
export function encodeState(state: State, asRow: ModelTable | null): string {
  return JSON.stringify(state.map((version) => encodeVersion(version, asRow)));
}

/** The only version of a record, as it is stored, where its fields are just those of its row. */
export function encodeAsRow({ generation }: ModelTable, { vector, stamps, resolution }: Pick<Version, 'vector' | 'stamps' | 'resolution'>): string {
  return JSON.stringify([{ v: vector, s: stamps, ...(generation !== 1 && { g: generation }), ...(resolution && { r: resolution }) } satisfies StoredVersion]);
}

export function encodeVersion({ vector, stamps, fields, resolution, collected }: Version, asRow: ModelTable | null = null): StoredVersion {
  if (asRow === null && !resolution && !collected) return { v: vector, s: stamps, f: fields };
  const values = asRow === null || fields === null ? { f: fields } : besideRow(asRow, fields);
  return { v: vector, s: stamps, ...values, ...(resolution && { r: resolution }), ...(collected && { c: collected }) };
}

/** What must be stored of values that a row shows: the generation of fields that the row holds as they were written, and all others. */
function besideRow(table: ModelTable, fields: Fields): Pick<StoredVersion, 'g' | 'x'> {
  const shown = showFields(table, fields);
  let generation = table.generation;
  for (const { field, since } of table.columns) {
    if (since <= generation && !(Object.hasOwn(fields, field.name) && fields[field.name] === shown[field.name])) generation = since - 1;
  }
  const rest = { ...fields };
  for (const { field, since } of table.columns) if (since <= generation) delete rest[field.name];
  return { ...(generation !== 1 && { g: generation }), ...(Object.keys(rest).length > 0 && { x: rest }) };
}

/** @param row - The values of a version that is stored without them, and the table that it is of. */
export function decodeVersion({ v, s, f, g = 1, x, r, c }: StoredVersion, row: Fields | null, table?: ModelTable): Version {
  const fields = f === undefined ? row && ofRow(row, g, x, table) : f;
  // In the order in which the core makes versions: V8 takes objects whose properties were given in another order for another kind, and compiles what works on both anew.
  if (!r && !c) return { vector: v, fields, stamps: s };
  return { vector: v, fields, stamps: s, ...(r && { resolution: r }), ...(c && { collected: c }) };
}

function ofRow(row: Fields, generation: number, beside: Fields | undefined, table: ModelTable | undefined): Fields {
  const missing = table?.columns.filter(({ since }) => since > generation) ?? [];
  if (missing.length === 0 && beside === undefined) return row;
  const fields = { ...row } as Record<string, string | null>;
  for (const { field } of missing) delete fields[field.name];
  return { ...fields, ...beside };
}

/** A state from the text that was stored of it, in whose order it is. */
export function decodeState(versions: string, row: Fields | null, table?: ModelTable): State {
  const stored = JSON.parse(versions) as StoredVersion[];
  return stored.map((version) => decodeVersion(version, row, table));
}

/** By index, since taking so long a row apart at once is much to compile. */
function toRecord(table: ModelTable, incarnation: string, forgotten: number, row: Row): StoredRecord {
  const values = row[14] === 't' ? toFields(table, row, 15) : null;
  const versions = row[7];
  const shown = row[8];
  const held = row[10];
  const writes = row[12];
  const masked = row[13];
  const log = writes ? (JSON.parse(writes) as readonly Line[]) : NO_LINES;
  return {
    table,
    incarnation,
    forgotten,
    key: row[4] as string,
    position: Number(row[5] ?? 0),
    origin: row[6] ?? null,
    state: versions ? decodeState(versions, values, table) : [],
    shown: shown ? (JSON.parse(shown) as Vector | null) : null,
    waiting: row[9] ?? null,
    held: held ? decodeVersion(JSON.parse(held) as StoredVersion, values, table) : null,
    masked: masked ? (JSON.parse(masked) as Masked) : null,
    hash: row[11] ?? null,
    row: values,
    writes: log.map(([, op, clock, fields, writer]) => ({
      kind: KINDS[op],
      replica: writer,
      clock,
      changed: fields ?? [],
    })),
    places: log.map(([place]) => place),
  };
}

/** A line of the log, as `readWithin` asks for it. */
type Line = readonly [place: string, op: keyof typeof KINDS, clock: number, fields: string[] | null, writer: string];

const NO_LINES: readonly Line[] = [];

/** @param from - Where the values begin. */
function toFields({ columns }: ModelTable, row: Row, from: number): Fields {
  const fields: Record<string, string | null> = {};
  for (let i = 0; i < columns.length; i++) fields[(columns[i] as Column).field.name] = row[from + i] ?? null;
  return fields;
}
