/**
 * Unique values: who holds a value that several records claim.
 *
 * No replica can refuse a value that another gives to a record of its own at the same time. So every side of every record claims its values, and the claim that was
 * made first holds, by the stamps of the fields and not by arrival. It is computed from merged states alone and never stored: replicas of equal states agree, whatever each of them
 * shows and whatever came first. A record that does not hold its value shows another in its place, until the holder gives it up or a person decides.
 */
import type { State } from './merge.ts';
import { latestField, livingSides } from './policy.ts';
import { isLater, replicaName, stampOf, valueOf, type Fields, type FieldStamp, type ResolutionMark, type Version } from './version.ts';

/** A constraint by which no two records have the same values of some fields. */
export interface UniqueKey {
  readonly name: string;
  readonly fields: readonly string[];
  /** A null is a value like any other (`NULLS NOT DISTINCT`); otherwise a record with a null claims nothing. */
  readonly nullsClaim: boolean;
  /** What a record that does not hold its value shows instead; null where none of the fields can be anything else. */
  readonly yields: Yielding | null;
}

/** One field gives way: it is null, or its text is marked with the record's key; `longest` is what its column holds, in characters. */
export interface Yielding {
  readonly field: string;
  readonly as: 'null' | 'mark';
  readonly longest: number | null;
}

/** A record's claim to a value. */
export interface Claim {
  readonly key: string;
  /** The field's stamp; of several fields, the largest. */
  readonly stamp: FieldStamp;
  /** The side that makes it; the latest of them where only several together do. */
  readonly version: Version;
}

/** The value of a constraint's fields as one text; null where none is claimed. */
export function uniqueValue({ fields, nullsClaim }: UniqueKey, values: Fields | null): string | null {
  if (values === null) return null;
  const texts = fields.map((name) => values[name] ?? null);
  return texts.includes(null) && !nullsClaim ? null : JSON.stringify(texts);
}

/**
 * All that a record claims by a constraint: what each living side has, and what they have together, field by field, since an automatic policy may show that.
 *
 * @returns The first claim to each value.
 */
export function claimsOf(unique: UniqueKey, key: string, state: State): ReadonlyMap<string, Claim> {
  const claims = new Map<string, Claim>();
  const living = livingSides(state);
  const claim = (values: Fields, stamps: readonly FieldStamp[], version: Version): void => {
    const value = uniqueValue(unique, values);
    if (value === null) return;
    const made: Claim = { key, version, stamp: stamps.reduce((a, b) => (isLater(b, a) ? b : a)) };
    const known = claims.get(value);
    if (known === undefined || isLater(known.stamp, made.stamp)) claims.set(value, made);
  };
  for (const version of living) claim(version.fields as Fields, unique.fields.map((name) => stampOf(version, name)), version);
  if (living.length > 1 && unique.fields.length > 1) {
    const found = unique.fields.map((name) => latestField(living, name));
    const values = Object.fromEntries(unique.fields.map((name, i) => [name, found[i]?.value ?? null]));
    claim(values, found.map((each) => each?.stamp ?? ['', 0]), living.at(-1) as Version);
  }
  return claims;
}

/** True where every side of a record claims the same by each of these constraints: then whatever it shows tells all that it claims. */
export function claimsAlike(uniques: readonly UniqueKey[], state: State): boolean {
  if (state.length < 2) return true;
  const living = livingSides(state);
  const [first] = living;
  if (first === undefined || living.length < state.length) return false;
  return uniques.every(({ fields }) => fields.every((name) => living.every((side) => valueOf(side.fields as Fields, name) === valueOf(first.fields as Fields, name))));
}

/** Of several records' claims to one value, the one that holds it: the least in (stamp, replica, key). */
export function holderOf(claims: Iterable<Claim>): Claim | null {
  let holder: Claim | null = null;
  for (const claim of claims) {
    if (holder === null || isLater(holder.stamp, claim.stamp) || (!isLater(claim.stamp, holder.stamp) && claim.key < holder.key)) holder = claim;
  }
  return holder;
}

/**
 * What a record shows that does not hold its value.
 *
 * @returns Null where it can show nothing in its place: no field may be anything else, or the mark does not fit the column.
 */
export function yieldValue({ yields }: UniqueKey, key: string, fields: Fields): Fields | null {
  if (yields === null) return null;
  const { field, as, longest } = yields;
  if (as === 'null') return { ...fields, [field]: null };
  const marked = `${fields[field] ?? ''}#${key}`;
  return longest !== null && [...marked].length > longest ? null : { ...fields, [field]: marked };
}

/** Which field gives way for which constraint, in a row that does not show its version as it is. */
export type Masked = Readonly<Record<string, string>>;

/**
 * The values that a row stands for: a field that gives way has the version's own, unless a write changed it.
 *
 * @param version - The values of the version behind the row.
 * @param changed - The fields that writes to the row changed since; null: all of them.
 */
export function unmasked(row: Fields, masked: Masked, version: Fields | null, changed: ReadonlySet<string> | null): Fields {
  if (version === null || changed === null) return row;
  const values: Record<string, string | null> = { ...row };
  for (const field of Object.values(masked)) {
    if (!changed.has(field) && Object.hasOwn(version, field)) values[field] = version[field] ?? null;
  }
  return values;
}

/**
 * How a unique conflict ended: by the resolution among the versions that came, otherwise by hand, by whoever wrote last.
 *
 * @param before - The two sides as they stood.
 * @param after - The versions of their records now.
 */
export function uniqueOutcome(before: readonly Version[], after: readonly Version[]): { readonly strategy: ResolutionMark[0]; readonly by: string } {
  const isNew = (stamp: FieldStamp): boolean => before.every((version) => (version.vector[stamp[0]] ?? 0) < stamp[1]);
  let last: FieldStamp = ['', 0];
  let mark: ResolutionMark | null = null;
  for (const { vector, resolution } of after) {
    if (resolution && isNew([resolution[1], resolution[2]]) && (mark === null || resolution[2] > mark[2])) mark = resolution;
    for (const [replica, stamp] of Object.entries(vector)) {
      if (isNew([replica, stamp]) && isLater([replica, stamp], last)) last = [replica, stamp];
    }
  }
  return mark === null ? { strategy: 'manual', by: replicaName(last[0]) } : { strategy: mark[0], by: replicaName(mark[1]) };
}
