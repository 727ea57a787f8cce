/**
 * Who has what, as the database keeps it. Whoever changes it holds the row of `replication.collection`, not the state lock: a handshake must not wait for a batch.
 */
import type { Checkpoint } from '../replication/exchange.ts';
import {
  counts,
  fellBehind,
  incorporated,
  learn,
  sameKnowledge,
  type Knowledge,
  type Member,
  type Moment,
  type Term,
} from '../replication/knowledge.ts';
import type { CollectionNews } from '../replication/protocol.ts';
import type { Transaction } from './database.ts';
import type { Replica } from './replica.ts';

/** What a replica knows once its own row is up to date. */
export interface Known {
  readonly incarnation: string;
  readonly generation: number;
  /** Who is in the roster and not struck, itself included. */
  readonly roster: readonly Member[];
  readonly struck: ReadonlySet<Member>;
  readonly rows: ReadonlyMap<Member, Knowledge>;
}

/** What this replica tells its peers in a handshake. Its captured writes need not be folded: whatever a row counts on is in the feed. */
export async function tellKnowledge(replica: Replica): Promise<CollectionNews> {
  const { incarnation, generation, rows } = await replica.db.transaction((tx) => refreshKnowledge(tx, replica));
  // Read after the rows: all that they count on has its place by now.
  const [[head], floors] = await Promise.all([
    replica.db.query('SELECT coalesce(max(position), 0) FROM replication.record WHERE model = ANY ($1)', [[...replica.tables.keys()]]),
    replica.db.query('SELECT member, incarnation, began, tick FROM replication.floor ORDER BY member'),
  ]);
  return {
    generation,
    head: { incarnation, position: Number(head?.[0]) },
    rows: [...rows.values()].map(({ knows, roster, ...row }) => ({ ...row, knows: { ...knows }, roster: [...roster] })),
    floors: floors.map(([member, began, first, tick]) => ({ member: member as string, incarnation: began as string, began: Number(first), tick: Number(tick) })),
  };
}

/**
 * Takes in what a peer told.
 *
 * @returns False where this replica was restored to before what others have forgotten since: it may hold what they no longer know to be deleted.
 */
export async function hearKnowledge(replica: Replica, peer: string, { head, rows, floors }: CollectionNews): Promise<boolean> {
  return replica.db.transaction(async (tx) => {
    // Those of an earlier handshake that count by now, before they are replaced.
    await refreshKnowledge(tx, replica);
    await tx.query(
      `INSERT INTO replication.hearsay (peer, incarnation, position, words) VALUES ($1, $2, $3, $4)
       ON CONFLICT (peer) DO UPDATE SET incarnation = excluded.incarnation, position = excluded.position, words = excluded.words`,
      [peer, head.incarnation, head.position, JSON.stringify(rows)],
    );
    await raiseFloors(tx, floors);
    const own = rows.find(({ member }) => member === replica.id);
    if (own) await outdo(tx, replica, own);
    return (await fallenBehind(tx, replica)) === null;
  });
}

/** The moment of this replica that others relied on when they dropped tombstones, where it was restored to before that and has not taken everything anew since; null otherwise. */
export async function fallenBehind(tx: Transaction, replica: Replica): Promise<Moment | null> {
  const [floor] = await tx.query('SELECT f.incarnation, f.began, f.tick, c.answered_began, c.answered_tick FROM replication.floor f, replication.collection c WHERE f.member = $1', [replica.id]);
  if (floor === undefined) return null;
  const [incarnation, began, tick, answeredBegan, answeredTick] = floor;
  const moment = { incarnation: incarnation as string, began: Number(began), tick: Number(tick) };
  return fellBehind(moment, await readTerms(tx), { began: Number(answeredBegan), tick: Number(answeredTick) }) ? moment : null;
}

/**
 * Begins a term in which this replica has taken nothing of anybody yet.
 *
 * @param term - Its incarnation; the lost moment that it must come after; the clock; and the largest stamp among what is set aside, which what is written anew must be beyond.
 */
