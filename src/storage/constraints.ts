/**
 * Unique constraints that come and go with a schema. What is shown follows from the states and the constraints, so that with others all of it is judged anew that its row does not tell: what
 * gives way, what waits, and what has several sides. No two rows have the same values where a constraint has just been made, or the database would not have made it.
 */
import type { UniqueKey } from '../replication/unique.ts';
import { bothChanges, NO_CHANGES, type ConflictChanges } from './conflicts.ts';
import type { Transaction } from './database.ts';
import { showAnew } from './present.ts';
import { beginChange, type Now, type Replica } from './replica.ts';
import { portions, type RecordName } from './sizes.ts';
import type { ModelTable } from './tables.ts';
import { closeDropped } from './unique-conflicts.ts';

/**
 * Shows records anew where the unique constraints are others than at the last start.
 *
 * @param onConflicts - Told what it did to the conflict log.
 */
export async function applyConstraints(replica: Replica, onConflicts: (changes: ConflictChanges) => void): Promise<void> {
  onConflicts(
    await replica.db.transaction(async (tx) => {
      const now = await beginChange(tx);
      let conflicts = NO_CHANGES;
      for (const table of replica.tables.values()) {
        if (await register(tx, table)) conflicts = bothChanges(conflicts, await judgeAnew(tx, replica, table, now));
      }
      return conflicts;
    }),
  );
}

/** Notes which constraints there are. @returns whether they are others than before. */
async function register(tx: Transaction, { name, unique }: ModelTable): Promise<boolean> {
  const [row] = await tx.query('SELECT uniques FROM replication.generation WHERE model = $1', [name]);
  const before = row?.[0] ?? null;
  const present = JSON.stringify(unique);
  if (before === present) return false;
  // In a new generation, so that other processes of this replica look at the table again.
  await tx.query('UPDATE replication.generation SET uniques = $2, generation = generation + CASE WHEN uniques IS NULL THEN 0 ELSE 1 END WHERE model = $1', [name, present]);
  const known = before === null ? unique : (JSON.parse(before) as UniqueKey[]);
  const kept = unique.filter((each) => known.some((old) => sameClaims(each, old)));
  await tx.query('DELETE FROM replication.claim WHERE model = $1 AND name <> ALL ($2)', [name, kept.map((each) => each.name)]);
  return true;
}

function sameClaims(a: UniqueKey, b: UniqueKey): boolean {
  return a.name === b.name && a.nullsClaim === b.nullsClaim && JSON.stringify(a.fields) === JSON.stringify(b.fields);
}

async function judgeAnew(tx: Transaction, replica: Replica, table: ModelTable, now: Now): Promise<ConflictChanges> {
  const keys = await tx.query(
    'SELECT key FROM replication.record WHERE model = $1 AND (shown IS NOT NULL OR masked IS NOT NULL OR waiting IS NOT NULL) ORDER BY key COLLATE "C"',
    [table.name],
  );
  const names = keys.map(([key]): RecordName => [table.name, key as string]);
  let conflicts = NO_CHANGES;
  for await (const { names: some } of portions(tx, replica, names)) conflicts = bothChanges(conflicts, await showAnew(tx, replica, now, some));
  return bothChanges(conflicts, await closeDropped(tx, replica, table, now.clock));
}
