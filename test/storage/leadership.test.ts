import { afterAll, afterEach, beforeAll, expect, it } from 'vitest';

import { openDatabase, type Database } from '../../src/storage/database.ts';
import { openSeat, type Seat } from '../../src/storage/leadership.ts';
import { installSchema } from '../../src/storage/schema.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';

let database: TestDatabase;
let db: Database;
const seats: Seat[] = [];
beforeAll(async () => {
  database = await createTestDatabase();
  db = openDatabase(database.url, { size: 2, onError: () => {} });
  await db.transaction(installSchema);
});
afterEach(() => Promise.all(seats.splice(0).map((seat) => seat.close())));
afterAll(async () => {
  await db.close();
  await database.close();
});

async function open(): Promise<Seat> {
  const seat = await openSeat(database.url);
  seats.push(seat);
  return seat;
}
/** As one that waits does it: each wait lasts a while only. */
async function wait(seat: Seat): Promise<void> {
  while (!(await seat.awaitLead())) continue;
}

it('one session has the lead, and another when it has ended', async () => {
  const [one, other] = [await open(), await open()];
  expect([await one.tryLead(), await other.tryLead()]).toEqual([true, false]);
  expect([await one.renew(), await other.renew()]).toEqual([true, false]);
  const waited = wait(other);
  await one.close();
  await waited;
  expect(await other.renew()).toBe(true);
  await expect(one.renew()).rejects.toThrow();
});

it('a wait ends by itself, so that it holds no snapshot for ever', async () => {
  const [one, other] = [await open(), await open()];
  await wait(one);
  expect(await other.awaitLead()).toBe(false);
});

it('a leader whose lease is stale loses its session; one that renews keeps it', async () => {
  const [one, other] = [await open(), await open()];
  await wait(one);
  expect(await other.depose(60)).toBe(false);
  await db.query('UPDATE replication.leader SET renewed_at = renewed_at - 61000000');
  await one.renew();
  expect(await other.depose(60)).toBe(false);
  await db.query('UPDATE replication.leader SET renewed_at = renewed_at - 61000000');
  expect(await other.depose(60)).toBe(true);
  await one.ended;
  await wait(other);
  expect(await other.renew()).toBe(true);
});

it('a lease left behind harms nobody who does not lead', async () => {
  const [one, other] = [await open(), await open()];
  await wait(one);
  // As after a crash: the lease names a session that holds no lock.
  await db.query(`UPDATE replication.leader SET renewed_at = 0, pid = (SELECT pid FROM pg_stat_activity WHERE application_name = 'replique leadership' ORDER BY backend_start DESC LIMIT 1)`);
  expect(await other.depose(60)).toBe(false);
  // And one that leads in the database's eyes no more is told so.
  expect(await one.renew()).toBe(false);
});
