/**
 * What every version has truly seen, kept beside the model: the judge of its vectors.
 *
 * Each acknowledged write to a record is a bit; a version's past is the set of writes that it makes or that its writer had seen.
 */
import { lastWrite, vectorText, type Fields, type FieldStamp, type Vector, type Version } from '../../src/replication/version.ts';

/** A version that goes on from others. */
export interface Edit {
  readonly key: string;
  readonly version: Version;
  readonly over: readonly Version[];
  readonly changed: ReadonlySet<string>;
}

export interface Oracle {
  /** The bit of a new write to a record, which is acknowledged from now on. */
  readonly next: (key: string) => bigint;
  /** The acknowledged writes to each record. */
  readonly acknowledged: ReadonlyMap<string, bigint>;
  /** Writes that only a database which went back in time has held: nobody can give them back. */
  readonly excuse: (key: string, lost: bigint) => void;
  readonly past: (version: Version) => bigint;
  readonly pastOf: (versions: Iterable<Version>) => bigint;
  /** Every version ever made, by record. */
  readonly pool: ReadonlyMap<string, readonly Version[]>;
  readonly add: (key: string, version: Version, past: bigint) => void;
  /** Under which stamp a write was made. */
  readonly stamped: (key: string, bit: bigint, stamp: FieldStamp) => void;
  /** Of a past, the writes whose stamps lie within a vector. */
  readonly within: (key: string, past: bigint, vector: Vector) => bigint;
  /** That a version is one of local updates which changed these fields and were made over what these sides show. */
  readonly edited: (key: string, version: Version, over: readonly Version[] | null, changed: ReadonlySet<string>) => void;
  /** Those not judged yet. */
  readonly edits: Edit[];
  /** That somebody gave these values to a record. */
  readonly gave: (key: string, fields: Fields) => void;
  /** True where somebody has given this value to a field of a record. */
  readonly wasGiven: (key: string, name: string, value: string | null) => boolean;
  /** A tombstone's ghost, and when it was first made one: how many versions there were of the record. */
  readonly collect: (tombstone: Version) => Version;
  /** True where a tombstone was collected before a version was made. */
  readonly collectedBefore: (tombstone: Version, version: Version) => boolean;
}

export function createOracle(): Oracle {
  const pasts = new WeakMap<Version, bigint>();
  const pool = new Map<string, Version[]>();
  const counts = new Map<string, bigint>();
  const acknowledged = new Map<string, bigint>();
  const made = new WeakMap<Version, number>();
  const stamps = new Map<string, Map<bigint, FieldStamp>>();
  const written = new Map<string, bigint>();
  const stamped = (key: string, bit: bigint, stamp: FieldStamp): void => {
    const known = stamps.get(key) ?? new Map<bigint, FieldStamp>();
    if (!known.has(bit)) stamps.set(key, known.set(bit, stamp));
  };
  const edits: Edit[] = [];
  const given = new Set<string>();
  const collectedAt = new Map<string, number>();
  let clock = 0;
  const past = (version: Version): bigint => {
    const known = pasts.get(version);
    if (known === undefined) throw new Error(`a version that nobody wrote: ${JSON.stringify(version)}`);
    return known;
  };
  return {
    next: (key) => {
      const count = counts.get(key) ?? 0n;
      counts.set(key, count + 1n);
      acknowledged.set(key, (acknowledged.get(key) ?? 0n) | (1n << count));
      return 1n << count;
    },
    acknowledged,
    excuse: (key, lost) => void acknowledged.set(key, (acknowledged.get(key) ?? 0n) & ~lost),
    past,
    pastOf: (versions) => [...versions].reduce((all, version) => all | past(version), 0n),
    pool,
    add: (key, version, seen) => {
      pasts.set(version, seen);
      const own = seen & ~(written.get(key) ?? 0n);
      for (let bit = 1n; bit <= own; bit <<= 1n) if ((own & bit) !== 0n) stamped(key, bit, lastWrite(version.vector));
      written.set(key, seen | (written.get(key) ?? 0n));
      made.set(version, ++clock);
      const others = pool.get(key);
      if (others) others.push(version);
      else pool.set(key, [version]);
    },
    stamped,
    within: (key, all, vector) =>
      [...(stamps.get(key) ?? [])].reduce((found, [bit, [replica, stamp]]) => ((vector[replica] ?? 0) >= stamp ? found | (all & bit) : found), 0n),
    edited: (key, version, over, changed) => void (over && edits.push({ key, version, over, changed })),
    edits,
    gave: (key, fields) => Object.entries(fields).forEach(([name, value]) => given.add(JSON.stringify([key, name, value]))),
    wasGiven: (key, name, value) => given.has(JSON.stringify([key, name, value])),
    collect(tombstone) {
      const ghost = { ...tombstone, collected: true } as const;
      pasts.set(ghost, past(tombstone));
      const id = vectorText(tombstone.vector);
      if (!collectedAt.has(id)) collectedAt.set(id, ++clock);
      return ghost;
    },
    collectedBefore: (tombstone, version) => (collectedAt.get(vectorText(tombstone.vector)) ?? Infinity) < (made.get(version) ?? 0),
  };
}

/** True when one set of writes holds another. */
export function holds(all: bigint, some: bigint): boolean {
  return (all & some) === some;
}
