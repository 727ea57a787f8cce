/**
 * Reading records: the stored state, the captured writes that are not in it yet, and the model's row, all of one snapshot.
 */
import type { State } from '../replication/merge.ts';
import { show, type View } from '../replication/policy.ts';
import { unmasked, type Masked } from '../replication/unique.ts';
import type { Fields, Vector, Version } from '../replication/version.ts';
import { writeBeside, writeLocally, type LocalWrite } from '../replication/write.ts';
import { RetryTransaction, type Transaction } from './database.ts';
import type { Replica } from './replica.ts';
import { matchesKey, refreshTable, showFields, type ModelTable } from './tables.ts';

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
    [keys],
  );
}

/**
 * Reads records; one answer a key, in the order of the keys.
 *
 * `OFFSET 0` keeps each look-up a look-up by key: with the statistics of a table that has just grown, the planner would rather join with the whole of it.
 */
export async function readRecords(tx: Transaction, table: ModelTable, keys: readonly string[]): Promise<StoredRecord[]> {
  if (keys.length === 0) return [];
  const { column } = table.keyColumn;
  const rows = await tx.query(
    `WITH here AS MATERIALIZED (
       SELECT replication.incarnation() AS incarnation, (SELECT forgotten FROM replication.collection) AS forgotten,
              (SELECT generation FROM replication.generation WHERE model = $2) AS generation
     )
     SELECT here.generation, here.incarnation, here.forgotten, k.key, r.position, r.origin, r.versions, r.shown, r.waiting, r.held, r.hash, l.writes, r.masked, t.${column} IS NOT NULL
            ${table.columns.map((c) => `, t.${c.column}::text`).join('')}
       FROM here CROSS JOIN unnest($1::text[]) WITH ORDINALITY AS k (key, n)
       LEFT JOIN LATERAL (SELECT * FROM replication.record WHERE model = $2 AND key = k.key OFFSET 0) r ON true
       LEFT JOIN LATERAL (SELECT * FROM ${table.table} t WHERE ${matchesKey('t', table.keyColumn, 'k.key')} OFFSET 0) t ON true
       LEFT JOIN LATERAL (
         SELECT json_agg(json_build_array(l.ctid::text, l.op, l.clock, l.fields, l.incarnation) ORDER BY l.seq) AS writes
           FROM replication.log l WHERE l.model = $2 AND l.key = k.key
       ) l ON true
      ORDER BY k.n`,
    [keys, table.name],
  );
  if (Number(rows[0]?.[0]) !== table.generation) {
    // Another process has upgraded the database, and what it has stored may lie in columns that were not asked for.
    await refreshTable(tx, table);
    return readRecords(tx, table, keys);
  }
  return rows.map((row) => toRecord(table, row));
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

/**
 * A local writer may have created a key, and deleted it again, after its record was read and before its row was made: then all is read again, with those writes. A row that was there was locked.
 *
 * @param made - Records whose rows were made in this transaction, and the captured writes that were known of them.
 */
export async function refuseIfWrittenMeanwhile(tx: Transaction, made: readonly Pick<StoredRecord, 'table' | 'key' | 'places'>[]): Promise<void> {
  if (made.length === 0) return;
  const [found] = await tx.query(
    `SELECT x.key FROM json_to_recordset($1) AS x (model text, key text)
      CROSS JOIN LATERAL (SELECT FROM replication.log l WHERE l.model = x.model AND l.key = x.key AND l.ctid <> ALL ($2::tid[]) OFFSET 0) l LIMIT 1`,
    [JSON.stringify(made.map(({ table, key }) => ({ model: table.name, key }))), made.flatMap(({ places }) => places)],
  );
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

function toRecord(table: ModelTable, columns: readonly (string | null)[]): StoredRecord {
  const [, incarnation, forgotten, key, position, origin, versions, shown, waiting, held, hash, writes, masked, present, ...values] = columns;
  const row = present === 't' ? toFields(table, values) : null;
  const log = writes ? (JSON.parse(writes) as [string, keyof typeof KINDS, number, string[] | null, string][]) : [];
  return {
    table,
    incarnation: incarnation as string,
    forgotten: Number(forgotten),
    key: key as string,
    position: Number(position ?? 0),
    origin: origin ?? null,
    state: versions ? decodeState(versions, row, table) : [],
    shown: shown ? (JSON.parse(shown) as Vector | null) : null,
    waiting: waiting ?? null,
    held: held ? decodeVersion(JSON.parse(held) as StoredVersion, row, table) : null,
    masked: masked ? (JSON.parse(masked) as Masked) : null,
    hash: hash ?? null,
    row,
    writes: log.map(([, op, clock, fields, writer]) => ({
      kind: KINDS[op],
      replica: writer,
      clock,
      changed: fields ?? [],
    })),
    places: log.map(([place]) => place),
  };
}

function toFields(table: ModelTable, values: readonly (string | null)[]): Fields {
  const fields: Record<string, string | null> = {};
  table.columns.forEach(({ field }, i) => {
    fields[field.name] = values[i] ?? null;
  });
  return fields;
}
