/**
 * A write through this process that is folded in its own transaction: it can be sent as soon as it is committed, and one transaction does what takes two otherwise.
 *
 * The writer waits for nobody: where somebody else is changing states, or there is more to it than that the record now is what its row says, the write stays in the log, as those of others do.
 */
import { sameFields } from '../replication/version.ts';
import { writeChanges } from './changes.ts';
import type { Database, Transaction } from './database.ts';
import { later, type Fresh } from './feed.ts';
import { madeFresh, readTold } from './fold.ts';
import type { SettledRecord } from './records.ts';
import { beginChangeIfFree, type Now, type Replica } from './replica.ts';
import type { RecordName } from './sizes.ts';
import { showFields } from './tables.ts';

/** Writes a row of one record. */
export interface OwnWrite<T> {
  /** Where it is made: apart from the connections of those who wait for the state lock. */
  readonly db: Pick<Database, 'transaction'>;
  /** The record, where that is known before. */
  readonly name?: RecordName;
  /** Makes the write with one statement, captured as anybody's. @param over - The transaction that it is a part of; left out where it is by itself. */
  make(over?: Pick<Transaction, 'query'>): Promise<T>;
  /** The record that was written to; null where none was. */
  nameOf(written: T): RecordName | null;
}

export interface FoldedWrite {
  /** The last place in the feed that was taken then. */
  readonly end: number;
  readonly fresh: Fresh | null;
}

/**
 * @returns What `make` did, and what folding it did; `folded` is null where the write was left in the log.
 * @throws What `make` throws: nothing was written then.
 */
export async function writeFolded<T>(replica: Replica, write: OwnWrite<T>): Promise<{ readonly written: T; readonly folded: FoldedWrite | null }> {
  const { written, told } = await write.db.transaction(async (tx) => {
    const making = write.make(tx);
    // The database writes while the rest is asked for.
    tx.send();
    const asking = later(Promise.all([beginChangeIfFree(tx), write.name && readTold(tx, replica, [write.name])]));
    // Where it fails, what stands behind it does as well, with another error.
    const made = await making;
    const [now, early] = await asking;
    const name = write.nameOf(made);
    if (now === null || name === null) return { written: made, told: null };
    const record = (early ?? (await readTold(tx, replica, [name]))).get(name.join(' '));
    if (record === undefined || !isPlain(now, record)) return { written: made, told: null };
    const { changes } = await writeChanges(tx, replica, now, [{ before: record, state: record.settled, origin: null, view: record.view }]);
    return { written: made, told: { now, changes } };
  });
  if (told === null) return { written, folded: null };
  // The next place is its own: nobody else gives places out meanwhile.
  const end = told.now.lastPlace + 1;
  return { written, folded: { end, fresh: told.changes.length === 1 ? madeFresh(replica, told, end) : null } };
}

/** True where the record is its row, was before, and no other record can have to do with it. */
function isPlain({ aside, claimed, deferred }: Now, { table, state, settled, waiting, masked, row, view, writes }: SettledRecord): boolean {
  if (aside || claimed || deferred || writes.length === 0 || state.length > 1 || settled.length > 1 || waiting !== null || masked !== null || row === null) return false;
  return view.fields !== null && sameFields(showFields(table, view.fields), row);
}
