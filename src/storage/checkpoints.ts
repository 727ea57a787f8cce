/** How far feeds were taken: each peer's here, ours there. */
import type { Taken } from '../replication/exchange.ts';
import type { Row, Transaction } from './database.ts';
import type { Replica } from './replica.ts';

/** What is stored about a peer. */
export interface PeerRecord {
  readonly name: string;
  /** How far its feed was taken here. */
  readonly taken: Taken | null;
  /** How far it is known to have taken ours. */
  readonly acknowledged: Taken | null;
  /** Its incarnation when last heard of. */
  readonly incarnation: string | null;
  /** A resolution could not be carried to it. */
  readonly owed: boolean;
  /** Microseconds since 1970. */
  readonly lastSyncAt: number | null;
  /** As last seen by any gateway. */
  readonly state: string;
  /** Why it is not connected; null where it is, or was not heard of. */
  readonly reason: string | null;
  /** The share of records that were the same when last compared. */
  readonly consistency: number | null;
  /** Its clock less this one's in seconds, as last measured. */
  readonly clockSkew: number | null;
}

type Queryable = Pick<Transaction, 'query'>;

const COLUMNS = 'taken_incarnation, taken_position, taken_by, acked_incarnation, acked_position, acked_by, incarnation, owed, last_sync_at, state, reason, consistency, clock_skew';
/** One row, of nothing where nothing is known. */
const FROM_PEER = 'FROM (VALUES (1)) AS one LEFT JOIN replication.peer ON name = $1';

export async function readPeer(db: Queryable, name: string): Promise<PeerRecord> {
  const [row] = await db.query(`SELECT ${COLUMNS} ${FROM_PEER}`, [name]);
  return toPeer(name, row);
}

function toPeer(name: string, row: Row | undefined): PeerRecord {
  const [taken, position, taker, acked, ackedPosition, acker, incarnation, owed, lastSyncAt, state, reason, consistency, skew] = row ?? [];
  return {
    name,
    taken: taken ? { incarnation: taken, position: Number(position), taker: taker as string } : null,
    acknowledged: acked ? { incarnation: acked, position: Number(ackedPosition), taker: acker as string } : null,
    incarnation: incarnation ?? null,
    owed: owed === 't',
    lastSyncAt: lastSyncAt ? Number(lastSyncAt) : null,
    state: state ?? 'UNKNOWN',
    reason: reason ?? null,
    consistency: consistency == null ? null : Number(consistency),
    clockSkew: skew == null ? null : Number(skew),
  };
}

/** The same of whoever sends something, and whether the roster has it by this id. */
export async function readSender(db: Queryable, name: string, id: string): Promise<PeerRecord & { readonly isMember: boolean }> {
  const [row] = await db.query(`SELECT ${COLUMNS}, EXISTS (SELECT FROM replication.roster WHERE id::text = $2 AND name = $1) ${FROM_PEER}`, [name, id]);
  return { ...toPeer(name, row), isMember: row?.at(-1) === 't' };
}

/** Stores how far a peer's feed was taken: in the transaction that takes the changes over, so that a batch counts once. */
export function storeTaken(tx: Transaction, name: string, { incarnation, position, taker }: Taken): void {
  tx.post(
    `INSERT INTO replication.peer (name, taken_incarnation, taken_position, taken_by, incarnation) VALUES ($1, $2, $3, $4, $2)
     ON CONFLICT (name) DO UPDATE SET taken_incarnation = excluded.taken_incarnation, taken_position = excluded.taken_position,
       taken_by = excluded.taken_by, incarnation = excluded.incarnation`,
    [name, incarnation, position, taker],
  );
}

/**
 * In a statement of its own: it is not waited for until it is on the disk. What a crash takes back of such a note makes the next sync send more than it has to, and nothing else.
 */
const LAZILY = `lazily AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true))`;

const ACKNOWLEDGED = 'acked_incarnation = excluded.acked_incarnation, acked_position = excluded.acked_position, acked_by = excluded.acked_by, incarnation = excluded.incarnation';
/** The peer is there, and nothing is owed any more. */
const SYNCED = 'owed = false, state = excluded.state, reason = NULL, last_sync_at = excluded.last_sync_at';

/**
 * Notes how far a peer has taken this replica's feed; not where the database was put back since it was sent: what was taken then is not what is here now.
 *
 * @param last - It was all there was, so that this is a finished sync, too.
 */
export async function storeAcknowledged(db: Queryable, name: string, { incarnation, position, taker }: Taken, last = false): Promise<void> {
  await db.query(
    `WITH ${LAZILY}
     INSERT INTO replication.peer (name, acked_incarnation, acked_position, acked_by, incarnation${last ? ', state, last_sync_at' : ''})
     SELECT $1, $2, $3::bigint, $4, $4${last ? `, 'CONNECTED', replication.clock()` : ''} FROM lazily WHERE replication.incarnation() = $2
     ON CONFLICT (name) DO UPDATE SET ${ACKNOWLEDGED}${last ? `, ${SYNCED}` : ''}`,
    [name, incarnation, position, taker],
  );
}

/** Notes a finished sync in which nothing was sent. */
export async function storeSynced(db: Queryable, name: string): Promise<void> {
  await db.query(
    `WITH ${LAZILY}
     INSERT INTO replication.peer (name, state, last_sync_at) SELECT $1, 'CONNECTED', replication.clock() FROM lazily
     ON CONFLICT (name) DO UPDATE SET ${SYNCED}`,
    [name],
  );
}

/** Notes that a resolution could not be carried to a peer. */
export async function storeOwed(db: Queryable, name: string): Promise<void> {
  await db.query(
    'INSERT INTO replication.peer (name, owed) VALUES ($1, true) ON CONFLICT (name) DO UPDATE SET owed = true',
    [name],
  );
}

/** Beyond this many pending records are not counted: the question is asked at every scrape, and by every page that shows the peers. */
export const PENDING_COUNTED = 100_000;

/**
 * What a peer has not acknowledged: how many records, at most `PENDING_COUNTED`, and the age of the oldest change among them in seconds (0 where there is none).
 */
export async function readPending(replica: Replica, peer: PeerRecord): Promise<{ readonly changes: number; readonly lagSeconds: number }> {
  const [row] = await replica.db.query(
    `WITH stated AS (
       SELECT changed_at FROM replication.record WHERE position > $1 AND origin IS DISTINCT FROM $2 ORDER BY position LIMIT $3
     ), written AS (
       SELECT model, key, min(clock) AS changed_at FROM (SELECT model, key, clock FROM replication.log LIMIT $3) l GROUP BY model, key
     ), counted AS (
       SELECT (SELECT count(*) FROM stated) + (
         SELECT count(*) FROM written w WHERE NOT EXISTS (
           SELECT FROM replication.record r WHERE r.model = w.model AND r.key = w.key AND r.position > $1 AND r.origin IS DISTINCT FROM $2)) AS changes
     )
     SELECT least(changes, $3),
            coalesce(greatest(0, (replication.clock() - least((SELECT min(changed_at) FROM stated), (SELECT min(changed_at) FROM written))) / 1e6), 0)
       FROM counted`,
    // Of a peer never heard of nothing came: no origin is empty.
    [peer.acknowledged?.position ?? 0, peer.incarnation === null ? '' : `${peer.name}.${peer.incarnation}`, PENDING_COUNTED],
  );
  return { changes: Number(row?.[0]), lagSeconds: Number(row?.[1]) };
}
