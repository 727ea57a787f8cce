/** How far feeds were taken: each peer's here, ours there. */
import type { Taken } from '../replication/exchange.ts';
import type { Transaction } from './database.ts';
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
}

type Queryable = Pick<Transaction, 'query'>;

export async function readPeer(db: Queryable, name: string): Promise<PeerRecord> {
  const [row] = await db.query(
    `SELECT taken_incarnation, taken_position, taken_by, acked_incarnation, acked_position, acked_by, incarnation, owed, last_sync_at
       FROM replication.peer WHERE name = $1`,
    [name],
  );
  const [taken, position, taker, acked, ackedPosition, acker, incarnation, owed, lastSyncAt] = row ?? [];
  return {
    name,
    taken: taken ? { incarnation: taken, position: Number(position), taker: taker as string } : null,
    acknowledged: acked ? { incarnation: acked, position: Number(ackedPosition), taker: acker as string } : null,
    incarnation: incarnation ?? null,
    owed: owed === 't',
    lastSyncAt: lastSyncAt ? Number(lastSyncAt) : null,
  };
}

/** Stores how far a peer's feed was taken: in the transaction that takes the changes over, so that a batch counts once. */
export async function storeTaken(tx: Transaction, name: string, { incarnation, position, taker }: Taken): Promise<void> {
  await tx.query(
    `INSERT INTO replication.peer (name, taken_incarnation, taken_position, taken_by, incarnation) VALUES ($1, $2, $3, $4, $2)
     ON CONFLICT (name) DO UPDATE SET taken_incarnation = excluded.taken_incarnation, taken_position = excluded.taken_position,
       taken_by = excluded.taken_by, incarnation = excluded.incarnation`,
    [name, incarnation, position, taker],
  );
}

/** Notes how far a peer has taken this replica's feed; not where the database was put back since it was sent: what was taken then is not what is here now. */
export async function storeAcknowledged(db: Queryable, name: string, { incarnation, position, taker }: Taken): Promise<void> {
  await db.query(
    `INSERT INTO replication.peer (name, acked_incarnation, acked_position, acked_by, incarnation)
     SELECT $1, $2, $3, $4, $4 WHERE replication.incarnation() = $2
     ON CONFLICT (name) DO UPDATE SET acked_incarnation = excluded.acked_incarnation, acked_position = excluded.acked_position,
       acked_by = excluded.acked_by, incarnation = excluded.incarnation`,
    [name, incarnation, position, taker],
  );
}

/** Notes a finished sync: nothing is owed any more. */
export async function storeSynced(db: Queryable, name: string): Promise<void> {
  await db.query(
    `INSERT INTO replication.peer (name, last_sync_at) VALUES ($1, replication.clock())
     ON CONFLICT (name) DO UPDATE SET owed = false, last_sync_at = excluded.last_sync_at`,
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

/**
 * What a peer has not acknowledged: how many records, and the age of the oldest change among them in seconds (0 where there is none).
 */
export async function readPending(replica: Replica, peer: PeerRecord): Promise<{ readonly changes: number; readonly lagSeconds: number }> {
  const [row] = await replica.db.query(
    `WITH pending AS (
       SELECT r.model, r.key, r.changed_at FROM replication.record r
        WHERE r.position > $1 AND r.origin IS DISTINCT FROM $2
       UNION ALL
       SELECT l.model, l.key, l.clock FROM replication.log l
     )
     SELECT count(DISTINCT (model, key)), coalesce(greatest(0, (replication.clock() - min(changed_at)) / 1e6), 0) FROM pending`,
    // Of a peer never heard of nothing came: no origin is empty.
    [peer.acknowledged?.position ?? 0, peer.incarnation === null ? '' : `${peer.name}.${peer.incarnation}`],
  );
  return { changes: Number(row?.[0]), lagSeconds: Number(row?.[1]) };
}
