/**
 * Arrays as parameters of a statement, for what is written or asked by the thousand: `unnest` reads them in a seventh of the time that JSON takes, and texts with quotes in them (a state is JSON) are
 * escaped neither here nor there.
 */

const TEXT = 25;
const HEADER_BYTES = 20;

/** A `text[]` in PostgreSQL's binary form (`array_recv`). */
export function texts(values: readonly (string | null)[]): Buffer {
  let bytes = HEADER_BYTES;
  for (const value of values) bytes += 4 + (value === null ? 0 : Buffer.byteLength(value));
  const array = Buffer.allocUnsafe(bytes);
  // Dimensions, whether there are nulls, the type of the elements; their number, and the index of the first.
  let at = array.writeInt32BE(values.length === 0 ? 0 : 1, 0);
  at = array.writeInt32BE(values.includes(null) ? 1 : 0, at);
  at = array.writeInt32BE(TEXT, at);
  if (values.length === 0) return array.subarray(0, at);
  at = array.writeInt32BE(values.length, at);
  at = array.writeInt32BE(1, at);
  for (const value of values) {
    const written = value === null ? -1 : array.write(value, at + 4);
    array.writeInt32BE(written, at);
    at += 4 + Math.max(0, written);
  }
  return array;
}

/** An array of numbers, of whatever type; those beyond what JavaScript holds exactly as decimal digits. */
export function numbers(values: readonly (number | string | null)[]): string {
  return `{${values.map((value) => value ?? 'NULL').join()}}`;
}
