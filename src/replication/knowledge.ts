/**
 * Who has what: the ground on which tombstones are dropped.
 *
 * Each replica keeps a row for every member of the roster: "Y, at this tick, had incorporated X's feed up to there", directly or through others. Rows travel with the head of their teller's feed, and
 * count only once that feed was taken so far. So whoever holds a row of Y has incorporated Y's feed up to the moment the row was made: it has seen all that Y wrote before it knew what the row says it
 * knows. A tombstone that every row covers can be opposed by nothing unseen.
 */
import type { Checkpoint, Era, Taken } from './exchange.ts';
import type { Line } from './roots.ts';

/** The replica's id in the roster: names are given anew when a member is struck. */
export type Member = string;

/** A moment of a replica: ticks count the changes of its own row, and go back with its database. */
export interface Moment {
  readonly incarnation: string;
  /** The clock when the incarnation began, pushed beyond what peers knew of the replica then: orders its incarnations for everyone. */
  readonly began: number;
  readonly tick: number;
}

export interface Knowledge extends Moment {
  readonly member: Member;
  /** How far it has incorporated the feeds of others. */
  readonly knows: Readonly<Record<Member, Checkpoint>>;
  /** The members that it knew of, those struck left out: a tombstone is held by all only where nobody is left out. */
  readonly roster: readonly Member[];
  /** The member's incarnations up to this one. */
  readonly line: Line;
}

/** An incarnation of this replica: its ticks are `first` and those that follow. In the order they began, the present one last. */
export interface Term {
  readonly incarnation: string;
  readonly began: number;
  readonly first: number;
}

/** Rows that a peer told, and how far its feed must be taken before they count. */
export interface Hearsay {
  readonly head: Checkpoint;
  readonly rows: readonly Knowledge[];
}

/** True where `a` is the later word: every row of a newer incarnation replaces all of an older one. */
export function isNewer(a: Pick<Moment, 'began' | 'tick'>, b: Pick<Moment, 'began' | 'tick'>): boolean {
  return a.began !== b.began ? a.began > b.began : a.tick > b.tick;
}

/** True once the feed of the peer that told them was taken so far that its rows count. */
export function counts({ head }: Pick<Hearsay, 'head'>, taken: Checkpoint | null): boolean {
  if (head.position === 0) return true;
  return taken !== null && taken.incarnation === head.incarnation && taken.position >= head.position;
}

/** The rows with those of `news` that are later. */
export function learn(rows: ReadonlyMap<Member, Knowledge>, news: readonly Knowledge[]): ReadonlyMap<Member, Knowledge> {
  const learnt = new Map(rows);
  for (const row of news) {
    const known = learnt.get(row.member);
    if (known === undefined || isNewer(row, known)) learnt.set(row.member, row);
  }
  return learnt;
}

/**
 * What this replica itself has incorporated: the feeds it took, and what those it took them from had incorporated by then.
 *
 * @param self - Left out, as are members that are not in the roster (they were struck).
 * @param taken - By member, of its peers.
 * @param rows - Those that count.
 */
export function incorporated(
  self: Member,
  roster: readonly Member[],
  taken: ReadonlyMap<Member, Taken | Checkpoint>,
  rows: ReadonlyMap<Member, Knowledge>,
): Record<Member, Checkpoint> {
  const knows: Record<Member, Checkpoint> = {};
  for (const member of roster) {
    if (member === self) continue;
    const present = rows.get(member)?.incarnation;
    let best: Checkpoint | undefined = taken.get(member);
    for (const [teller, row] of rows) {
      const told = teller === self ? undefined : row.knows[member];
      if (told !== undefined && (best === undefined || isBetter(told, best, present))) best = told;
    }
    if (best !== undefined) knows[member] = { incarnation: best.incarnation, position: best.position };
  }
  return knows;
}

/** True where two rows say the same of what is known, whenever they were made. */
export function sameKnowledge(a: Pick<Knowledge, 'knows' | 'roster'>, b: Pick<Knowledge, 'knows' | 'roster'>): boolean {
  const [left, right] = [Object.keys(a.knows), Object.keys(b.knows)];
  if (left.length !== right.length || a.roster.length !== b.roster.length) return false;
  if (!a.roster.every((member) => b.roster.includes(member))) return false;
  return left.every((member) => a.knows[member]?.incarnation === b.knows[member]?.incarnation && a.knows[member]?.position === b.knows[member]?.position);
}

/**
 * The place up to which every member of the roster has incorporated this replica's feed; 0 where some row is missing.
 *
 * Places of an earlier incarnation do not count: a history that was lost gave some of them out too.
 *
 * @param struck - Those who hold nothing up, though others may not have heard of it yet.
 */
export function stablePlace(
  self: { readonly member: Member; readonly incarnation: string },
  roster: readonly Member[],
  struck: ReadonlySet<Member>,
  rows: ReadonlyMap<Member, Knowledge>,
): number {
  const members = new Set(roster);
  for (const member of roster) {
    for (const other of rows.get(member)?.roster ?? []) members.add(other);
  }
  let stable = Number.MAX_SAFE_INTEGER;
  for (const member of members) {
    if (member === self.member || struck.has(member)) continue;
    const known = rows.get(member)?.knows[self.member];
    stable = Math.min(stable, known?.incarnation === self.incarnation ? known.position : 0);
  }
  return stable;
}

/**
 * True where this replica was restored to before a moment of its own that others relied on when they dropped tombstones: it may hold what they have forgotten is deleted.
 *
 * @param answered - The latest such moment after which it has begun anew; null: none. A later one counts again: what it took since may have come from another that was restored.
 */
export function fellBehind(floor: Moment, terms: readonly Term[], answered: Pick<Moment, 'began' | 'tick'> | null): boolean {
  if (answered !== null && !isNewer(floor, answered)) return false;
  const index = terms.findIndex(({ incarnation }) => incarnation === floor.incarnation);
  if (index < 0) return true;
  const next = terms[index + 1];
  return next !== undefined && floor.tick >= next.first;
}

/**
 * The incarnations of this replica that began after the one whose history was lost, as far as that can be told: nobody can have forgotten what was written under them before this replica itself
 * had heard of it. The present one always.
 *
 * @param floor - The moment in the lost history that others relied on.
 * @param terms - This replica's own, the present one last.
 * @param eras - Its own: of an incarnation that nobody was told of there may be no term.
 */
export function begunSince(floor: Moment, terms: readonly Term[], eras: readonly Era[]): ReadonlySet<string> {
  const after = (list: readonly { readonly incarnation: string }[]): string[] => {
    const lost = list.findIndex(({ incarnation }) => incarnation === floor.incarnation);
    return lost < 0 ? [] : list.slice(lost + 1).map(({ incarnation }) => incarnation);
  };
  const later = terms.filter(({ began }, i) => i === terms.length - 1 || began > floor.began).map(({ incarnation }) => incarnation);
  return new Set([...after(terms), ...after(eras), ...later]);
}

/** Of two places in one feed, the one of the present incarnation, or the later. */
function isBetter(a: Checkpoint, b: Checkpoint, present: string | undefined): boolean {
  if (a.incarnation === b.incarnation) return a.position > b.position;
  if (b.incarnation === present) return false;
  return a.incarnation === present || a.position > b.position;
}
