/** What is to be tried again by and by. */
import type { Transaction } from './database.ts';

export interface Due {
  /** This replica takes everything anew, and may be through with it. */
  readonly reseeding: boolean;
  /** A peer has left collisions behind, and is not waited for any more. */
  readonly deferred: boolean;
  /** A record waits to be shown. */
  readonly waiting: boolean;
}

/** After which a peer that left collisions behind, and promised more, is not waited for: microseconds. */
export const DEFERRED_MICROS = 60_000_000;

export async function readDue(db: Pick<Transaction, 'query'>): Promise<Due> {
  const [row] = await db.query(
    // In the order of an index: of a table that has just grown the planner knows nothing, and would rather read all of it.
    `SELECT (SELECT reseeding FROM replication.collection), EXISTS (SELECT FROM replication.deferral WHERE since < replication.clock() - $1::bigint),
            (SELECT true FROM replication.record WHERE waiting IS NOT NULL ORDER BY model, key LIMIT 1)`,
    [DEFERRED_MICROS],
  );
  const [reseeding, deferred, waiting] = (row ?? []).map((is) => is === 't');
  return { reseeding: reseeding === true, deferred: deferred === true, waiting: waiting === true };
}
