/**
 * Records on the wire by column: those that one write made and none has changed, which is most of what an empty replica gets. Such a record is a key, the values, and one stamp; what it has in common
 * with the others is said once.
 *
 *     columns = { "model", "writer": replica id, "fields": [field, …], "keys": [key, …], "stamps": [stamp, …], "values": [[text or null, …] of each field, …] }
 *
 * stands for these records, one a key:
 *
 *     [model, key, [{ "v": {writer: stamp}, "f": {field: text, …}, "s": {"*": [writer, stamp]} }]]
 */
import { FIELD_NAME, isReplicaId, isStamp, isText, MAX_FIELDS, MAX_MODEL_LENGTH, type WireRecord } from './wire.ts';

export interface WireColumns {
  model: string;
  writer: string;
  fields: string[];
  keys: string[];
  stamps: number[];
  /** By field, in the order of the keys. */
  values: (string | null)[][];
}

const PARTS: ReadonlySet<string> = new Set(['model', 'writer', 'fields', 'keys', 'stamps', 'values']);

/** What is wrong with columns, in words; null where they are some. */
export function columnsFault(value: unknown): string | null {
  if (typeof value !== 'object' || value === null || Array.isArray(value)) return 'are none';
  for (const part in value) if (!PARTS.has(part)) return `have more than this protocol knows: ${part}`;
  const { model, writer, fields, keys, stamps, values } = value as Record<string, unknown>;
  if (typeof model !== 'string' || model.length > MAX_MODEL_LENGTH) return 'name no model';
  if (!isReplicaId(writer)) return 'name no writer';
  if (!Array.isArray(fields) || fields.length > MAX_FIELDS || !fields.every((name) => typeof name === 'string' && FIELD_NAME.test(name))) return 'have a field whose name is none, or too many';
  if (new Set(fields).size < fields.length) return 'name a field twice';
  if (!Array.isArray(keys) || !keys.every(isText)) return 'have a key that is no text that PostgreSQL can hold';
  if (!Array.isArray(stamps) || stamps.length !== keys.length || !stamps.every(isStamp)) return 'have not a stamp for each key';
  if (!Array.isArray(values) || values.length !== fields.length) return 'have not values for each field';
  for (const column of values) {
    if (!Array.isArray(column) || column.length !== keys.length || !column.every((text) => text === null || isText(text))) return 'have not a text that PostgreSQL can hold, or null, for each key and field';
  }
  return null;
}

/** The records that columns stand for. @param which - Of these places in them alone. */
export function fromColumns({ model, writer, fields, keys, stamps, values }: WireColumns, which: Iterable<number> = keys.keys()): WireRecord[] {
  return Array.from(which, (n) => {
    const stamp = stamps[n] as number;
    const f: Record<string, string | null> = {};
    fields.forEach((name, i) => (f[name] = values[i]?.[n] ?? null));
    return [model, keys[n] as string, [{ v: { [writer]: stamp }, f, s: { '*': [writer, stamp] } }]];
  });
}
