/** The moment at which a row is visible in a database, told by the database itself: nobody has to ask over and over, which would slow down what is measured. */
import { withSession } from '../../src/storage/database.ts';

export interface Arrivals {
  /** When, by `performance.now()`, a row with this telephone was written for all to see. To be asked for before it can be. */
  of(telephone: string): Promise<number>;
}

/** Fires for whoever writes, a subscription's worker included. */
const TRIGGER = `
  CREATE OR REPLACE FUNCTION tell_arrival() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('arrivals', NEW.telephone); RETURN NULL; END $$;
  CREATE TRIGGER tell_arrival AFTER INSERT OR UPDATE ON users FOR EACH ROW EXECUTE FUNCTION tell_arrival();
  ALTER TABLE users ENABLE ALWAYS TRIGGER tell_arrival`;

export async function withArrivals<T>(url: string, work: (arrivals: Arrivals) => Promise<T>): Promise<T> {
  return withSession(url, async (client) => {
    const waiting = new Map<string, (at: number) => void>();
    client.on('notification', ({ payload = '' }) => {
      waiting.get(payload)?.(performance.now());
      waiting.delete(payload);
    });
    await client.query('LISTEN arrivals');
    await client.query(TRIGGER);
    try {
      return await work({ of: (telephone) => new Promise((arrived) => waiting.set(telephone, arrived)) });
    } finally {
      await client.query('DROP TRIGGER tell_arrival ON users');
    }
  });
}
