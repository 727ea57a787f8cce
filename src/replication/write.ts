/**
 * Writes: the only makers of versions. A write extends what its writer saw and carries who last wrote each field.
 */
import { largestStamp, nextStamp } from './clock.ts';
import { merge, ordered, standing, type State } from './merge.ts';
import { fieldNames, latestField, livingSides, type Policy, type View } from './policy.ts';
import {
  join,
  sameFields,
  stampOf,
  type Fields,
  type FieldStamp,
  type ReplicaId,
  type ResolutionMark,
  type Stamp,
  type Strategy,
  type Vector,
  type Version,
} from './version.ts';

/** One captured write of this replica to a record. */
export interface LocalWrite {
  readonly kind: 'insert' | 'update' | 'delete';
  readonly replica: ReplicaId;
  /** The clock when it was made, in microseconds. */
  readonly clock: Stamp;
  /** The fields that an update changed. */
  readonly changed: readonly string[];
}

/**
 * A state after local writes, in the order they were made.
 *
 * All of them extend the side that was shown: its vector joins those of every version of equal values (of every version, under an
 * automatic policy), and of every ghost. While a conflict waits they extend their own side only and do not settle it.
 *
 * @param shown - What the replica showed when they were made. Where its version is not in the state (a record that waits to be shown), it is the
 *   version that the row still held, and the write becomes a side of its own.
 * @param row - The values after the last of them; null where it is a deletion. The values in between are of no consequence: nobody saw them. Of a row that was updated only the fields
 *   that changed are taken: what is in no column here is kept as it was, and what only looks written (a column's default) stays unwritten.
 * @param forgotten - The largest stamp among the tombstones that this replica has dropped: a record written anew must not be covered by the ghost that others still have of it.
 */
export function writeLocally(
  state: State,
  shown: View,
  policy: Policy,
  writes: readonly LocalWrite[],
  row: Fields | null,
  forgotten: Stamp = 0,
): State {
  if (writes.length === 0) return state;
  const base = basis(state, shown, policy);
  const ghosts = state.filter(({ collected }) => collected);
  const vector: Record<ReplicaId, Stamp> = { ...join([...base, ...ghosts].map((version) => version.vector)) };
  const { whole, changed, last } = stampWrites(writes, vector, Math.max(largestStamp(shown.version === null ? state : [...state, shown.version]), forgotten));
  const resolution = lastResolution(base);
  const under = shown.version === null ? shown.fields : shown.version.fields;
  const fields = row && completed(base, whole === null ? { ...under, ...only(row, changed.keys()) } : row);
  const version: Version = {
    vector,
    fields,
    stamps: fields === null ? {} : whole === null ? keptStamps(base, fields, last, changed) : compact(whole, changed),
    ...(resolution && { resolution }),
  };
  return merge(state, [version]);
}

/**
 * A state after local writes to a row that does not show it. They have not seen it and become a side of their own, over what the row held.
 *
 * Where the row did not show all that this replica itself had written before (there was none, or it was made anew beside the state), an entry of its own would cover that all the same: the writes are
 * made under an incarnation of their own. It is named by a stamp beyond all of the state, and not by the clock, which may show the same time again.
 *
 * @param held - The version in the row; null where there was none.
 * @param row - The values after the last write, as for `writeLocally`.
 */
export function writeBeside(state: State, held: Version | null, writes: readonly LocalWrite[], row: Fields | null, forgotten: Stamp = 0): State {
  const [first, ...rest] = writes;
  if (first === undefined) return state;
  const opening = { ...first, clock: Math.max(first.clock, largestStamp(state) + 1, held === null ? forgotten + 1 : 0) };
  const own = [opening, ...rest].map((write) => ({ ...write, replica: ownId(write.replica, held?.vector ?? {}, state, opening.clock) }));
  return merge(state, writeLocally(held === null ? [] : [held], { fields: row, version: held }, 'manual', own, row, held === null ? forgotten : 0));
}

/**
 * The version of a record that was written for the first time, once: what `writeLocally` makes of an empty state and an insert.
 *
 * @param stamp - The next one after those that were forgotten.
 */
export function firstVersion(writer: ReplicaId, stamp: Stamp, fields: Fields): Version {
  return { vector: { [writer]: stamp }, fields, stamps: { '*': [writer, stamp] } };
}

/**
 * The version of a record that has no other, after updates of it: what `writeLocally` makes of them.
 *
 * @param version - A living one, with the values after the last of them.
 */
