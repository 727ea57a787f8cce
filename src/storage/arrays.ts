/**
 * Arrays as parameters of a statement, for what is written or asked by the thousand: `unnest` reads them in a seventh of the time that JSON takes, and texts with quotes in them (a state is JSON) are
 * escaped neither here nor there.
 */

const TEXT = 25;
const HEADER_BYTES = 20;
const LENGTH_BYTES = 4;
/** Where the length of the next element goes. */
const GAP = '\0\0\0\0';

/** A `text[]` in PostgreSQL's binary form (`array_recv`). */
export function texts(values: readonly (string | null)[]): Buffer {
  // Written at once: a call for each element takes longer than all the rest. `join` takes null for nothing.
  const joined = values.join(GAP);
  const bytes = Buffer.byteLength(joined);
  const isAscii = bytes === joined.length;
  const array = Buffer.allocUnsafe(HEADER_BYTES + LENGTH_BYTES + bytes);
  // Dimensions, whether there are nulls, the type of the elements; their number, and the index of the first.
  let at = array.writeInt32BE(values.length === 0 ? 0 : 1, 0);
  at = array.writeInt32BE(values.includes(null) ? 1 : 0, at);
  at = array.writeInt32BE(TEXT, at);
  if (values.length === 0) return array.subarray(0, at);
  at = array.writeInt32BE(values.length, at);
  at = array.writeInt32BE(1, at);
  array.write(joined, at + LENGTH_BYTES, isAscii ? 'latin1' : 'utf8');
  for (const value of values) {
    const length = value === null ? 0 : isAscii ? value.length : Buffer.byteLength(value);
    array.writeInt32BE(value === null ? -1 : length, at);
    at += LENGTH_BYTES + length;
  }
  return array;
}

/** An array of numbers, of whatever type; those beyond what JavaScript holds exactly as decimal digits. */
export function numbers(values: readonly (number | string | null)[]): string {
  return `{${values.map((value) => value ?? 'NULL').join()}}`;
}
