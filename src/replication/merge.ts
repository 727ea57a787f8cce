/**
 * The state of a record and the merge of two states.
 *
 * A state is an antichain: no version in it covers another. Merging is the union of the versions, less those that another one covers,
 * and nothing else: no version is ever made by merging, only by writing. So it is commutative, associative and idempotent by construction.
 */
import { compare, sameFields, vectorText, type ReplicaId, type Stamp, type Vector, type Version } from './version.ts';

/** An antichain of versions in the order of their vectors' text, so that equal states are equal lists. Empty: never heard of. */
export type State = readonly Version[];

/**
 * What two states hold together.
 *
 * Equal vectors with unequal values can only come from a fault (a version is written once). Both are kept, since dropping either would lose
 * a value in silence, and `faults` tells of them. Where one only lacks fields of the other (its replica's column was dropped), they complete each other.
 */
export function merge(a: State, b: State, faults?: (mine: Version, theirs: Version) => void): State {
  if (b.length === 0) return a;
  if (a.length === 0 && b.length === 1) return b;
  const kept: Version[] = [...a];
  let changed = false;
  for (const version of b) {
    if (absorb(kept, version, faults)) changed = true;
  }
  return changed ? ordered(kept) : a;
}

/** Puts versions into the order of a state. They must be an antichain already. */
export function ordered(versions: readonly Version[]): State {
  const [first, second] = versions;
  if (first === undefined || second === undefined) return versions;
  if (versions.length === 2) return byVector(first, second) > 0 ? [second, first] : versions;
  return versions.toSorted(byVector);
}

/** True when two states hold the same versions. */
export function sameState(a: State, b: State): boolean {
  if (a.length !== b.length) return false;
  return a.every((version, i) => {
    const other = b[i] as Version;
    return compare(version.vector, other.vector) === 'equal' && sameFields(version.fields, other.fields) && version.collected === other.collected;
  });
}

/** The versions that count: all but ghosts. */
export function standing(state: State): State {
  for (const { collected } of state) if (collected) return state.filter((version) => !version.collected);
  return state;
}

/** How many different values a state holds, deletion being one: two or more are a conflict. */
export function countValues(state: State): number {
  const values: Version[] = [];
  for (const version of standing(state)) {
    if (!values.some((value) => sameFields(value.fields, version.fields))) values.push(version);
  }
  return values.length;
}

/**
 * A number that is equal for equal states, for digests: 53 bits over the versions' vectors, which name what was written once and for all. Ghosts leave no trace in it: replicas forget them at
 * different times.
 * Two rounds of multiply and xor by 32 bits (after MurmurHash's finaliser); it resists accidents, not malice.
 */
export function stateHash(key: string, state: State): number {
  const versions = standing(state);
  let text = `${key}|`;
  for (let i = 0; i < versions.length; i++) text += i === 0 ? vectorText((versions[i] as Version).vector) : `|${vectorText((versions[i] as Version).vector)}`;
  return hashText(text, versions.length);
}

/** The same of a record that one write made and none has changed. */
export function writtenHash(key: string, writer: ReplicaId, stamp: Stamp | string): number {
  return hashText(`${key}|${writer}:${stamp};`, 1);
}

function hashText(text: string, versions: number): number {
  let high = 0x9e3779b9 ^ versions;
  let low = 0x85ebca6b;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    high = Math.imul(high ^ code, 0x9e3779b1);
    low = Math.imul(low ^ code, 0x5f356495);
  }
  high = Math.imul(high ^ (high >>> 16), 0x85ebca6b) ^ Math.imul(low ^ (low >>> 13), 0xc2b2ae35);
  low = Math.imul(low ^ (low >>> 16), 0x85ebca6b) ^ Math.imul(high ^ (high >>> 13), 0xc2b2ae35);
  return (high & 0x1fffff) * 0x100000000 + (low >>> 0);
}

/** Takes a version into an antichain; false where it was covered already. */
function absorb(kept: Version[], version: Version, faults?: (mine: Version, theirs: Version) => void): boolean {
  for (let i = kept.length - 1; i >= 0; i--) {
    const mine = kept[i] as Version;
    switch (compare(mine.vector, version.vector)) {
      case 'equal':
        if (sameFields(mine.fields, version.fields)) {
          if (mine.collected || !version.collected) return false;
          kept.splice(i, 1);
          break;
        }
        if (complete(mine, version)) {
          kept[i] = { ...mine, fields: { ...mine.fields, ...version.fields } };
          return true;
        }
        faults?.(mine, version);
        break;
      case 'after':
        return false;
      case 'before':
        kept.splice(i, 1);
        break;
      case 'concurrent':
        break;
    }
  }
  kept.push(version);
  return true;
}

/** True where two copies of one version differ only in that some fields are missing in either. */
function complete({ fields: a }: Version, { fields: b }: Version): boolean {
  if (a === null || b === null) return false;
  return Object.keys(a).every((name) => !Object.hasOwn(b, name) || a[name] === b[name]);
}

/** In the order of their vectors' text. */
function byVector(a: Version, b: Version): number {
  const order = byFirstStamp(a.vector, b.vector);
  if (order !== 0) return order;
  const left = vectorText(a.vector);
  const right = vectorText(b.vector);
  if (left !== right) return left < right ? -1 : 1;
  // Only after a fault: an order that does not depend on who is asked.
  const leftFields = JSON.stringify(sortedEntries(a));
  const rightFields = JSON.stringify(sortedEntries(b));
  return leftFields < rightFields ? -1 : leftFields > rightFields ? 1 : 0;
}

/** The order of two vectors' texts where their first stamps tell it: as numbers, since those are of equal length, as all of these centuries are. 0 where it takes the texts. */
function byFirstStamp(a: Vector, b: Vector): number {
  const first = firstOf(a);
  if (first === '' || first !== firstOf(b)) return 0;
  const left = a[first] as Stamp;
  const right = b[first] as Stamp;
  return left === right || left < SIXTEEN_DIGITS || right < SIXTEEN_DIGITS ? 0 : left - right;
}

/** From 2001 on; the next length is that of the year 2286, which no stamp reaches (see wire.ts). */
const SIXTEEN_DIGITS = 1_000_000_000_000_000;

function firstOf(vector: Vector): ReplicaId {
  let first = '';
  for (const replica in vector) if (first === '' || replica < first) first = replica;
  return first;
}

function sortedEntries(version: Version): unknown {
  return version.fields === null ? null : Object.entries(version.fields).toSorted(([a], [b]) => (a < b ? -1 : 1));
}
