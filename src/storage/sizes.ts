/** How much of what is asked for is read at once: values of megabytes are as good as any, and memory is not. */
import type { State } from '../replication/merge.ts';
import type { Transaction } from './database.ts';
import type { Replica } from './replica.ts';
import { matchesKey, type Column, type ModelTable } from './tables.ts';

/** Bytes of records that are read at once, about; a larger record is read alone. */
export const BATCH_BYTES = 8 * 1024 * 1024;

/** A record's model and key. */
export type RecordName = readonly [model: string, key: string];

/** The first of these records that together fit `BATCH_BYTES`: at least one, where there is one. */
export async function fitting(tx: Transaction, replica: Replica, wanted: readonly RecordName[]): Promise<readonly RecordName[]> {
  const count = wanted.length < 2 ? wanted.length : Math.max(1, await countFitting(tx, replica, wanted));
  return wanted.slice(0, count);
}

/**
 * The names in portions that each fit, one after the other, and whether it is the last. What a portion was read for is to be done with before the next is asked for.
 */
export async function* portions(tx: Transaction, replica: Replica, wanted: readonly RecordName[]): AsyncGenerator<{ readonly names: readonly RecordName[]; readonly last: boolean }> {
  for (let rest = wanted; rest.length > 0; ) {
    const names = await fitting(tx, replica, rest);
    rest = rest.slice(names.length);
    yield { names, last: rest.length === 0 };
  }
}

/** What of a state fits a message of 64 MiB, with what JSON adds to it. */
const MESSAGE_BYTES = 48 * 1024 * 1024;

/** True where a message can hold a state. */
export function fitsMessage(state: State): boolean {
  return bytesOf(state) <= MESSAGE_BYTES;
}

/** About how many bytes of memory a state's values take. */
export function bytesOf(state: State): number {
  let bytes = 0;
  for (const { fields } of state) {
    bytes += FRAME_BYTES;
    for (const name in fields) bytes += fields[name]?.length ?? 0;
  }
  return bytes;
}

/** Types whose values are short, and whose texts are JSON as they are, in quotes. */
export const SHORT = /^(integer|bigint|smallint|boolean|uuid|real|double precision|date|time(stamp)?(\(\d+\))? with(out)? time zone)$/;
/** What a record takes beside its values. */
export const FRAME_BYTES = 400;

/** How many of the first records together fit `BATCH_BYTES`, about. What they take in the database says little: a page holds values of a megabyte, compressed. */
async function countFitting(tx: Transaction, replica: Replica, wanted: readonly RecordName[]): Promise<number> {
  const places = new Map<string, number[]>();
  wanted.forEach(([model], n) => {
    const own = places.get(model);
    if (own) own.push(n);
    else places.set(model, [n]);
  });
  const values: unknown[] = [BATCH_BYTES];
  const sized = [...places].map(([model, own]) => {
    const table = replica.tables.get(model);
    const n = values.push(own);
    if (table === undefined || table.columns.every(({ type }) => SHORT.test(type))) return `SELECT n, ${FRAME_BYTES} AS bytes FROM unnest($${n}::integer[]) AS k (n)`;
    values.push(own.map((place) => wanted[place]?.[1]), model);
    return `SELECT k.n, coalesce(t.bytes, 0) + coalesce(r.bytes, 0) + ${FRAME_BYTES} AS bytes
      FROM unnest($${n}::integer[], $${n + 1}::text[]) AS k (n, key)
      LEFT JOIN LATERAL (SELECT ${longValues(table)} AS bytes FROM ${table.table} t WHERE ${matchesKey('t', table.keyColumn, 'k.key')} OFFSET 0) t ON true
      LEFT JOIN LATERAL (
        SELECT ${versionBytes('versions')} AS bytes FROM replication.record WHERE model = $${n + 2} AND key = k.key OFFSET 0
      ) r ON true`;
  });
  const [row] = await tx.query(`SELECT count(*) FROM (SELECT sum(bytes) OVER (ORDER BY n) AS bytes FROM (${sized.join(' UNION ALL ')}) AS sized) AS summed WHERE bytes <= $1`, values);
  return Number(row?.[0]);
}

/** The bytes of a row's long values, about: an expression over the table `t`. */
export function longValues({ columns }: ModelTable): string {
  return ['0::float8', ...columns.filter(({ type }) => !SHORT.test(type)).map(valueBytes)].join(' + ');
}

/** The bytes of stored versions, about. */
export function versionBytes(versions: string): string {
  return `CASE WHEN pg_column_compression(${versions}) IS NULL THEN pg_column_size(${versions}) ELSE octet_length(${versions}::text) END`;
}

/** The length of a value's text, about, without unpacking the value where that can be had. */
function valueBytes({ column, type }: Column): string {
  const value = `t.${column}`;
  if (type === 'bytea') return `coalesce(2 * octet_length(${value}), 0)`;
  if (/^(text|character varying(\(\d+\))?)$/.test(type)) return `coalesce(octet_length(${value}), 0)`;
  return `coalesce(CASE WHEN pg_column_compression(${value}) IS NULL THEN pg_column_size(${value}) ELSE octet_length(${value}::text) END, 0)`;
}
