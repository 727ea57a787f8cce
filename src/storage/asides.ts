/** What is set aside since a restore (see reseed.ts), for people: to look at, to bring back as a new write, or to let go. */
import { latest } from '../replication/policy.ts';
import type { State } from '../replication/merge.ts';
import type { Fields } from '../replication/version.ts';
import { isRefusal, sqlState, type Transaction } from './database.ts';
import { decodeState } from './records.ts';
import type { Replica } from './replica.ts';
import { UNCONFIRMED } from './reseed.ts';
import { BATCH_BYTES } from './sizes.ts';
import { matchesKey, showFields, type ModelTable } from './tables.ts';

export interface AsideRecord {
  readonly model: string;
  readonly key: string;
  /** The versions that no peer has confirmed. */
  readonly state: State;
  /** Microseconds since 1970. */
  readonly since: number;
}

/** The values cannot be written now; the message says why, and what to do. Nothing was changed. */
export class RefusedError extends Error {
  /** Another record has one of its unique values. */
  readonly taken: boolean;

  constructor(message: string, taken: boolean) {
    super(message);
    this.taken = taken;
  }
}

/** In order of model and key, behind `after`: at most `limit`, and about 8 MiB of them. */
export async function readAside(replica: Replica, limit: number, after: readonly [model: string, key: string] | null): Promise<AsideRecord[]> {
  const rows = await replica.db.query(
    `SELECT model, key, versions, since FROM (
       SELECT *, sum(octet_length(versions::text)) OVER (ORDER BY model COLLATE "C", key COLLATE "C") - octet_length(versions::text) AS before
         FROM (SELECT * FROM replication.aside WHERE model = ANY ($4) AND (model COLLATE "C", key COLLATE "C") > ($2, $3) ORDER BY model COLLATE "C", key COLLATE "C" LIMIT $1) page
     ) sized WHERE before < $5 ORDER BY model COLLATE "C", key COLLATE "C"`,
    [limit, after?.[0] ?? '', after?.[1] ?? '', [...replica.tables.keys()], BATCH_BYTES],
  );
  return rows.map(([model, key, versions, since]) => ({ model: model as string, key: key as string, state: decodeState(versions as string, null), since: Number(since) }));
}

export async function countAside(replica: Replica): Promise<number> {
  const [row] = await replica.db.query('SELECT count(*) FROM replication.aside');
  return Number(row?.[0]);
}

/** True until every member of the roster was heard of since the last restore to before what others have forgotten. */
export async function isReseeding(replica: Replica): Promise<boolean> {
  const [row] = await replica.db.query('SELECT reseeding FROM replication.collection');
  return row?.[0] === 't';
}

/**
 * Takes a record off the list. To bring it back, its latest version is written again: a write like any other, which has seen what the row shows now.
 *
 * @returns False where it is not on the list.
 * @throws RefusedError
 */
export async function settleAside(replica: Replica, table: ModelTable, key: string, bringBack: boolean): Promise<boolean> {
  return replica.db.transaction(async (tx) => {
    const [row] = await tx.query('DELETE FROM replication.aside WHERE model = $1 AND key = $2 RETURNING versions', [table.name, key]);
    if (row === undefined) return false;
    if (!bringBack) return true;
    // Its row is still shown: writing the same again would be no write, and the row leaves its table with the others.
    const [shown] = await tx.query('SELECT FROM replication.record WHERE model = $1 AND key = $2 AND waiting = $3', [table.name, key, UNCONFIRMED]);
    if (shown) throw new RefusedError('it may still come from a peer. Try again once replica { reseeding } is false: every replica of the roster has to be heard of, or struck', false);
    await writeRow(tx, table, key, latest(decodeState(row[0] as string, null)).fields);
    return true;
  });
}

/** Writes as any writer does: the triggers capture it. */
async function writeRow(tx: Transaction, table: ModelTable, key: string, fields: Fields | null): Promise<void> {
  const { keyColumn, columns } = table;
  try {
    if (fields === null) {
      await tx.query(`DELETE FROM ${table.table} t WHERE ${matchesKey('t', keyColumn, '$1::text')}`, [key]);
      return;
    }
    const row = showFields(table, fields);
    const set = columns.map(({ column }) => `${column} = excluded.${column}`).join(', ');
    await tx.query(
      `INSERT INTO ${table.table} (${[keyColumn, ...columns].map(({ column }) => column).join(', ')}) OVERRIDING SYSTEM VALUE
       VALUES ($1::${keyColumn.type}${columns.map(({ type }, i) => `, $${i + 2}::${type}`).join('')})
       ON CONFLICT (${keyColumn.column}) DO ${set === '' ? 'NOTHING' : `UPDATE SET ${set}`}`,
      [key, ...columns.map(({ field }) => row[field.name] ?? null)],
    );
  } catch (error) {
    if (!isRefusal(error)) throw error;
    const { message, detail } = error as { message: string; detail?: string };
    const why = (detail === undefined ? message : `${message}: ${detail}`).replace(/\.$/, '');
    throw new RefusedError(`${why}. Change what stands in its way, or discard it`, sqlState(error) === '23505');
  }
}
