/**
 * What a replica shows of a state. Pure: neither choice makes a version or changes the state.
 *
 * Under `manual` a replica goes on showing its own side until a person decides. `latest` and `field-wise` are views of the whole
 * antichain, so that replicas with equal states and equal policies show equal values; the sides stay until a write covers them.
 */
import { standing, type State } from './merge.ts';
import {
  compare,
  covers,
  isLater,
  lastWrite,
  replicaName,
  stampOf,
  vectorText,
  type Fields,
  type FieldStamp,
  type ReplicaId,
  type Stamp,
  type Vector,
  type Version,
} from './version.ts';

export type Policy = 'manual' | 'latest' | 'field-wise';

/** What is shown: values, or null for a deletion and where there is nothing. */
export interface View {
  readonly fields: Fields | null;
  /** The version shown, where one is shown as it was written; null under `field-wise` with more than one side, and where there is none. */
  readonly version: Version | null;
}

/**
 * What a replica shows of a state.
 *
 * @param self - The replica's id in its present incarnation.
 * @param before - The vector of the version shown before; null where nothing was.
 */
export function show(state: State, policy: Policy, self: ReplicaId, before: Vector | null): View {
  const versions = standing(state);
  const [only] = versions;
  if (only === undefined) return { fields: null, version: null };
  if (versions.length === 1) return { fields: only.fields, version: only };
  if (policy === 'field-wise') return { fields: latestFields(versions), version: null };
  const version = policy === 'latest' ? latest(versions) : ownSide(versions, self, before);
  return { fields: version.fields, version };
}

/** The version with the largest stamp in its vector; a tie goes to the greater replica id. The state must not be empty. */
export function latest(state: State): Version {
  return state.reduce((a, b) => (isLaterVersion(b, a) ? b : a));
}

/** For each field the value with the largest stamp among the living sides; null where no side lives. An edit against a deletion stays. */
export function latestFields(state: State): Fields | null {
  const living = livingSides(state);
  if (living.length === 0) return null;
  const fields: Record<string, string | null> = {};
  for (const name of fieldNames(living)) {
    fields[name] = latestField(living, name)?.value ?? null;
  }
  return fields;
}

/** The value of a field with the largest stamp among living sides, and that stamp; undefined where none has the field. */
export function latestField(
  living: readonly Version[],
  name: string,
): { readonly value: string | null; readonly stamp: FieldStamp } | undefined {
  let found: { value: string | null; stamp: FieldStamp } | undefined;
  for (const version of living) {
    const fields = version.fields as Fields;
    if (!Object.hasOwn(fields, name)) continue;
    const stamp = stampOf(version, name);
    if (found === undefined || isLater(stamp, found.stamp)) found = { value: fields[name] ?? null, stamp };
  }
  return found;
}

/** The versions that are no deletions. */
export function livingSides(state: State): readonly Version[] {
  return state.filter((version) => version.fields !== null);
}

/** Every field that some version has. */
export function fieldNames(living: readonly Version[]): ReadonlySet<string> {
  const names = new Set<string>();
  for (const { fields } of living) for (const name in fields) names.add(name);
  return names;
}

/**
 * The side that a replica holds to: the version it showed before; when that is covered, the latest of those that cover it; where nothing
 * was shown before, the one with the largest entry of its own. So a third side that arrives never changes what is shown, and a later
 * write here never claims to have seen a side that was not shown.
 *
 * Only sides that hold all that this incarnation has written can be chosen: a vector has one entry for it, so that a write over another side would cover them unseen.
 * The side shown before is always one of them, unless an automatic policy chose it.
 */
function ownSide(state: State, self: ReplicaId, before: Vector | null): Version {
  const own = withLargest(state, (vector) => vector[self] ?? 0);
  if (before !== null) {
    const same = own.find((version) => compare(version.vector, before) === 'equal');
    if (same) return same;
    const covering = own.filter((version) => covers(version.vector, before));
    if (covering.length > 0) return latest(covering);
  }
  const name = replicaName(self);
  return latest(withLargest(own, (vector) => ownEntry(vector, name)));
}

function withLargest(state: State, entry: (vector: Vector) => Stamp): State {
  const largest = Math.max(...state.map(({ vector }) => entry(vector)));
  return state.filter(({ vector }) => entry(vector) === largest);
}

function ownEntry(vector: Vector, name: string): Stamp {
  let largest = 0;
  for (const replica in vector) {
    if (replicaName(replica) === name) largest = Math.max(largest, vector[replica] as Stamp);
  }
  return largest;
}

function isLaterVersion(a: Version, b: Version): boolean {
  const left = lastWrite(a.vector);
  const right = lastWrite(b.vector);
  if (left[0] !== right[0] || left[1] !== right[1]) return isLater(left, right);
  return vectorText(a.vector) > vectorText(b.vector);
}