export async function beginTerm(
  tx: Transaction,
  replica: Replica,
  { incarnation, after, clock, largest }: { readonly incarnation: string; readonly after: Moment; readonly clock: number; readonly largest: number },
): Promise<void> {
  const began = Math.max(clock, after.began + 1, ((await readTerms(tx)).at(-1)?.began ?? 0) + 1);
  const [row] = await tx.query(
    `UPDATE replication.collection SET tick = tick + 1, generation = generation + 1, forgotten = greatest(forgotten, $1), answered_began = $2, answered_tick = $3, reseeding = true
     RETURNING tick`,
    [largest, after.began, after.tick],
  );
  const tick = Number(row?.[0]);
  await tx.query('INSERT INTO replication.term (incarnation, began, first) VALUES ($1, $2, $3)', [incarnation, began, tick]);
  await tx.query('DELETE FROM replication.knowledge WHERE member <> $1', [replica.id]);
  const members = await tx.query('SELECT id FROM replication.roster WHERE NOT struck ORDER BY id');
  await storeRows(tx, [{ member: replica.id, incarnation, began, tick, knows: {}, roster: members.map(([id]) => id as string) }]);
}

/** Brings this replica's own row up to date, and counts those rows of others whose teller's feed was taken far enough. */
export async function refreshKnowledge(tx: Transaction, replica: Replica): Promise<Known> {
  const [state] = await tx.query('SELECT tick, generation, replication.incarnation(), replication.clock() FROM replication.collection FOR UPDATE');
  const [tick, generation, incarnation, clock] = state as [string, string, string, string];
  const members = await tx.query('SELECT id, struck FROM replication.roster ORDER BY id');
  const roster = members.filter(([, struck]) => struck !== 't').map(([id]) => id as string);
  const struck = new Set(members.filter(([, gone]) => gone === 't').map(([id]) => id as string));
  const taken = await readTaken(tx);
  const rows = await countHearsay(tx, replica, taken.byName);
  const known = { incarnation, generation: Number(generation), roster, struck, rows };

  const terms = await readTerms(tx);
  const begins = terms.at(-1)?.incarnation !== incarnation;
  // A deletion that waits to be shown has not been seen by those who write to its row meanwhile. Where there is no row, only a write over all sides can make it forgotten, and that counts when it comes.
  const [unseen] = await tx.query('SELECT FROM replication.record WHERE waiting IS NOT NULL AND dead AND held IS NOT NULL LIMIT 1');
  if (unseen && !begins) return known;
  const present = { roster, knows: incorporated(replica.id, roster, taken.byMember, rows) };
  const last = rows.get(replica.id);
  if (!begins && last !== undefined && sameKnowledge(last, present)) return known;
  const next = Number(tick) + 1;
  const began = begins ? Math.max(Number(clock), (terms.at(-1)?.began ?? 0) + 1) : (terms.at(-1) as Term).began;
  if (begins) await tx.query('INSERT INTO replication.term (incarnation, began, first) VALUES ($1, $2, $3)', [incarnation, began, next]);
  const row: Knowledge = { member: replica.id, incarnation, began, tick: next, ...(unseen ? { roster, knows: {} } : present) };
  await tx.query('UPDATE replication.collection SET tick = $1', [next]);
  await storeRows(tx, [row]);
  return { ...known, rows: new Map(rows).set(replica.id, row) };
}

/** Notes on which moments of others a collection relied. */
export async function raiseFloors(tx: Transaction, floors: readonly (Moment & { readonly member: Member })[]): Promise<void> {
  if (floors.length === 0) return;
  await tx.query(
    `INSERT INTO replication.floor AS floor (member, incarnation, began, tick)
     SELECT member, incarnation, began, tick FROM json_to_recordset($1) AS x (member uuid, incarnation text, began bigint, tick bigint)
     ON CONFLICT (member) DO UPDATE SET incarnation = excluded.incarnation, began = excluded.began, tick = excluded.tick
       WHERE (excluded.began, excluded.tick) > (floor.began, floor.tick)`,
    [JSON.stringify(floors)],
  );
}

