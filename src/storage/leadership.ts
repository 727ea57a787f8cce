/**
 * The seat of the gateway that leads: an advisory lock on a session of its own, and a lease beside it.
 *
 * The lock passes to another as soon as the holder's session ends, however its process died. The lease is for a process that is stopped and does not die: its session stays, and the lease goes stale.
 * A session is what a pooler in transaction mode cannot carry; `renew` notices that it does not have one.
 */
import pg from 'pg';

/** One session with the database. Every call fails once that has ended. */
export interface Seat {
  /** Takes the lead where nobody has it. */
  tryLead(): Promise<boolean>;
  /** Waits for the lead a few seconds. */
  awaitLead(): Promise<boolean>;
  /** Renews the lease. @returns false where this session does not lead. */
  renew(): Promise<boolean>;
  /** Ends the session of a leader whose lease is stale; the lock is free then. @returns whether there was one. */
  depose(staleSeconds: number): Promise<boolean>;
  /** Resolves when the session has ended. */
  readonly ended: Promise<void>;
  /** Ends it, and with it the lead. */
  close(): Promise<void>;
}

/** The database answers in this time (waiting for the lead included), or the session is given up. */
const ANSWER_MS = 8_000;

export async function openSeat(url: string): Promise<Seat> {
  const client = new pg.Client({
    connectionString: url,
    connectionTimeoutMillis: ANSWER_MS,
    query_timeout: ANSWER_MS,
    keepAlive: true,
    application_name: 'replique leadership',
  });
  const ended = new Promise<void>((resolve) => {
    client.on('end', resolve);
    client.on('error', () => resolve());
  });
  await client.connect();
  // After a failure the session is not to be trusted: whether the query went through is not known.
  const ask = async (sql: string, values: unknown[] = []): Promise<boolean> => {
    try {
      const { rows } = await client.query<{ answer: boolean }>(`SELECT ${sql} AS answer`, values);
      return rows[0]?.answer === true;
    } catch (error) {
      void client.end();
      throw error;
    }
  };
  return {
    tryLead: () => ask('replication.try_lead()'),
    awaitLead: () => ask('replication.await_lead()'),
    renew: () => ask('replication.renew_lead()'),
    depose: (staleSeconds) => ask('replication.depose($1)', [staleSeconds]),
    ended,
    close: () => client.end(),
  };
}
