/**
 * Conflicts as people see them: the sides, what differs, and how a conflict ended. All of it is derived from the state.
 */
import { countValues, standing, type State } from './merge.ts';
import { fieldNames, latest, latestFields, livingSides } from './policy.ts';
import {
  covers,
  lastWrite,
  replicaName,
  stampOf,
  valueOf,
  type Fields,
  type FieldStamp,
  type ResolutionMark,
  type Version,
} from './version.ts';
import type { Choice } from './write.ts';

export type ConflictKind = 'UPDATE_UPDATE' | 'UPDATE_DELETE' | 'INSERT_INSERT' | 'UNIQUE';

/** One side of a conflict. */
export interface Side {
  /** The replica that wrote it, by name; where two sides come from one replica (as after a restore), the later written is `a~2`. */
  readonly label: string;
  readonly version: Version;
}

/** True where the state holds two or more values. */
export function isConflict(state: State): boolean {
  return state.length > 1 && countValues(state) > 1;
}

/** The sides of a state in the order of their writers' names, then of writing. */
export function sides(state: State): readonly Side[] {
  const written = standing(state).map((version) => ({ version, last: lastWrite(version.vector) }));
  written.sort((a, b) => {
    const [left, right] = [replicaName(a.last[0]), replicaName(b.last[0])];
    return left === right ? a.last[1] - b.last[1] : left < right ? -1 : 1;
  });
  const seen = new Map<string, number>();
  return written.map(({ version, last }) => {
    const name = replicaName(last[0]);
    const count = (seen.get(name) ?? 0) + 1;
    seen.set(name, count);
    return { label: count === 1 ? name : `${name}~${count}`, version };
  });
}

export function kindOf(state: State): ConflictKind {
  const versions = standing(state);
  if (versions.some((version) => version.fields === null)) return 'UPDATE_DELETE';
  const [first, ...rest] = versions;
  const common = first !== undefined && Object.keys(first.vector).some((replica) => rest.every((other) => Object.hasOwn(other.vector, replica)));
  return common ? 'UPDATE_UPDATE' : 'INSERT_INSERT';
}

/** The fields whose values differ between the sides; against a deletion, those that the living sides changed. */
export function differingFields(state: State): readonly string[] {
  const living = livingSides(state);
  const names = fieldNames(living);
  const differing: string[] = [];
  for (const name of names) if (isDiffering(living, name)) differing.push(name);
  if (living.length === standing(state).length) return differing;
  const changed = new Set(living.flatMap((version) => changedFields(version, state)));
  return [...names].filter((name) => changed.has(name) || differing.includes(name));
}

function isDiffering(living: readonly Version[], name: string): boolean {
  const value = valueOf((living[0] as Version).fields as Fields, name);
  for (let i = 1; i < living.length; i++) if (valueOf((living[i] as Version).fields as Fields, name) !== value) return true;
  return false;
}

/** The fields that this side wrote and that some other side had not seen. */
export function changedFields(version: Version, state: State): readonly string[] {
  if (version.fields === null) return [];
  const others = standing(state).filter((other) => other !== version);
  return Object.keys(version.fields).filter((name) => {
    const [replica, stamp] = stampOf(version, name);
    return others.some((other) => (other.vector[replica] ?? 0) < stamp);
  });
}

/** The outcome of a strategy over a state, which must not be empty. */
export function choose(state: State, strategy: 'latest' | 'field-wise'): Choice {
  return { strategy, fields: strategy === 'latest' ? latest(standing(state)).fields : latestFields(state) };
}

/** Values laid over what is shown. Over a deletion they are laid over the latest living side, since a record needs all its fields. */
export function chooseValues(state: State, shown: Fields | null, values: Fields): Choice {
  const living = livingSides(state);
  const under = shown ?? (living.length > 0 ? latest(living).fields : null);
  return { strategy: 'manual', fields: { ...under, ...values } };
}

/**
 * How a conflict ended, told from the state that replaced its sides.
 *
 * @returns The strategy and the replica's name. Where a resolution covers the sides and none of them had seen it, it is told by its mark; otherwise
 *   (the sides came to hold one value, or a write under an automatic policy covered them) it counts as by hand, by whoever wrote last.
 */
export function outcome(sidesBefore: State, after: State): { readonly strategy: ResolutionMark[0]; readonly by: string } {
  const marks = after.flatMap(({ resolution }) => (resolution ? [resolution] : []));
  const fresh = marks.filter(([, replica, stamp]) => sidesBefore.every((side) => (side.vector[replica] ?? 0) < stamp));
  const mark = fresh.length > 0 ? fresh.reduce((a, b) => (b[2] > a[2] ? b : a)) : undefined;
  if (mark && after.some((version) => sidesBefore.every((side) => covers(version.vector, side.vector)))) {
    return { strategy: mark[0], by: replicaName(mark[1]) };
  }
  const last: FieldStamp = after.length > 0 ? lastWrite(latest(after).vector) : ['', 0];
  return { strategy: 'manual', by: replicaName(last[0]) };
}
