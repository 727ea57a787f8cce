/** How much of what is asked for is read at once: values of megabytes are as good as any, and memory is not. */
import type { State } from '../replication/merge.ts';
import type { Transaction } from './database.ts';
import type { Replica } from './replica.ts';
import { matchesKey, type Column } from './tables.ts';

/** Bytes of records that are read at once, about; a larger record is read alone. */
export const BATCH_BYTES = 8 * 1024 * 1024;

/** A record's model and key. */
export type RecordName = readonly [model: string, key: string];

/** The first of these records that together fit `BATCH_BYTES`: at least one, where there is one. */
export async function fitting(tx: Transaction, replica: Replica, wanted: readonly RecordName[]): Promise<readonly RecordName[]> {
  const sizes = await rowSizes(tx, replica, wanted);
  let bytes = 0;
  let count = 0;
  while (count < wanted.length && (count === 0 || bytes + (sizes[count] ?? 0) <= BATCH_BYTES)) bytes += sizes[count++] ?? 0;
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
export const MESSAGE_BYTES = 48 * 1024 * 1024;

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

/** Types whose values are short. */
const SHORT = /^(integer|bigint|smallint|boolean|uuid|real|double precision|date|time(stamp)?(\(\d+\))? with(out)? time zone)$/;
/** What a record takes beside its values. */
const FRAME_BYTES = 400;

/** About how many bytes each record takes. What it takes in the database says little: a page holds values of a megabyte, compressed. */
async function rowSizes(tx: Transaction, replica: Replica, wanted: readonly RecordName[]): Promise<number[]> {
  const sizes = Array.from(wanted, () => FRAME_BYTES);
  for (const table of replica.tables.values()) {
    const long = table.columns.filter(({ type }) => !SHORT.test(type));
    const own = wanted.flatMap(([model, key], n) => (model === table.name ? [{ n, key }] : []));
    if (long.length === 0 || own.length === 0) continue;
    const rows = await tx.query(
      `SELECT k.n, coalesce(t.bytes, 0) + coalesce(r.bytes, 0)
         FROM json_to_recordset($1) AS k (n integer, key text)
         LEFT JOIN LATERAL (SELECT ${long.map(valueBytes).join(' + ')} AS bytes FROM ${table.table} t WHERE ${matchesKey('t', table.keyColumn, 'k.key')} OFFSET 0) t ON true
         LEFT JOIN LATERAL (
           SELECT CASE WHEN pg_column_compression(versions) IS NULL THEN pg_column_size(versions) ELSE octet_length(versions::text) END AS bytes
             FROM replication.record WHERE model = $2 AND key = k.key OFFSET 0
         ) r ON true`,
      [JSON.stringify(own), table.name],
    );
    for (const [n, bytes] of rows) sizes[Number(n)] = Number(bytes) + FRAME_BYTES;
  }
  return sizes;
}

/** The length of a value's text, about, without unpacking the value where that can be had. */
function valueBytes({ column, type }: Column): string {
  const value = `t.${column}`;
  if (type === 'bytea') return `coalesce(2 * octet_length(${value}), 0)`;
  if (/^(text|character varying(\(\d+\))?)$/.test(type)) return `coalesce(octet_length(${value}), 0)`;
  return `coalesce(CASE WHEN pg_column_compression(${value}) IS NULL THEN pg_column_size(${value}) ELSE octet_length(${value}::text) END, 0)`;
}
