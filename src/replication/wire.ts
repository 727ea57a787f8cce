/**
 * Records on the wire: how a version is abbreviated, and what a peer's word is checked for before anything is done with it.
 *
 *     version = { "v": {replica id: stamp}, "f": {field: text} | null, "s": {field or "*": [replica id, stamp]}, "r"?: [strategy, replica id, stamp], "c"?: true }
 *     record  = [model, key, [version, …]]
 *
 * Checked by hand, not by a schema: they are the bulk of a batch, and with zod a receiver spent 51 µs a record in Node, so 38 (docs/performance.md).
 */
import type { Version } from './version.ts';

export interface WireVersion {
  v: Record<string, number>;
  f: Record<string, string | null> | null;
  s: Record<string, [replica: string, stamp: number]>;
  r?: [strategy: 'latest' | 'field-wise' | 'manual', replica: string, stamp: number];
  c?: true;
}

export type WireRecord = [model: string, key: string, versions: WireVersion[]];

/** Up to the year 2223: the clock of a replica may be wrong by any amount, and the next stamp must still be a safe integer. */
const MAX_STAMP = 8_000_000_000_000_000;
/** A replica keeps and passes on fields that it does not know, within what a table of PostgreSQL can hold. */
export const MAX_FIELDS = 1600;
const MAX_VERSIONS = 1000;
export const MAX_MODEL_LENGTH = 63;

const REPLICA_ID = /^[A-Za-z0-9_]{1,32}\.[0-9a-z]{1,24}$/;
/** As the Prisma schema writes a field: none that an object of JavaScript is born with a meaning for, such as `__proto__`. */
export const FIELD_NAME = /^[A-Za-z][A-Za-z0-9_]{0,62}$/;
const STRATEGIES: ReadonlySet<unknown> = new Set(['latest', 'field-wise', 'manual']);
const PARTS: ReadonlySet<string> = new Set(['v', 'f', 's', 'r', 'c']);

export function toWire({ vector, fields, stamps, resolution, collected }: Version): WireVersion {
  const version: WireVersion = { v: vector, f: fields, s: stamps as WireVersion['s'] };
  if (resolution) version.r = resolution as NonNullable<WireVersion['r']>;
  if (collected) version.c = collected;
  return version;
}

export function fromWire({ v, f, s, r, c }: WireVersion): Version {
  if (!r && !c) return { vector: v, fields: f, stamps: s };
  return { vector: v, fields: f, stamps: s, ...(r && { resolution: r }), ...(c && { collected: c }) };
}

/** True for a text that PostgreSQL can hold. */
export function isText(value: unknown): value is string {
  return typeof value === 'string' && !value.includes('\0') && value.isWellFormed();
}

/** What is wrong with a record, in words; null where it is one. */
export function recordFault(value: unknown): string | null {
  if (!Array.isArray(value) || value.length !== 3) return 'is no [model, key, versions]';
  const [model, key, versions] = value as unknown[];
  if (typeof model !== 'string' || model.length > MAX_MODEL_LENGTH) return 'names no model';
  if (!isText(key)) return 'has a key that is no text that PostgreSQL can hold';
  if (!Array.isArray(versions) || versions.length === 0 || versions.length > MAX_VERSIONS) return `has not 1 to ${MAX_VERSIONS} versions`;
  for (const version of versions) {
    const fault = versionFault(version);
    if (fault !== null) return `has a version ${fault}`;
  }
  return null;
}

function versionFault(value: unknown): string | null {
  if (!isObject(value)) return 'that is none';
  for (const part in value) if (!PARTS.has(part)) return `with more than this protocol knows: ${part}`;
  const { v, f, s, r, c } = value;
  if (!isObject(v)) return 'without a vector';
  let entries = 0;
  for (const replica in v) {
    if (!isReplicaId(replica) || !isStamp(v[replica])) return 'whose vector has an entry that is none';
    entries++;
  }
  if (entries === 0) return 'whose vector is empty';
  if (f !== null) {
    if (!isObject(f)) return 'without fields';
    let fields = 0;
    for (const name in f) {
      const text = f[name];
      if (!FIELD_NAME.test(name) || (text !== null && !isText(text))) return 'with a field that is no text that PostgreSQL can hold, or whose name is none';
      fields++;
    }
    if (fields > MAX_FIELDS) return 'with too many fields';
  }
  if (!isObject(s)) return 'without stamps';
  for (const name in s) {
    // `*`: every field that is not named.
    if ((name !== '*' && !FIELD_NAME.test(name)) || !isFieldStamp(s[name], 0)) return 'with a stamp of a field that is none';
  }
  if (r !== undefined && !(Array.isArray(r) && STRATEGIES.has(r[0]) && isFieldStamp(r, 1))) return 'with a resolution that is none';
  if (c !== undefined && (c !== true || f !== null)) return 'that is collected and no deletion';
  return null;
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === 'object' && value !== null && !Array.isArray(value);
}

export function isReplicaId(value: unknown): value is string {
  return typeof value === 'string' && REPLICA_ID.test(value);
}

export function isStamp(value: unknown): value is number {
  return Number.isInteger(value) && (value as number) >= 1 && (value as number) <= MAX_STAMP;
}

/** A replica id and its stamp, from a place in a list on, to its end. */
function isFieldStamp(value: unknown, from: number): boolean {
  return Array.isArray(value) && value.length === from + 2 && isReplicaId(value[from]) && isStamp(value[from + 1]);
}
