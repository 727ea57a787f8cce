/**
 * What a replica keeps that was restored to before something that others have forgotten since: it may hold records that are deleted, and nobody can tell it any more.
 *
 * What was written since the restore is its own and stays. Everything else has to be confirmed: by a peer's feed, which is taken from the start. What no peer brings is set aside, whole, for people to
 * look at. So nothing dead comes back by itself, and nothing is lost in silence.
 */
import type { State } from './merge.ts';
import { covers, lastWrite, type ReplicaId, type Version } from './version.ts';

/** A state, parted. */
export interface Parted {
  /** What was written here since the restore, and ghosts. */
  readonly kept: State;
  readonly unconfirmed: State;
}

/** @param since - The ids of this replica since it was restored. */
export function partState(state: State, since: ReadonlySet<ReplicaId>): Parted {
  const isKept = ({ vector, collected }: Version): boolean => collected === true || since.has(writerOf(vector));
  return { kept: state.filter(isKept), unconfirmed: state.filter((version) => !isKept(version)) };
}

/** What of the versions set aside a peer has not confirmed: it neither holds them, nor has seen them and written something else. */
export function unconfirmedBy(aside: State, ...states: readonly State[]): State {
  return aside.filter(({ vector }) => !states.some((state) => state.some((version) => covers(version.vector, vector))));
}

/** The replica whose write a version is; one that was written over a row without having seen the state has an incarnation of its own, which begins with its writer's. */
function writerOf(vector: Version['vector']): ReplicaId {
  const [id] = lastWrite(vector);
  return id.replace(/x[0-9a-z]*$/, '');
}
