/**
 * Who has what, as the database keeps it. Whoever changes it holds a lock of its own (`lockKnowledge`), not the state lock: a handshake must not wait for a batch. Who needs both takes the
 * state lock first.
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
import type { CollectionNews, HistoryNews } from '../replication/protocol.ts';
import { lineOf, type ToldRoot } from '../replication/roots.ts';
import type { Row, Transaction } from './database.ts';
import type { Replica } from './replica.ts';
import { cutRoots, decodeLine, encodeLine, raiseFloors, readFloors, readRootChanges, readRoots, takeRoots, type LineText } from './roots.ts';

/** What a replica knows once its own row is up to date. */
export interface Known {
  readonly incarnation: string;
  readonly generation: number;
  /** Who is in the roster and not struck, itself included. */
  readonly roster: readonly Member[];
  readonly struck: ReadonlySet<Member>;
  readonly rows: ReadonlyMap<Member, Knowledge>;
}

/** What is told of this in a handshake. */
export interface Told {
  readonly collection: CollectionNews;
  readonly history: HistoryNews;
}

/** What hearing a peer came to. */
export interface Heard {
  /** Records here may be dead: this replica was restored to before what others have forgotten since, or took records from one that was. */
  readonly behind: boolean;
  /** How often what its records go back to had changed, before it heard and after. */
  readonly rootChanges: readonly [before: number, after: number];
}

/** Why a replica begins anew. */
export interface Behind {
  /** The moment that others relied on, to before which it was restored; null where it was not. */
  readonly lost: Moment | null;
  /** The place in its feed behind which records may be dead. */
  readonly place: number;
}

/** What this replica tells its peers in a handshake. Its captured writes need not be folded: whatever a row counts on is in the feed. */
export async function tellKnowledge(replica: Replica): Promise<Told> {
  const [known, changes, allFloors, allRoots, [head]] = await replica.db.transaction((tx) =>
    Promise.all([
      refreshKnowledge(tx, replica),
      readRootChanges(tx),
      readFloors(tx),
      readRoots(tx),
      // Asked for behind the rows: all that they count on has its place by now.
      tx.query('SELECT coalesce(max(position), 0) FROM replication.record WHERE model = ANY ($1)', [[...replica.tables.keys()]]),
    ]),
  );
  const { incarnation, generation } = known;
  const [floors, roots] = [[...allFloors.values()].flat(), [...allRoots.values()].flat()];
  const rows = [...known.rows.values()];
  const lines = new Map([...roots, ...floors, ...rows].map((point) => [`${point.member} ${point.incarnation}`, point]));
  return {
    collection: {
      generation,
      head: { incarnation, position: Number(head?.[0]) },
      rows: rows.map(({ knows, roster, member, incarnation: present, began, tick }) => ({ member, incarnation: present, began, tick, knows: { ...knows }, roster: [...roster] })),
      floors: floors.map(({ member, incarnation: past, began, tick }) => ({ member, incarnation: past, began, tick })),
    },
    history: {
      changes,
      lines: [...lines.values()].map(({ member, incarnation: last, line }) => ({ member, incarnation: last, line: encodeLine(line) })),
      roots: roots.map(({ member, incarnation: past, tick }) => ({ member, incarnation: past, tick })),
    },
  };
}

/** Takes in what a peer told. @param history - Missing where its program knows none: then only what it tells of itself counts. */
export async function hearKnowledge(replica: Replica, peer: { readonly name: string; readonly id: Member }, { head, rows, floors }: CollectionNews, history: HistoryNews | undefined): Promise<Heard> {
  const lines = new Map(history?.lines.map(({ member, incarnation, line }) => [`${member} ${incarnation}`, line]));
  const lined = <T extends Pick<ToldRoot, 'member' | 'incarnation'>>(point: T) => ({ ...point, line: decodeLine(point.incarnation, lines.get(`${point.member} ${point.incarnation}`)) });
  return replica.db.transaction(async (tx) => {
    // Those of an earlier handshake that count by now, before they are replaced.
    await refreshKnowledge(tx, replica);
    const theirs = rows.find(({ member }) => member === peer.id);
    const own = rows.find(({ member }) => member === replica.id);
    await Promise.all([
      tx.query(
        `INSERT INTO replication.hearsay (peer, incarnation, position, words) VALUES ($1, $2, $3, $4)
         ON CONFLICT (peer) DO UPDATE SET incarnation = excluded.incarnation, position = excluded.position, words = excluded.words`,
        [peer.name, head.incarnation, head.position, JSON.stringify(rows.map(lined).map(toWord))],
      ),
      raiseFloors(tx, floors.map(lined)),
      own && outdo(tx, replica, own),
    ]);
    const [before] = await Promise.all([
      readRootChanges(tx),
      theirs && takeRoots(tx, replica, { self: lined(theirs), knows: theirs.roster.includes(replica.id), roots: (history?.roots ?? []).map(lined) }),
    ]);
    const [behind, after] = await Promise.all([fallenBehind(tx, replica), readRootChanges(tx)]);
    return { behind: behind !== null, rootChanges: [before, after] };
  });
}

