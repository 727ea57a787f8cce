/** What this replica's records go back to, and the moments of members that somebody relied on, as the database keeps them. Whoever changes them holds the lock of knowledge.ts. */
import type { Member } from '../replication/knowledge.ts';
import { doubtBy, inherit, learnFloors, meet, rootsUpTo, type Floor, type Floors, type Line, type Root, type Roots, type ToldRoot } from '../replication/roots.ts';
import type { Transaction } from './database.ts';
import type { Replica } from './replica.ts';

/** What a peer told of itself and of what its records go back to. */
export interface Ancestry {
  readonly self: ToldRoot;
  /** It knew of this replica. */
  readonly knows: boolean;
  readonly roots: readonly ToldRoot[];
}

/** The form in which lines are stored and told. */
export type LineText = [incarnation: string, first: number][];

export function encodeLine(line: Line): LineText {
  return line.map(({ incarnation, first }) => [incarnation, first]);
}

/** @param incarnation - The last of the line; all that is known of it where it was told by who knows no lines. */
export function decodeLine(incarnation: string, line: LineText | undefined): Line {
  return line === undefined || line.length === 0 ? [{ incarnation, first: 0 }] : line.map(([name, first]) => ({ incarnation: name, first }));
}

export async function readFloors(tx: Pick<Transaction, 'query'>): Promise<Floors> {
  const floors = new Map<Member, Floor[]>();
  for (const [id, incarnation, began, tick, line] of await tx.query('SELECT member, incarnation, began, tick, line FROM replication.floor ORDER BY member, began, tick')) {
    const member = id as Member;
    const floor = { member, incarnation: incarnation as string, began: Number(began), tick: Number(tick), line: decodeLine(incarnation as string, JSON.parse(line as string) as LineText) };
    floors.set(member, [...(floors.get(member) ?? []), floor]);
  }
  return floors;
}

export async function readRoots(tx: Pick<Transaction, 'query'>): Promise<Roots> {
  const rows = await tx.query('SELECT member, roots FROM replication.root');
  return new Map(
    rows.map(([member, roots]) => [
      member as Member,
      (JSON.parse(roots as string) as StoredRoot[]).map((root): Root => ({ ...root, member: member as Member, line: decodeLine(root.incarnation, root.line) })),
    ]),
  );
}

/** Notes which moments of members somebody relied on. By those that it had not heard of, records here may be dead: then it notes from which place on. */
export async function raiseFloors(tx: Transaction, news: readonly Floor[]): Promise<void> {
  const known = await readFloors(tx);
  const { floors, fresh } = learnFloors(known, news);
  if (fresh.length === 0) return;
  const members = [...new Set(fresh.map(({ member }) => member))];
  await tx.query('DELETE FROM replication.floor WHERE member = ANY ($1::uuid[])', [members]);
  await tx.query('INSERT INTO replication.floor (member, incarnation, began, tick, line) SELECT * FROM json_to_recordset($1) AS x (member uuid, incarnation text, began bigint, tick bigint, line json)', [
    JSON.stringify(members.flatMap((member) => floors.get(member) ?? []).map((floor) => ({ ...floor, line: encodeLine(floor.line) }))),
  ]);
  const doubt = doubtBy(fresh, await readRoots(tx));
  if (doubt !== null) await tx.query('UPDATE replication.collection SET doubt = least(doubt, $1)', [doubt]);
}

/**
 * Notes what the records that a peer sends go back to, before it sends any.
 *
 * Where that is news, whoever was told of this replica's own before has to be told anew before anything is sent to it, but for the peer itself.
 */
export async function takeRoots(tx: Transaction, replica: Replica, { self, knows, roots }: Ancestry): Promise<void> {
  const [[place], known] = await Promise.all([tx.query('SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM replication.position'), readRoots(tx)]);
  const at = Number(place?.[0]);
  const next = inherit(meet(known, self, knows, at), roots.filter(({ member }) => member !== replica.id), at);
  if (next === known) return;
  await storeRoots(tx, [...next].filter(([member, own]) => known.get(member) !== own));
  await tx.query('UPDATE replication.collection SET root_changes = root_changes + 1');
}

/** How often what this replica's records go back to has changed. */
export async function readRootChanges(db: Pick<Transaction, 'query'>): Promise<number> {
  const [row] = await db.query('SELECT root_changes FROM replication.collection');
  return Number(row?.[0]);
}

/** Of records behind a place nothing is left, and of what they go back to neither. */
export async function cutRoots(tx: Transaction, place: number): Promise<void> {
  const left = rootsUpTo(await readRoots(tx), place);
  await tx.query('DELETE FROM replication.root');
  await storeRoots(tx, [...left]);
}

type StoredRoot = Omit<Root, 'member' | 'line'> & { readonly line: LineText };

async function storeRoots(tx: Transaction, roots: readonly (readonly [Member, readonly Root[]])[]): Promise<void> {
  if (roots.length === 0) return;
  const rows = roots.map(([member, own]) => ({ member, roots: own.map(({ incarnation, tick, line, met, at }): StoredRoot => ({ incarnation, tick, met, at, line: encodeLine(line) })) }));
  await tx.query('INSERT INTO replication.root (member, roots) SELECT member, roots FROM json_to_recordset($1) AS x (member uuid, roots json) ON CONFLICT (member) DO UPDATE SET roots = excluded.roots', [
    JSON.stringify(rows),
  ]);
}