export function writeAgain({ vector: seen, fields, stamps, resolution }: Version & { readonly fields: Fields }, writes: readonly LocalWrite[]): Version {
  const vector = { ...seen };
  const version = { vector: seen, fields, stamps };
  const { changed, last } = stampWrites(writes, vector, largestStamp([version]));
  return { vector, fields, stamps: keptStamps([version], fields, last, changed), ...(resolution && { resolution }) };
}

/**
 * A view as a version: what the row of a record goes on showing once its state cannot be shown, and what a write to that row extends.
 *
 * A field whose shown value does not carry the largest stamp among the sides has none: the write that keeps it stamps it anew, as a resolution does.
 *
 * @param behind - The sides that somebody who reads the row has seen.
 */
export function asVersion(behind: State, { fields, version }: View): Version | null {
  if (behind.length < 2) return version;
  const living = livingSides(behind);
  const stamps: Record<string, FieldStamp> = {};
  for (const name of living.length < behind.length ? [] : Object.keys(fields ?? {})) {
    const winner = latestField(living, name);
    if (winner !== undefined && winner.value === fields?.[name]) stamps[name] = winner.stamp;
  }
  return { vector: join(behind.map((side) => side.vector)), fields, stamps };
}

/** How a person settles a conflict: the values to keep (null: the deletion), and by which strategy. */
export interface Choice {
  readonly strategy: Strategy;
  readonly fields: Fields | null;
}

/**
 * A resolution: a write whose vector covers every side, and so closes the conflict wherever it arrives.
 *
 * A field whose kept value does not already carry the largest stamp among the sides is stamped anew: with its old stamp, the rejected value would
 * come back at the next field-wise resolution. An edit chosen over a deletion is stamped beyond it.
 *
 * @param now - The clock, in microseconds.
 */
export function resolve(state: State, choice: Choice, replica: ReplicaId, now: Stamp): Version {
  const stamp = nextStamp(now, largestStamp(state));
  const anew: FieldStamp = [replica, stamp];
  const { strategy } = choice;
  const fields = choice.fields && completed(state, choice.fields);
  return {
    vector: { ...join(state.map((version) => version.vector)), [replica]: stamp },
    fields,
    stamps: fields === null ? {} : keptStamps(standing(state), fields, anew, new Map()),
    resolution: [strategy, replica, stamp],
  };
}

/**
 * A side that was written without having seen what any side holds in these fields, though all else that was shown: a row was written in columns whose values, carried from elsewhere, were not in it yet.
 * Its vector stops short of whoever wrote those, so that neither covers the other; where that was this replica itself, it is written under an incarnation of its own, as in `writeBeside`.
 *
 * @param shown - What the row shows, whose fields must not be null; as for `writeLocally`.
 * @param now - The clock, in microseconds.
 */
export function writeUnseen(state: State, shown: View, policy: Policy, values: Fields, replica: ReplicaId, now: Stamp): Version {
  const base = basis(state, shown, policy);
  const stamp = nextStamp(now, largestStamp([...state, ...base]));
  const vector: Record<ReplicaId, Stamp> = { ...join(base.map((version) => version.vector)) };
  for (const name of Object.keys(values)) {
    for (const side of livingSides(base)) {
      const [writer, written] = stampOf(side, name);
      if (written === 0 || (vector[writer] ?? 0) < written) continue;
      if (written > 1) vector[writer] = written - 1;
      else delete vector[writer];
    }
  }
  const self = ownId(replica, vector, [...state, ...base], stamp);
  const under = base.length === 1 ? base[0] : asVersion(base, shown);
  const fields = { ...shown.fields, ...values };
  const stamps: Record<string, FieldStamp> = {};
  for (const name of Object.keys(fields)) {
    const known: FieldStamp = under && !Object.hasOwn(values, name) ? stampOf(under, name) : ['', 0];
    stamps[name] = known[1] > 0 ? known : [self, stamp];
  }
  return { vector: { ...vector, [self]: stamp }, fields, stamps: compactAll(stamps, fields) };
}

/** Under which id a replica writes: one of its own where `seen` lacks something that it has written to these sides. */
function ownId(replica: ReplicaId, seen: Vector, sides: State, stamp: Stamp): ReplicaId {
  const unseen = sides.some(({ vector }) => (vector[replica] ?? 0) > (seen[replica] ?? 0));
  return unseen ? `${replica}x${stamp.toString(36)}` : replica;
}