/** Whether this replica was restored to before a moment that others relied on when they dropped tombstones, or took records from who was, and has not taken everything anew since; null where it was not. */
export async function fallenBehind(tx: Transaction, replica: Replica): Promise<Behind | null> {
  const [[collection], floors, terms] = await Promise.all([tx.query('SELECT answered_began, answered_tick, doubt FROM replication.collection'), readFloors(tx), readTerms(tx)]);
  const [began, tick, doubt] = collection ?? [];
  const own = floors.get(replica.id) ?? [];
  const lost = own.findLast((floor) => fellBehind(floor, terms, { began: Number(began), tick: Number(tick) })) ?? null;
  return lost === null && doubt == null ? null : { lost, place: lost === null ? Number(doubt) : 0 };
}

/**
 * Begins a term in which this replica has taken nothing of anybody yet.
 *
 * @param term - Its incarnation; why it begins, and with what; the clock; and the largest stamp among what is set aside, which what is written anew must be beyond.
 */
export async function beginTerm(
  tx: Transaction,
  replica: Replica,
  { incarnation, behind: { lost, place }, clock, largest }: { readonly incarnation: string; readonly behind: Behind; readonly clock: number; readonly largest: number },
): Promise<void> {
  await lockKnowledge(tx);
  const terms = await readTerms(tx);
  const began = Math.max(clock, (lost?.began ?? 0) + 1, (terms.at(-1)?.began ?? 0) + 1);
  const [row] = await tx.query(
    `UPDATE replication.collection SET tick = tick + 1, generation = generation + 1, forgotten = greatest(forgotten, $1), answered_began = coalesce($2, answered_began),
            answered_tick = coalesce($3, answered_tick), reseeding = true, doubt = NULL
     RETURNING tick`,
    [largest, lost?.began ?? null, lost?.tick ?? null],
  );
  await cutRoots(tx, place);
  const tick = Number(row?.[0]);
  await tx.query('INSERT INTO replication.term (incarnation, began, first) VALUES ($1, $2, $3)', [incarnation, began, tick]);
  await tx.query('DELETE FROM replication.knowledge WHERE member <> $1', [replica.id]);
  const members = await tx.query('SELECT id FROM replication.roster WHERE NOT struck ORDER BY id');
  await storeRows(tx, [{ member: replica.id, incarnation, began, tick, line: lineOf([...terms, { incarnation, began, first: tick }]), knows: {}, roster: members.map(([id]) => id as string) }]);
}

/** Brings this replica's own row up to date, and counts those rows of others whose teller's feed was taken far enough. */
export async function refreshKnowledge(tx: Transaction, replica: Replica): Promise<Known> {
  const [, [state], members, taken, stored, hearsay, terms, [unseen]] = await Promise.all([
    lockKnowledge(tx),
    tx.query('SELECT tick, generation, replication.incarnation(), replication.clock() FROM replication.collection'),
    tx.query('SELECT id, struck FROM replication.roster ORDER BY id'),
    readTaken(tx),
    tx.query('SELECT member, word FROM replication.knowledge'),
    tx.query('SELECT peer, incarnation, position, words FROM replication.hearsay'),
    readTerms(tx),
    // A deletion that waits to be shown has not been seen by those who write to its row meanwhile. Where there is no row, only a write over all sides can make it forgotten, and that counts when it comes.
    // In the order of an index, as in `retryWaiting`.
    tx.query('SELECT FROM replication.record WHERE waiting IS NOT NULL AND dead AND held IS NOT NULL ORDER BY model, key LIMIT 1'),
  ]);
  const [tick, generation, incarnation, clock] = state as [string, string, string, string];
  const roster = members.filter(([, struck]) => struck !== 't').map(([id]) => id as string);
  const struck = new Set(members.filter(([, gone]) => gone === 't').map(([id]) => id as string));
  const rows = await countHearsay(tx, replica, taken.byName, stored, hearsay);
  const known = { incarnation, generation: Number(generation), roster, struck, rows };

  const begins = terms.at(-1)?.incarnation !== incarnation;
  if (unseen && !begins) return known;
  const present = { roster, knows: incorporated(replica.id, roster, taken.byMember, rows) };
  const last = rows.get(replica.id);
  if (!begins && last !== undefined && sameKnowledge(last, present)) return known;
  const next = Number(tick) + 1;
  const began = begins ? Math.max(Number(clock), (terms.at(-1)?.began ?? 0) + 1) : (terms.at(-1) as Term).began;
  const line = lineOf(begins ? [...terms, { incarnation, began, first: next }] : terms);
  const row: Knowledge = { member: replica.id, incarnation, began, tick: next, line, ...(unseen ? { roster, knows: {} } : present) };
  await Promise.all([
    begins && tx.query('INSERT INTO replication.term (incarnation, began, first) VALUES ($1, $2, $3)', [incarnation, began, next]),
    tx.query('UPDATE replication.collection SET tick = $1', [next]),
    storeRows(tx, [row]),
  ]);
  return { ...known, rows: new Map(rows).set(replica.id, row) };
}

