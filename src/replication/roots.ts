/**
 * What a replica's records go back to: the ground on which it can rely on what others have forgotten without it.
 *
 * Whoever drops tombstones relies on a moment of every member of the roster, and on all that the member had told and taken by then. A member that goes back in time no longer stands for that: who takes its
 * feed then may get what is deleted, and who took it before may be somebody of whom it no longer knows. So each replica keeps, of each member, from which moment on its records go back to it, and hands
 * that on with them. A moment that others relied on (a floor) and a root that are not of one history, neither leading to the other, tell that records may be dead that came since the root.
 */
import type { Member, Moment, Term } from './knowledge.ts';

/** The incarnations of a replica's database, the latest last; where one begins the one before it ends. A restore begins another behind the last that the backup knew of, in place of what was lost. */
export type Line = readonly Pick<Term, 'incarnation' | 'first'>[];

/** A moment in a history: of the last incarnation of the line. */
export interface Point extends Pick<Moment, 'incarnation' | 'tick'> {
  readonly line: Line;
}

/** A moment of a member that others relied on when they dropped tombstones. */
export interface Floor extends Moment, Point {
  readonly member: Member;
}

/** A moment of a member, as it is told. */
export interface ToldRoot extends Point {
  readonly member: Member;
}

export interface Root extends ToldRoot {
  /** Since this moment the member itself knows of this replica, and whoever relies on a later one relies on this replica, too; false: records go back to it through others. */
  readonly met: boolean;
  /** The head of this replica's feed then: all that came from there lies behind. */
  readonly at: number;
}

/** Incarnations that a line tells of; a root is moved on before it is left out. */
const LINE = 64;

/** The line of a replica, from its terms. */
export function lineOf(terms: readonly Term[]): Line {
  return terms.slice(-LINE).map(({ incarnation, first }) => ({ incarnation, first }));
}

/** True where a moment is in the history of another, or is that moment. */
export function leadsTo(earlier: Point, later: Point): boolean {
  const index = later.line.findIndex(({ incarnation }) => incarnation === earlier.incarnation);
  if (index < 0) return false;
  const next = later.line[index + 1];
  return next === undefined ? earlier.tick <= later.tick : earlier.tick < next.first;
}

/** By member; of one history one each. */
export type Floors = ReadonlyMap<Member, readonly Floor[]>;
export type Roots = ReadonlyMap<Member, readonly Root[]>;

/** The floors with those of `news` that they do not lead to, and which those are. Of one history only the latest is kept. */
export function learnFloors(known: Floors, news: Iterable<Floor>): { readonly floors: Floors; readonly fresh: readonly Floor[] } {
  const floors = new Map(known);
  const fresh: Floor[] = [];
  for (const floor of news) {
    const own = floors.get(floor.member) ?? [];
    if (own.some((other) => leadsTo(floor, other))) continue;
    floors.set(floor.member, [...own.filter((other) => !leadsTo(other, floor)), floor]);
    fresh.push(floor);
  }
  return { floors: fresh.length > 0 ? floors : known, fresh };
}

/**
 * The place in this replica's feed behind which records may be dead, by what others relied on and it has not heard of before; null where none may be.
 *
 * A floor that it knew of already needs no look: whoever it took records from was told of it, and began anew before it sent anything if that had to be.
 *
 * @param roots - Those it had before.
 */
export function doubtBy(fresh: readonly Floor[], roots: Roots): number | null {
  const doubted = fresh.flatMap((floor) => {
    const own = roots.get(floor.member) ?? [];
    // The member knew of this replica, as it is now: it was relied on as well.
    if (own.some((root) => root.met && leadsTo(root, floor))) return [];
    return own.filter((root) => !leadsTo(root, floor) && !leadsTo(floor, root)).map(({ at }) => at);
  });
  return doubted.length === 0 ? null : Math.min(...doubted);
}

/** The roots once a member was met: what it told of itself, and whether it knew of this replica. The same where it was met before in the same history. */
export function meet(roots: Roots, told: ToldRoot, knows: boolean, at: number): Roots {
  const own = roots.get(told.member) ?? [];
  const last = own.find(({ met }) => met);
  const others = own.filter((root) => root !== last);
  if (last !== undefined && (last.incarnation === told.incarnation || leadsTo(last, told))) {
    const index = told.line.findIndex(({ incarnation }) => incarnation === last.incarnation);
    return index >= told.line.length - LINE / 2 ? roots : new Map(roots).set(told.member, [...others, { ...told, met: true, at: last.at }]);
  }
  // Its next word is one that knows of this replica.
  const root = { ...told, tick: knows ? told.tick : told.tick + 1, met: true, at };
  return new Map(roots).set(told.member, last === undefined ? [...others, root] : [...others, { ...last, met: false }, root]);
}

/** The roots with those that a peer told, to which its records go back. The same where they say nothing new. */
export function inherit(roots: Roots, told: readonly ToldRoot[], at: number): Roots {
  const all = new Map(roots);
  let changed = false;
  for (const root of told) {
    const own = all.get(root.member) ?? [];
    if (own.some((other) => leadsTo(root, other))) continue;
    // Of one history the later one is kept: who knew of an earlier one need not have known of all through whom records came.
    const earlier = own.filter((other) => !other.met && leadsTo(other, root));
    all.set(root.member, [...own.filter((other) => !earlier.includes(other)), { ...root, met: false, at: Math.min(at, ...earlier.map((other) => other.at)) }]);
    changed = true;
  }
  return changed ? all : roots;
}

/** The roots that are left where all that lies behind a place of this replica's feed is set aside. */
export function rootsUpTo(roots: Roots, place: number): Roots {
  return new Map([...roots].map(([member, own]) => [member, own.filter(({ at }) => at < place)] as const).filter(([, own]) => own.length > 0));
}