/** Gives writes their stamps, in the order they were made, beyond `largest`; the vector comes to hold them. `whole`: the last that wrote every field; `changed`: the fields that updates changed since. */
function stampWrites(
  writes: readonly LocalWrite[],
  vector: Record<ReplicaId, Stamp>,
  largest: Stamp,
): { readonly whole: FieldStamp | null; readonly changed: ReadonlyMap<string, FieldStamp>; readonly last: FieldStamp } {
  const changed = new Map<string, FieldStamp>();
  let whole: FieldStamp | null = null;
  let last: FieldStamp = ['', largest];
  for (const { kind, replica, clock, changed: names } of writes) {
    last = [replica, nextStamp(clock, last[1])];
    vector[replica] = last[1];
    if (kind === 'update') {
      for (const name of names) changed.set(name, last);
    } else {
      whole = last;
      changed.clear();
    }
  }
  return { whole, changed, last };
}

/** What a local write extends. */
function basis(state: State, shown: View, policy: Policy): readonly Version[] {
  const { version } = shown;
  if (version !== null && !state.includes(version)) return [version];
  if (policy !== 'manual' || version === null) return standing(state);
  return standing(state).filter((other) => sameFields(other.fields, version.fields));
}

/** The same values, with null for what some side holds and they do not: left out, it would come back from there. */
function completed(sides: readonly Version[], fields: Fields): Fields {
  const missing = [...fieldNames(livingSides(sides))].filter((name) => !Object.hasOwn(fields, name));
  return missing.length === 0 ? fields : { ...fields, ...Object.fromEntries(missing.map((name) => [name, null])) };
}

function only(fields: Fields, names: Iterable<string>): Fields {
  return Object.fromEntries([...names].flatMap((name) => (Object.hasOwn(fields, name) ? [[name, fields[name] ?? null]] : [])));
}

/** Who last wrote each field of a version that is made over `sides` and keeps `fields`. */
function keptStamps(
  sides: readonly Version[],
  fields: Fields,
  anew: FieldStamp,
  changed: ReadonlyMap<string, FieldStamp>,
): Record<string, FieldStamp> {
  const living = livingSides(ordered(sides));
  if (living.length === 1 && living.length === sides.length) {
    const [side] = living as [Version];
    if (Object.keys(fields).every((name) => changed.has(name) || side.fields?.[name] === fields[name])) {
      const unstamped = Object.keys(fields).filter((name) => stampOf(side, name)[1] === 0).map((name) => [name, anew] as const);
      return compactAll({ ...side.stamps, ...Object.fromEntries([...unstamped, ...changed]) }, fields);
    }
  }
  const overDeletion = living.length < sides.length;
  const stamps: Record<string, FieldStamp> = {};
  const known = fieldNames(living);
  for (const name of Object.keys(fields)) {
    const winner = known.has(name) && !overDeletion ? latestField(living, name) : undefined;
    stamps[name] = changed.get(name) ?? (winner?.value === fields[name] && winner !== undefined ? winner.stamp : anew);
  }
  return compactAll(stamps, fields);
}

function lastResolution(base: readonly Version[]): ResolutionMark | undefined {
  let last: ResolutionMark | undefined;
  for (const { resolution } of base) {
    if (resolution && (last === undefined || resolution[2] > last[2])) last = resolution;
  }
  return last;
}

/** Stamps where all fields but some share one. */
function compact(whole: FieldStamp, changed: ReadonlyMap<string, FieldStamp>): Record<string, FieldStamp> {
  return { '*': whole, ...Object.fromEntries(changed) };
}

/** The same stamps with the commonest of them as `*`, so that what is stored and sent stays short. */
function compactAll(stamps: Readonly<Record<string, FieldStamp>>, fields: Fields): Record<string, FieldStamp> {
  const whole = { fields, stamps };
  const counts: { readonly stamp: FieldStamp; count: number }[] = [];
  for (const name in fields) {
    const stamp = stampOf(whole, name);
    const seen = counts.find((each) => sameStamp(each.stamp, stamp));
    if (seen) seen.count++;
    else counts.push({ stamp, count: 1 });
  }
  const [first, ...others] = counts;
  if (first === undefined) return {};
  const { stamp: commonest } = others.reduce((a, b) => (b.count > a.count ? b : a), first);
  const compacted: Record<string, FieldStamp> = { '*': commonest };
  if (others.length === 0) return compacted;
  for (const name in fields) {
    const stamp = stampOf(whole, name);
    if (!sameStamp(stamp, commonest)) compacted[name] = stamp;
  }
  return compacted;
}

function sameStamp(a: FieldStamp, b: FieldStamp): boolean {
  return a[1] === b[1] && a[0] === b[0];
}