/** How often this replica has forgotten records. */
export async function readGeneration(tx: Pick<Transaction, 'query'>): Promise<number> {
  const [row] = await tx.query('SELECT generation FROM replication.collection');
  return Number(row?.[0]);
}

/** This replica's word must replace what it said in a history that was lost. */
async function outdo(tx: Transaction, replica: Replica, told: Moment): Promise<void> {
  const term = (await readTerms(tx)).at(-1) as Term;
  if (told.incarnation === term.incarnation || told.began < term.began) return;
  const began = told.began + 1;
  await tx.query('UPDATE replication.term SET began = $2 WHERE incarnation = $1', [term.incarnation, began]);
  const [row] = await tx.query('SELECT word FROM replication.knowledge WHERE member = $1', [replica.id]);
  const [tick] = await tx.query('UPDATE replication.collection SET tick = tick + 1 RETURNING tick');
  await storeRows(tx, [{ ...(JSON.parse(row?.[0] as string) as Omit<Knowledge, 'member'>), member: replica.id, began, tick: Number(tick?.[0]) }]);
}

/** This replica's terms, the present one last. */
export async function readTerms(tx: Transaction): Promise<Term[]> {
  const rows = await tx.query('SELECT incarnation, began, first FROM replication.term ORDER BY ordinal');
  return rows.map(([incarnation, began, first]) => ({ incarnation: incarnation as string, began: Number(began), first: Number(first) }));
}

/** How far the feeds of peers were taken. */
async function readTaken(tx: Transaction): Promise<{ readonly byName: ReadonlyMap<string, Checkpoint>; readonly byMember: ReadonlyMap<Member, Checkpoint> }> {
  const rows = await tx.query(
    `SELECT p.name, r.id, p.taken_incarnation, p.taken_position FROM replication.peer p JOIN replication.roster r ON r.name = p.name AND NOT r.struck
      WHERE p.taken_incarnation IS NOT NULL`,
  );
  const taken = rows.map(([name, id, incarnation, position]) => ({ name: name as string, id: id as string, at: { incarnation: incarnation as string, position: Number(position) } }));
  return { byName: new Map(taken.map(({ name, at }) => [name, at])), byMember: new Map(taken.map(({ id, at }) => [id, at])) };
}

async function countHearsay(tx: Transaction, replica: Replica, taken: ReadonlyMap<string, Checkpoint>): Promise<ReadonlyMap<Member, Knowledge>> {
  const stored = await tx.query('SELECT member, word FROM replication.knowledge');
  let rows: ReadonlyMap<Member, Knowledge> = new Map(
    stored.map(([member, word]) => [member as string, { ...(JSON.parse(word as string) as Omit<Knowledge, 'member'>), member: member as string }]),
  );
  const before = rows;
  for (const [peer, incarnation, position, words] of await tx.query('SELECT peer, incarnation, position, words FROM replication.hearsay')) {
    const head = { incarnation: incarnation as string, position: Number(position) };
    if (!counts({ head }, taken.get(peer as string) ?? null)) continue;
    rows = learn(rows, (JSON.parse(words as string) as Knowledge[]).filter(({ member }) => member !== replica.id));
    await tx.query('DELETE FROM replication.hearsay WHERE peer = $1', [peer]);
  }
  await storeRows(tx, [...rows.values()].filter((row) => before.get(row.member) !== row));
  return rows;
}

async function storeRows(tx: Transaction, rows: readonly Knowledge[]): Promise<void> {
  if (rows.length === 0) return;
  await tx.query(
    `INSERT INTO replication.knowledge (member, word) SELECT member, word FROM json_to_recordset($1) AS x (member uuid, word json)
     ON CONFLICT (member) DO UPDATE SET word = excluded.word`,
    [JSON.stringify(rows.map(({ member, ...word }) => ({ member, word })))],
  );
}
