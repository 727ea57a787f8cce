/** PostgreSQL's own logical replication between two databases, set up so that it can be let go at a moment: what it then does is its stream, not a copy. */
import { setTimeout as sleep } from 'node:timers/promises';

import type pg from 'pg';

import { TABLE } from './records.ts';
import { withSession } from '../../src/storage/database.ts';

export const LOGICAL = 'PostgreSQL logical replication';

export interface Logical {
  /** Lets the changes go. */
  enable(): Promise<void>;
}

/** @param name - Of the slot and the subscription, different for each direction. */
export async function subscribe(publisher: string, subscriber: string, name: string): Promise<Logical> {
  await withSession(publisher, async (client) => {
    await client.query('CREATE PUBLICATION everything FOR TABLE users');
    await client.query('SELECT pg_create_logical_replication_slot($1, $2)', [name, 'pgoutput']);
  });
  const at = new URL(publisher);
  const connection = `host=${at.hostname} port=${at.port} user=${at.username} password=${at.password} dbname=${at.pathname.slice(1)}`;
  const tell = (statement: string): Promise<void> => withSession(subscriber, async (client) => void (await client.query(statement)));
  await tell(`CREATE SUBSCRIPTION ${name} CONNECTION '${connection}' PUBLICATION everything WITH (create_slot = false, slot_name = '${name}', enabled = false, copy_data = false, origin = none)`);
  return { enable: () => tell(`ALTER SUBSCRIPTION ${name} ENABLE`) };
}

export async function makeTable(url: string): Promise<void> {
  await withSession(url, async (client) => void (await client.query(TABLE)));
}

/** Takes the subscription and its slot away, so that the databases can be dropped. */
export async function unsubscribe(publisher: string, subscriber: string, name: string): Promise<void> {
  await withSession(subscriber, async (client) => {
    await client.query(`ALTER SUBSCRIPTION ${name} DISABLE`);
    await client.query(`ALTER SUBSCRIPTION ${name} SET (slot_name = NONE)`);
    await client.query(`DROP SUBSCRIPTION ${name}`);
  });
  await withSession(publisher, async (client) => {
    for (;;) {
      const { rows } = await client.query('SELECT FROM pg_replication_slots WHERE slot_name = $1 AND active', [name]);
      if (rows.length === 0) break;
      await sleep(50);
    }
    await client.query('SELECT pg_drop_replication_slot($1)', [name]);
  });
}

/** Waits until a query has a row. PostgreSQL tells nobody when it has applied something, so it is asked, every two milliseconds. */
export async function until(client: pg.Client, query: string): Promise<void> {
  for (;;) {
    if ((await client.query(query)).rows.length > 0) return;
    await sleep(2);
  }
}
