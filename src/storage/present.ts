/**
 * Showing states anew: what waits, and everything of several versions after the policy was changed.
 *
 * What waits for a parent is tried as soon as that is shown; everything else in turn, whatever waited longest without a trial first, so that no number of records that can never
 * be shown keeps another from its turn.
 */
import type { Policy } from '../replication/policy.ts';
import { writeChanges, type Change } from './changes.ts';
import type { ConflictChanges } from './conflicts.ts';
import type { Database, Transaction } from './database.ts';
import { DEFERRED_MICROS, readDue, type Due } from './due.ts';
import { BATCH_RECORDS, fold } from './fold.ts';
import { AGAIN } from './rows.ts';
import { originOf, readLocked, readRecords, settle, viewOf, type SettledRecord } from './records.ts';
import { beginChange, type Now, type Replica } from './replica.ts';
import { endReseed } from './reseed.ts';
import { fitting, type RecordName } from './sizes.ts';
import { deferredChanges } from './unique-conflicts.ts';

type OnConflicts = (changes: ConflictChanges) => void;

/**
 * Tries again to show what waits: all of which the parent has come, and of the others those that were not tried for longest, at most `limit`.
 *
 * @param onConflicts - Told after each transaction what it did to the conflict log.
 * @param due - Where that is known already.
 */
export async function retryWaiting(replica: Replica, limit: number, onConflicts: OnConflicts, due: Due | null = null): Promise<void> {
  const { reseeding, deferred, waiting } = due ?? (await readDue(replica.db));
  if (reseeding) await endReseed(replica, onConflicts);
  if (deferred) await tellDeferred(replica, onConflicts);
  // What was set aside has come to wait.
  if (!waiting && !reseeding) return;
  await showArrivals(replica, onConflicts);
  const [last] = await replica.db.query('SELECT last_value FROM replication.trial');
  // Of those whose parent is missing most will only wait on: they take no turns of the others.
  for (const which of ['awaits IS NULL', 'awaits IS NOT NULL']) {
    for (let left = limit; left > 0; ) {
      const done = await present(replica, onConflicts, (tx) =>
        tx.query(`SELECT model, key FROM replication.record WHERE tried <= $1 AND ${which} AND model = ANY ($2) ORDER BY tried LIMIT $3`, [
          last?.[0],
          [...replica.tables.keys()],
          left,
        ]),
      );
      if (done.length === 0) break;
      left -= done.length;
    }
  }
  await showArrivals(replica, onConflicts);
}

async function tellDeferred(replica: Replica, onConflicts: OnConflicts): Promise<void> {
  const { conflicts } = await replica.db.transaction(async (tx) => {
    const now = await beginChange(tx);
    return writeChanges(tx, replica, now, await deferredChanges(tx, replica, now, { age: DEFERRED_MICROS }, []));
  });
  onConflicts(conflicts);
}

/** What waits, in order of model and key, at most `limit` records and about 8 MiB of them. */
export async function readWaiting(replica: Replica, limit: number): Promise<SettledRecord[]> {
  return replica.db.transaction(async (tx) => {
    const names: RecordName[] = [];
    for (const { name } of replica.tables.values()) {
      const keys = await tx.query('SELECT key FROM replication.record WHERE model = $1 AND waiting IS NOT NULL ORDER BY key LIMIT $2', [name, limit - names.length]);
      names.push(...keys.map(([key]): RecordName => [name, key as string]));
    }
    const found: SettledRecord[] = [];
    const some = await fitting(tx, replica, names);
    for (const table of replica.tables.values()) {
      const records = await readRecords(tx, table, some.filter(([model]) => model === table.name).map(([, key]) => key));
      found.push(...records.map((record) => settle(record, replica)));
    }
    return found;
  });
}

/** How many records of each model wait. */
export async function countWaiting(replica: Replica): Promise<ReadonlyMap<string, number>> {
  const rows = await replica.db.query('SELECT model, count(*) FROM replication.record WHERE waiting IS NOT NULL GROUP BY model');
  const counts = new Map(rows.map(([model, count]) => [model, Number(count)]));
  return new Map([...replica.tables.keys()].map((model) => [model, counts.get(model) ?? 0]));
}

