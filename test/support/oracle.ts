/**
 * What every version has truly seen, kept beside the model: the judge of its vectors.
 *
 * Each acknowledged write is a bit; a version's past is the set of writes that it makes or that its writer had seen.
 */
import type { Version } from '../../src/replication/version.ts';

export interface Oracle {
  /** A new write's bit. */
  readonly next: () => bigint;
  readonly past: (version: Version) => bigint;
  readonly pastOf: (versions: Iterable<Version>) => bigint;
  /** Every version ever made, by record. */
  readonly pool: ReadonlyMap<string, readonly Version[]>;
  readonly add: (key: string, version: Version, past: bigint) => void;
}

export function createOracle(): Oracle {
  const pasts = new WeakMap<Version, bigint>();
  const pool = new Map<string, Version[]>();
  let bit = 1n;
  const past = (version: Version): bigint => {
    const known = pasts.get(version);
    if (known === undefined) throw new Error(`a version that nobody wrote: ${JSON.stringify(version)}`);
    return known;
  };
  return {
    next: () => {
      const own = bit;
      bit <<= 1n;
      return own;
    },
    past,
    pastOf: (versions) => [...versions].reduce((all, version) => all | past(version), 0n),
    pool,
    add: (key, version, seen) => {
      pasts.set(version, seen);
      const made = pool.get(key);
      if (made) made.push(version);
      else pool.set(key, [version]);
    },
  };
}

/** True when one set of writes holds another. */
export function holds(all: bigint, some: bigint): boolean {
  return (all & some) === some;
}
