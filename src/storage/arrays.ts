/**
 * Arrays as parameters of a statement, for what is written or asked by the thousand: `unnest` reads them in a seventh of the time that JSON takes, and texts with quotes in them (a state is JSON) are
 * escaped neither here nor there.
 */

const TEXT = 25;
const BIGINT = 20;
const SMALLINT = 21;
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
  let at = writeHeader(array, TEXT, values.length, values.includes(null));
  if (values.length === 0) return array.subarray(0, at);
  array.write(joined, at + LENGTH_BYTES, isAscii ? 'latin1' : 'utf8');
  for (const value of values) {
    const length = value === null ? 0 : isAscii ? value.length : Buffer.byteLength(value);
    array.writeInt32BE(value === null ? -1 : length, at);
    at += LENGTH_BYTES + length;
  }
  return array;
}

/** A `bigint[]` of numbers from 0 on that JavaScript holds exactly, in the same form. */
export function bigints(values: readonly number[]): Buffer {
  return fixed(values, BIGINT, 8, (array, value, at) => {
    array.writeInt32BE(Math.floor(value / 2 ** 32), at);
    array.writeInt32BE(value | 0, at + 4);
  });
}

/** A `smallint[]`, in the same form. */
export function smallints(values: readonly number[]): Buffer {
  return fixed(values, SMALLINT, 2, (array, value, at) => array.writeInt16BE(value, at));
}

function fixed(values: readonly number[], type: number, size: number, write: (array: Buffer, value: number, at: number) => void): Buffer {
  const array = Buffer.allocUnsafe(HEADER_BYTES + values.length * (LENGTH_BYTES + size));
  let at = writeHeader(array, type, values.length, false);
  for (const value of values) {
    at = array.writeInt32BE(size, at);
    write(array, value, at);
    at += size;
  }
  return array.subarray(0, at);
}

/** Dimensions, whether there are nulls, the type of the elements; their number, and the index of the first. @returns where the elements go. */
function writeHeader(array: Buffer, type: number, count: number, hasNulls: boolean): number {
  let at = array.writeInt32BE(count === 0 ? 0 : 1, 0);
  at = array.writeInt32BE(hasNulls ? 1 : 0, at);
  at = array.writeInt32BE(type, at);
  if (count === 0) return at;
  at = array.writeInt32BE(count, at);
  return array.writeInt32BE(1, at);
}

/** An array of numbers, of whatever type; those beyond what JavaScript holds exactly as decimal digits. */
export function numbers(values: readonly (number | string | null)[]): string {
  return `{${values.map((value) => value ?? 'NULL').join()}}`;
}