/**
 * Shows every record of several versions anew, after the policy was changed.
 *
 * Writes captured under the old policy saw what was shown under it, and are folded by it first.
 */
export async function applyPolicy(replica: Replica, onConflicts: OnConflicts): Promise<ConflictChanges | null> {
  const [row] = await replica.db.query('SELECT policy FROM replication.replica');
  const before = row?.[0] as Policy;
  if (before === replica.policy) return null;
  await fold({ ...replica, policy: before }, onConflicts);
  return replica.db.transaction(async (tx) => {
    const now = await beginChange(tx);
    const detected: ConflictChanges['detected'][number][] = [];
    const resolved: ConflictChanges['resolved'][number][] = [];
    for (const model of replica.tables.keys()) {
      for (let after = ''; ; ) {
        const rows = await tx.query('SELECT model, key FROM replication.record WHERE model = $1 AND key > $2 AND shown IS NOT NULL ORDER BY key LIMIT $3', [model, after, BATCH_RECORDS]);
        const names = await fitting(tx, replica, rows.map(([, key]) => [model, key as string]));
        const last = names.at(-1);
        if (last === undefined) break;
        const conflicts = await showAnew(tx, replica, now, names);
        detected.push(...conflicts.detected);
        resolved.push(...conflicts.resolved);
        [, after] = last;
      }
    }
    await tx.query('UPDATE replication.replica SET policy = $1', [replica.policy]);
    return { detected, resolved };
  });
}

/** Shows the children whose parents have come, theirs after them. */
async function showArrivals(replica: Replica, onConflicts: OnConflicts): Promise<void> {
  for (;;) {
    const [any] = await replica.db.query('SELECT FROM replication.arrival LIMIT 1');
    if (!any) return;
    await present(
      replica,
      onConflicts,
      (tx) =>
        tx.query(
          `SELECT r.model, r.key FROM replication.record r JOIN (SELECT awaits FROM replication.arrival LIMIT 100) a USING (awaits)
            WHERE r.model = ANY ($1) LIMIT $2`,
          [[...replica.tables.keys()], BATCH_RECORDS],
        ),
      async (tx, names) => {
        // Whatever waits on after its trial waits for its turn.
        await tx.query(
          `WITH asked AS (SELECT awaits FROM replication.arrival LIMIT 100),
                stuck AS (SELECT r.awaits FROM replication.record r JOIN json_to_recordset($1) AS x (m text, k text) ON r.model = x.m AND r.key = x.k WHERE r.awaits <> $2)
           DELETE FROM replication.arrival a USING asked
            WHERE a.awaits = asked.awaits AND (EXISTS (SELECT FROM stuck WHERE stuck.awaits = a.awaits) OR NOT EXISTS (SELECT FROM replication.record r WHERE r.awaits = a.awaits))`,
          [JSON.stringify(names.map(([m, k]) => ({ m, k }))), AGAIN],
        );
      },
    );
  }
}

/** Shows records anew in a transaction of their own, as many of those found as fit; returns which. */
async function present(
  replica: Replica,
  onConflicts: OnConflicts,
  find: (tx: Transaction) => ReturnType<Database['query']>,
  after: (tx: Transaction, names: readonly RecordName[]) => Promise<void> = async () => {},
): Promise<readonly RecordName[]> {
  const { names, conflicts } = await replica.db.transaction(async (tx) => {
    const now = await beginChange(tx);
    const found = (await find(tx)).map(([model, key]): RecordName => [model as string, key as string]);
    const some = await fitting(tx, replica, found);
    const done = await showAnew(tx, replica, now, some);
    await after(tx, some);
    return { names: some, conflicts: done };
  });
  onConflicts(conflicts);
  return names;
}

/** Shows these records anew, whatever they show now. */
export async function showAnew(tx: Transaction, replica: Replica, now: Now, names: readonly RecordName[]): Promise<ConflictChanges> {
  const changes: Change[] = [];
  for (const table of replica.tables.values()) {
    const keys = names.filter(([model]) => model === table.name).map(([, key]) => key);
    for (const before of await readLocked(tx, replica, table, keys)) {
      changes.push({ before, state: before.settled, origin: originOf(before), view: viewOf(replica, before, before.settled) });
    }
  }
  return (await writeChanges(tx, replica, now, changes)).conflicts;
}
