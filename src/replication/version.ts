/**
 * Versions of a record and the order between them.
 *
 * A version is one written value of a record together with everything its writer had seen. Versions are ordered by their version
 * vectors alone (Parker et al., "Detection of Mutual Inconsistency in Distributed Systems", 1983): no clock decides what is a conflict.
 *
 * - replica id: a replica's name and its incarnation, `a.9f3c01d2`. A database that went back in time writes under a new incarnation.
 * - stamp: a hybrid logical clock in one integer (see clock.ts), larger than every stamp its writer had seen of the record.
 * - tombstone: a version whose fields are null.
 */

export type ReplicaId = string;

/** Microseconds since 1970, pushed forward where needed; always a safe integer. */
export type Stamp = number;

/** What a version has seen: for each replica id the largest stamp, the version's own among them. */
export type Vector = Readonly<Record<ReplicaId, Stamp>>;

/**
 * Values by field name, each in PostgreSQL's text form, which is exact for every type; the key is not among them.
 *
 * A field may be missing: nobody who knew it has written it since the record was created. Which fields there are is not the same on every replica while a schema changes, so a
 * version carries those that were written, whoever reads it, and whatever that reader knows.
 */
export type Fields = Readonly<Record<string, string | null>>;

/** Who wrote a value, and when. */
export type FieldStamp = readonly [replica: ReplicaId, stamp: Stamp];

export type Strategy = 'latest' | 'field-wise' | 'manual';

/** Which resolution lies in a version's past: how, by which replica, and the stamp it was written with. */
export type ResolutionMark = readonly [strategy: Strategy, replica: ReplicaId, stamp: Stamp];

export interface Version {
  readonly vector: Vector;
  /** Null is a tombstone. */
  readonly fields: Fields | null;
  /** Who last wrote each field; `*` stands for every field of this version that is not named. A tombstone has none. */
  readonly stamps: Readonly<Record<string, FieldStamp>>;
  /** The last resolution that this version builds on, so that every replica's log can tell how a conflict ended. */
  readonly resolution?: ResolutionMark;
  /**
   * A ghost: a tombstone that every replica is known to hold. It covers what it covers until all are known to have forgotten what it deleted, but is no side and no value any more: whoever writes
   * the record anew conflicts with nothing.
   */
  readonly collected?: true;
}

/** How one version stands to another. */
export type Order = 'equal' | 'before' | 'after' | 'concurrent';

/** The order of two vectors; `before` means that `a` is covered by `b`. */
export function compare(a: Vector, b: Vector): Order {
  const aCovered = covers(b, a);
  const bCovered = covers(a, b);
  if (aCovered) return bCovered ? 'equal' : 'before';
  return bCovered ? 'after' : 'concurrent';
}

/** True when whoever holds `a` has seen all that `b` has seen (equal vectors cover each other). */
export function covers(a: Vector, b: Vector): boolean {
  for (const replica in b) {
    if ((a[replica] ?? 0) < (b[replica] as Stamp)) return false;
  }
  return true;
}

/** The least vector that covers all of them. */
export function join(vectors: Iterable<Vector>): Vector {
  const joined: Record<ReplicaId, Stamp> = {};
  for (const vector of vectors) {
    for (const replica in vector) {
      joined[replica] = Math.max(joined[replica] ?? 0, vector[replica] as Stamp);
    }
  }
  return joined;
}

/** The largest stamp of a vector and whose it is: the version's own write. A tie goes to the greater replica id. */
export function lastWrite(vector: Vector): FieldStamp {
  let last: FieldStamp = ['', 0];
  for (const replica in vector) {
    const entry: FieldStamp = [replica, vector[replica] as Stamp];
    if (isLater(entry, last)) last = entry;
  }
  return last;
}

/** True when write `a` comes after write `b` in the order of (stamp, replica id) that every replica agrees on. */
export function isLater(a: FieldStamp, b: FieldStamp): boolean {
  return a[1] !== b[1] ? a[1] > b[1] : a[0] > b[0];
}

/** Who last wrote a field of a version; before everyone where it is missing: `*` must not claim what its writer did not know. */
export function stampOf({ fields, stamps }: Pick<Version, 'fields' | 'stamps'>, field: string): FieldStamp {
  if (Object.hasOwn(stamps, field)) return stamps[field] as FieldStamp;
  return (fields !== null && Object.hasOwn(fields, field) ? stamps['*'] : undefined) ?? ['', 0];
}

/**
 * True when two versions hold the same values, or are both deletions. A missing field is null: the one meaning that needs no knowledge of the schema, so that every replica
 * sees the same values as equal.
 */
export function sameFields(a: Fields | null, b: Fields | null): boolean {
  if (a === null || b === null) return a === b;
  return isWithin(a, b) && isWithin(b, a);
}

function isWithin(some: Fields, others: Fields): boolean {
  for (const name in some) if (some[name] !== valueOf(others, name)) return false;
  return true;
}

/** A field's value; null where it is missing. */
export function valueOf(fields: Fields, name: string): string | null {
  return Object.hasOwn(fields, name) ? (fields[name] ?? null) : null;
}

/** A vector as text, one for equal vectors whatever the order of their keys. */
export function vectorText(vector: Vector): string {
  let text = '';
  let last = '';
  for (const replica in vector) {
    if (replica < last) return sortedText(vector);
    text += `${replica}:${vector[replica]};`;
    last = replica;
  }
  return text;
}

function sortedText(vector: Vector): string {
  return Object.keys(vector).toSorted().map((replica) => `${replica}:${vector[replica]};`).join('');
}

/** The name in a replica id: `a` of `a.9f3c01d2`. */
export function replicaName(id: ReplicaId): string {
  const dot = id.indexOf('.');
  return dot < 0 ? id : id.slice(0, dot);
}

/** A vector as the public API shows it: by name, incarnations folded, the largest stamp of each. */
export function foldByName(vector: Vector): Readonly<Record<string, Stamp>> {
  const folded: Record<string, Stamp> = {};
  for (const replica in vector) {
    const name = replicaName(replica);
    folded[name] = Math.max(folded[name] ?? 0, vector[replica] as Stamp);
  }
  return folded;
}