/** Has all others who tell or change what is known wait for this transaction's end. No row is locked for it: a transaction that changes nothing waits for no disk then. */
export async function lockKnowledge(tx: Transaction): Promise<void> {
  await tx.query(`SELECT pg_advisory_xact_lock(x'7265706c6b6e6f77'::bigint)`);
}

/** What tells whether something that was said of this replica still holds. */
export interface Standing {
  readonly incarnation: string;
  /** How often it has forgotten records. */
  readonly generation: number;
  /** How often what its records go back to has changed. */
  readonly rootChanges: number;
}

export async function readStanding(db: Pick<Transaction, 'query'>): Promise<Standing> {
  const [row] = await db.query('SELECT replication.incarnation(), generation, root_changes FROM replication.collection');
  return { incarnation: row?.[0] as string, generation: Number(row?.[1]), rootChanges: Number(row?.[2]) };
}

/** This replica's word must replace what it said in a history that was lost. */
async function outdo(tx: Transaction, replica: Replica, told: Moment): Promise<void> {
  const term = (await readTerms(tx)).at(-1) as Term;
  if (told.incarnation === term.incarnation || told.began < term.began) return;
  const began = told.began + 1;
  await tx.query('UPDATE replication.term SET began = $2 WHERE incarnation = $1', [term.incarnation, began]);
  const [row] = await tx.query('SELECT word FROM replication.knowledge WHERE member = $1', [replica.id]);
  const [tick] = await tx.query('UPDATE replication.collection SET tick = tick + 1 RETURNING tick');
  await storeRows(tx, [{ ...fromWord(replica.id, JSON.parse(row?.[0] as string) as Word), began, tick: Number(tick?.[0]) }]);
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

async function countHearsay(tx: Transaction, replica: Replica, taken: ReadonlyMap<string, Checkpoint>, stored: readonly Row[], hearsay: readonly Row[]): Promise<ReadonlyMap<Member, Knowledge>> {
  let rows: ReadonlyMap<Member, Knowledge> = new Map(
    stored.map(([member, word]) => [member as string, fromWord(member as string, JSON.parse(word as string) as Word)]),
  );
  const before = rows;
  const counted: string[] = [];
  for (const [peer, incarnation, position, words] of hearsay) {
    const head = { incarnation: incarnation as string, position: Number(position) };
    if (!counts({ head }, taken.get(peer as string) ?? null)) continue;
    const told = (JSON.parse(words as string) as (Word & Pick<Knowledge, 'member'>)[]).map((word) => fromWord(word.member, word));
    rows = learn(rows, told.filter(({ member }) => member !== replica.id));
    counted.push(peer as string);
  }
  await Promise.all([
    counted.length > 0 && tx.query('DELETE FROM replication.hearsay WHERE peer = ANY ($1)', [counted]),
    storeRows(tx, [...rows.values()].filter((row) => before.get(row.member) !== row)),
  ]);
  return rows;
}

async function storeRows(tx: Transaction, rows: readonly Knowledge[]): Promise<void> {
  if (rows.length === 0) return;
  await tx.query(
    `INSERT INTO replication.knowledge (member, word) SELECT member, word FROM json_to_recordset($1) AS x (member uuid, word json)
     ON CONFLICT (member) DO UPDATE SET word = excluded.word`,
    [JSON.stringify(rows.map((row) => ({ member: row.member, word: toWord(row) })))],
  );
}

/** As rows are stored; older ones have no line. */
type Word = Omit<Knowledge, 'member' | 'line'> & { readonly line?: LineText };

function toWord({ line, ...word }: Knowledge): Omit<Word, 'line'> & { readonly member: Member; readonly line: LineText } {
  return { ...word, line: encodeLine(line) };
}

function fromWord(member: Member, { line, ...word }: Word): Knowledge {
  return { ...word, member, line: decodeLine(word.incarnation, line) };
}
