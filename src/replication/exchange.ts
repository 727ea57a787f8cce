/**
 * What two replicas tell each other, decided purely: what a received state changes, what need not be sent back, and where a feed goes on.
 */
import { merge, ordered, sameState, standing, type State } from './merge.ts';
import { compare, covers, type ReplicaId, type Version } from './version.ts';

/** A record's state and where it came from. */
export interface Held {
  readonly state: State;
  /** The peer, in its incarnation, that last sent or reported exactly this state; null where none did. */
  readonly origin: ReplicaId | null;
}

/**
 * What a state becomes by another. A ghost is taken only where it covers something: all had it once, so that one who holds nothing of what it deleted has dropped it already, and were it taken up
 * again, replicas would go on forever telling each other what they have forgotten.
 *
 * @param aside - What the replica holds beside its state until a peer confirms it (see reseed.ts): a ghost of that is taken, so that its being forgotten here is relied on as elsewhere.
 */
export function take(state: State, incoming: State, faults?: (mine: Version, theirs: Version) => void, aside: State = []): State {
  if (standing(incoming) === incoming) return merge(state, incoming, faults);
  const news = incoming.filter(({ collected, vector }) => !collected || [...state, ...aside].some((mine) => covers(vector, mine.vector)));
  return merge(state, news.length === incoming.length ? incoming : news, faults);
}

/** What receiving a state did. */
export interface Received extends Held {
  /** True where the state is another than before. */
  readonly changed: boolean;
  /** True where the sender does not hold all of it, and is to be told. */
  readonly differs: boolean;
}

/**
 * Takes over what a peer sent or reported of a record.
 *
 * The mark says that the sender has exactly this state. Any merge that yields something else clears it: were it kept, a lost answer would starve the sender of what was
 * merged in.
 *
 * @param aside - As for `take`. A deletion in it that has seen what the sender still holds is no secret of a lost history: it holds here and goes to the sender.
 */
export function receive(
  held: Held,
  incoming: State,
  sender: ReplicaId,
  faults?: (mine: Version, theirs: Version) => void,
  aside: State = [],
): Received {
  const plain = receivePlain(held, incoming, sender, aside);
  if (plain !== null) return plain;
  // Another implementation may send its versions in any order, and one that another covers besides.
  const theirs = merge([], incoming);
  const upheld = aside.length === 0 ? aside : aside.filter(({ fields, vector }) => fields === null && theirs.some((other) => !other.collected && covers(vector, other.vector)));
  const state = merge(take(held.state, theirs, faults, aside), upheld);
  const changed = state !== held.state && !sameState(state, held.state);
  const differs = lacks(theirs, state);
  return { state, origin: differs ? (changed ? null : held.origin) : state.length === 0 ? null : sender, changed, differs };
}

/** What comes of one version that meets one, or covers several: most of what is received, told by a look at their vectors. Null where it is not so plain. */
function receivePlain({ state, origin }: Held, incoming: State, sender: ReplicaId, aside: State): Received | null {
  const [mine] = state;
  const [theirs] = incoming;
  if (mine === undefined || theirs === undefined || incoming.length > 1 || aside.length > 0 || theirs.collected || standing(state) !== state) return null;
  if (state.length > 1) {
    const isCovered = state.every(({ vector }) => compare(vector, theirs.vector) === 'before');
    return isCovered ? { state: incoming, origin: sender, changed: true, differs: false } : null;
  }
  switch (compare(mine.vector, theirs.vector)) {
    case 'equal':
      return null;
    case 'before':
      return { state: incoming, origin: sender, changed: true, differs: false };
    case 'after':
      return { state, origin, changed: false, differs: true };
    case 'concurrent':
      return { state: ordered([mine, theirs]), origin: null, changed: true, differs: true };
  }
}

/** True where `state`, which holds all of `theirs` that is to be held, holds more: what `theirs` would become by it is another state. */
function lacks(theirs: State, state: State): boolean {
  const unknown = state.filter((version) => !theirs.includes(version));
  if (unknown.length === 0) return false;
  // It is covered by none of theirs, or it would not be here.
  if (unknown.some(({ vector, collected }) => !collected && theirs.every((other) => compare(other.vector, vector) !== 'equal'))) return true;
  return !sameState(take(theirs, state), theirs);
}

/** True where a record need not be sent to a peer: it holds exactly this state, and says so in its present incarnation. */
export function isWithheld(held: Held, peer: ReplicaId): boolean {
  return held.origin === peer;
}

/**
 * How far a feed was taken: a place in the order in which the sender's states last changed, within one incarnation of the sender.
 * Places grow through incarnations, but a database that went back in time gives some of them out again.
 */
export interface Checkpoint {
  readonly incarnation: string;
  readonly position: number;
}

/** A checkpoint as its receiver stores it, and as the sender knows it to be stored. */
export interface Taken extends Checkpoint {
  /** The receiver's incarnation when it stored it. */
  readonly taker: string;
}

/** Where an incarnation of this replica began in its feed: every place from `first` on was given out by it or a later one. */
export interface Era {
  readonly incarnation: string;
  readonly first: number;
}

/**
 * Where the feed goes on for a peer that stored `taken`.
 *
 * A checkpoint of an earlier incarnation does not tell by itself what the peer has: if the database went back in time, the peer may have passed a record's place while
 * the record, in the history that was lost, had moved on to a place that the peer never reached. So it counts only as far as this database knows it to have been stored, and
 * only within one incarnation of either side, whose histories have no gap.
 *
 * @param eras - This replica's incarnations in the order they began, the present one last.
 * @param known - What this database last knew the peer to have stored (its own record, so that a restore takes it back too); null where nothing.
 * @returns The position after which to send, and whether the peer has taken more than this database knows to have sent: then the database went back in
 *   time, and what it lost comes back from its peers.
 */
export function resume(
  taken: Taken | null,
  eras: readonly Era[],
  known: Taken | null,
): { readonly after: number; readonly restored: boolean } {
  if (taken === null) return { after: 0, restored: false };
  const index = eras.findIndex((era) => era.incarnation === taken.incarnation);
  // An incarnation that began after the backup was taken: nothing tells how much of the feed it shares with this one.
  if (index < 0) return { after: 0, restored: true };
  const next = eras[index + 1];
  if (next === undefined) return { after: taken.position, restored: false };
  const same = known !== null && known.incarnation === taken.incarnation && known.taker === taken.taker;
  return { after: same ? Math.min(taken.position, known.position, next.first - 1) : 0, restored: taken.position >= next.first };
}

/** True when two checkpoints name the same place. */
export function sameCheckpoint(a: Checkpoint | null, b: Checkpoint | null): boolean {
  if (a === null || b === null) return a === b;
  return a.incarnation === b.incarnation && a.position === b.position;
}
