/**
 * Dropping tombstones, in two steps. What every replica of the roster holds becomes a ghost: it opposes nothing any more, and goes on covering what it covers. What every replica holds as a ghost is forgotten.
 */
import { largestStamp } from '../replication/clock.ts';
import { stablePlace } from '../replication/knowledge.ts';
import { standing, type State } from '../replication/merge.ts';
import type { Floor } from '../replication/roots.ts';
import { writeChanges, type Change } from './changes.ts';
import type { Transaction } from './database.ts';
import { refreshKnowledge, type Known } from './knowledge.ts';
import { raiseFloors } from './roots.ts';
import { readLocked, viewOf, type SettledRecord } from './records.ts';
import { beginChange, type Replica } from './replica.ts';

/** What a collection did. */
export interface Collected {
  /** Records that became ghosts. */
  readonly dropped: number;
  /** Records, or deletions beside living versions, that were forgotten. */
  readonly forgotten: number;
}

/** Records that one transaction looks at. */
const PAGE = 1_000;

/**
 * Drops what may be dropped, a page of records a transaction.
 *
 * @param retention - Seconds for which a deletion is kept at least, from when it came here; Infinity keeps all.
 */
export async function collect(replica: Replica, retention: number, signal?: AbortSignal): Promise<Collected> {
  let total: Collected = { dropped: 0, forgotten: 0 };
  for (let after: number | null = 0; after !== null; ) {
    if (signal?.aborted === true) break;
    const from: number = after;
    const page = await replica.db.transaction((tx) => collectPage(tx, replica, retention, from));
    total = { dropped: total.dropped + page.dropped, forgotten: total.forgotten + page.forgotten };
    after = page.next;
  }
  return total;
}

/** Records whose state holds a deletion that is not forgotten. */
export async function countTombstones(replica: Replica): Promise<number> {
  const [row] = await replica.db.query('SELECT count(*) FROM replication.record WHERE dead');
  return Number(row?.[0]);
}

async function collectPage(tx: Transaction, replica: Replica, retention: number, after: number): Promise<Collected & { readonly next: number | null }> {
  const now = await beginChange(tx);
  // A peer that was never met may have opposed anything.
  const [stranger] = await tx.query('SELECT FROM replication.address a WHERE NOT EXISTS (SELECT FROM replication.roster r WHERE r.name = a.name) LIMIT 1');
  if (stranger) return { dropped: 0, forgotten: 0, next: null };
  const known = await refreshKnowledge(tx, replica);
  const stable = stablePlace({ member: replica.id, incarnation: known.incarnation }, known.roster, known.struck, known.rows);
  const found = await tx.query(
    `SELECT model, key, position FROM replication.record
      WHERE dead AND waiting IS NULL AND position > $1 AND position <= $2 AND (changed_at <= $3 OR hash IS NULL) AND model = ANY ($4)
      ORDER BY position LIMIT $5`,
    [after, stable, Math.max(0, now.clock - retention * 1e6), [...replica.tables.keys()], PAGE],
  );
  const changes: Change[] = [];
  const gone: SettledRecord[] = [];
  let dropped = 0;
  let largest = 0;
  for (const table of replica.tables.values()) {
    const keys = found.filter(([model]) => model === table.name).map(([, key]) => key as string);
    if (keys.length === 0) continue;
    for (const before of await readLocked(tx, replica, table, keys)) {
      // Written anew meanwhile: the next fold takes that in.
      if (before.writes.length > 0) continue;
      const { state } = before;
      const ghosts = state.filter(({ collected }) => collected);
      if (ghosts.length < state.length && state.every(({ fields }) => fields === null)) {
        changes.push(changeTo(replica, before, state.map((version) => ({ ...version, collected: true as const }))));
        dropped++;
      } else if (ghosts.length > 0) {
        largest = Math.max(largest, largestStamp(ghosts));
        if (ghosts.length === state.length) gone.push(before);
        else changes.push(changeTo(replica, before, standing(state)));
      }
    }
  }
  await writeChanges(tx, replica, now, changes);
  await removeRecords(tx, gone);
  if (largest > 0) await tx.query('UPDATE replication.collection SET generation = generation + 1, forgotten = greatest(forgotten, $1)', [largest]);
  if (changes.length + gone.length > 0) await raiseFloors(tx, reliedOn(known));
  return { dropped, forgotten: changes.length - dropped + gone.length, next: found.length === PAGE ? Number(found.at(-1)?.[2]) : null };
}

function changeTo(replica: Replica, before: SettledRecord, state: State): Change {
  return { before, state, origin: null, view: viewOf(replica, before, state) };
}

async function removeRecords(tx: Transaction, records: readonly SettledRecord[]): Promise<void> {
  if (records.length === 0) return;
  await tx.query('DELETE FROM replication.record r USING json_to_recordset($1) AS x (model text, key text) WHERE r.model = x.model AND r.key = x.key', [
    JSON.stringify(records.map(({ table, key }) => ({ model: table.name, key }))),
  ]);
}

/** Of this replica too: who takes records from it as it was before has none of its word either. */
function reliedOn({ roster, rows }: Known): Floor[] {
  return roster.flatMap((id) => {
    const row = rows.get(id);
    return row === undefined ? [] : [{ member: id, incarnation: row.incarnation, began: row.began, tick: row.tick, line: row.line }];
  });
}
