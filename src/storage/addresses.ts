/** Where the peers are: kept in the database, so that every gateway of a replica has the same. */
import type { Database, Transaction } from './database.ts';

export interface Address {
  readonly name: string;
  /** `http://…` without a slash at its end. */
  readonly url: string;
}

/** An address, and the state in which the peer there was last seen. */
export interface KnownPeer extends Address {
  readonly state: string;
}

/** In order of name. */
export async function readAddresses(db: Pick<Transaction, 'query'>): Promise<KnownPeer[]> {
  const rows = await db.query(
    `SELECT a.name, a.url, coalesce(p.state, 'UNKNOWN') FROM replication.address a LEFT JOIN replication.peer p USING (name) ORDER BY a.name`,
  );
  return rows.map(([name, url, state]) => ({ name: name as string, url: url as string, state: state as string }));
}

/**
 * Takes over what PEERS says at a start: its addresses win over those stored, and what it named at the last start and names no more is removed. What was added while running stays.
 */
export async function nameAddresses(db: Database, addresses: readonly Address[]): Promise<void> {
  await db.transaction(async (tx) => {
    await lock(tx);
    const named = JSON.stringify(addresses);
    const gone = await tx.query(
      `DELETE FROM replication.address a
        WHERE (a.named AND a.name NOT IN (SELECT name FROM json_to_recordset($1) AS x(name text)))
           OR a.url IN (SELECT url FROM json_to_recordset($1) AS x(name text, url text) WHERE x.name <> a.name)
       RETURNING a.name`,
      [named],
    );
    await forget(tx, gone.map(([name]) => name as string));
    await tx.query(
      `INSERT INTO replication.address (name, url, named) SELECT name, url, true FROM json_to_recordset($1) AS x(name text, url text)
       ON CONFLICT (name) DO UPDATE SET url = excluded.url, named = true`,
      [named],
    );
  });
}

/** Adds a peer. @returns null, or the address that stands in the way: the same name or the same URL. */
export async function addAddress(db: Database, { name, url }: Address): Promise<Address | null> {
  return db.transaction(async (tx) => {
    await lock(tx);
    const [taken] = await tx.query('SELECT name, url FROM replication.address WHERE (name = $1) <> (url = $2) ORDER BY name <> $1 LIMIT 1', [name, url]);
    if (taken) return { name: taken[0] as string, url: taken[1] as string };
    await tx.query('INSERT INTO replication.address (name, url, named) VALUES ($1, $2, false) ON CONFLICT DO NOTHING', [name, url]);
    return null;
  });
}

/** Removes a peer; how far the feeds were taken stays known. @returns its address; null where there is none of that name. */
export async function removeAddress(db: Database, name: string): Promise<Address | null> {
  return db.transaction(async (tx) => {
    await lock(tx);
    const [removed] = await tx.query('DELETE FROM replication.address WHERE name = $1 RETURNING url', [name]);
    if (!removed) return null;
    await forget(tx, [name]);
    return { name, url: removed[0] as string };
  });
}

/** Forgets what was seen of every peer: where nobody was there to look, it may not hold any more. */
export async function forgetSeen(db: Pick<Transaction, 'query'>): Promise<void> {
  await db.query(`UPDATE replication.peer SET state = 'UNKNOWN', reason = NULL, consistency = NULL WHERE state <> 'UNKNOWN' OR consistency IS NOT NULL`);
}

/** Notes in which state a peer is, and the reason where it is not connected. @param unless - States that this does not change. */
export async function storeState(
  db: Pick<Transaction, 'query'>,
  name: string,
  state: string,
  { reason = null, unless = [] }: { readonly reason?: string | null; readonly unless?: readonly string[] } = {},
): Promise<void> {
  await db.query(
    // Looked at first, since ON CONFLICT locks the row whatever comes of it, and taking a batch over holds that lock until its end.
    `INSERT INTO replication.peer (name, state, reason)
     SELECT $1, $2, $4 WHERE NOT EXISTS (SELECT FROM replication.peer WHERE name = $1 AND ((state = $2 AND reason IS NOT DISTINCT FROM $4) OR state = ANY ($3)))
     ON CONFLICT (name) DO UPDATE SET state = excluded.state, reason = excluded.reason WHERE peer.state <> ALL ($3)`,
    [name, state, unless, reason],
  );
}

/** Notes which share of the records is the same here and on a peer. */
export async function storeConsistency(db: Pick<Transaction, 'query'>, name: string, ratio: number): Promise<void> {
  await db.query('UPDATE replication.peer SET consistency = $2 WHERE name = $1 AND consistency IS DISTINCT FROM $2', [name, ratio]);
}

/** Notes a peer's clock less this one's, in seconds. */
export async function storeClockSkew(db: Pick<Transaction, 'query'>, name: string, seconds: number): Promise<void> {
  await db.query('INSERT INTO replication.peer (name, clock_skew) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET clock_skew = excluded.clock_skew', [name, seconds]);
}

/** Gateways that start or change addresses at once do it in turns. */
async function lock(tx: Transaction): Promise<void> {
  await tx.query('LOCK TABLE replication.address IN SHARE ROW EXCLUSIVE MODE');
}

async function forget(tx: Transaction, names: readonly string[]): Promise<void> {
  await tx.query(`UPDATE replication.peer SET state = 'UNKNOWN', reason = NULL, consistency = NULL, owed = false WHERE name = ANY ($1)`, [names]);
}
