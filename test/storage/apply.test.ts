/** Taking over what a peer sends: once, whole, and without losing what local writers do meanwhile. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import type { Checkpoint } from '../../src/replication/exchange.ts';
import type { WireRecord, WireVersion } from '../../src/replication/wire.ts';
import { applyRecords, type Applied } from '../../src/storage/apply.ts';
import { readPeer } from '../../src/storage/checkpoints.ts';
import { readFeed } from '../../src/storage/feed.ts';
import { fold } from '../../src/storage/fold.ts';
import { recordsOf } from '../support/batches.ts';
import { expectDigests, expectSame, statesOf, valuesOf } from '../support/compare.ts';
import { interceptOnce } from '../support/intercept.ts';
import { openReplicas, type Replicas, type TestReplica } from '../support/replicas.ts';
import { PEOPLE } from '../support/schemas.ts';

let replicas: Replicas;
let a: TestReplica;
let b: TestReplica;
let receiver: string;

const PEER = { name: 'p', incarnation: 'p1' };
const at = (position: number): Checkpoint => ({ incarnation: PEER.incarnation, position });

/** A version written by the peer, having seen `seen`. */
const version = (stamp: number, f1: string | null, seen: Record<string, number> = {}): WireVersion => ({
  v: { ...seen, 'p.p1': stamp },
  f: f1 === null ? null : { f1, f2: '0' },
  s: f1 === null ? {} : { '*': ['p.p1', stamp] },
});
const record = (key: string, ...versions: WireVersion[]): WireRecord => ['Thing', key, versions];
const apply = (records: WireRecord[], start: Checkpoint | null, end: Checkpoint): Promise<Applied> => applyRecords(a.replica, PEER, records, { receiver, start, end, more: false });
const count = async (table: string): Promise<number> => Number((await a.sql(`SELECT count(*) FROM ${table}`))[0]?.['count']);

beforeEach(async () => {
  replicas = await openReplicas('ab');
  [a, b] = [replicas.at('a'), replicas.at('b')];
  receiver = (await a.sql('SELECT replication.incarnation() AS i'))[0]?.['i'] as string;
});

afterEach(() => replicas.close());

describe('a batch', () => {
  it('counts once: again, or out of turn, it is refused and changes nothing', async () => {
    expect(await apply([record('x', version(5, 'p'))], null, at(1))).toMatchObject({ applied: 1, skipped: 0, differing: [] });
    await expect(apply([record('x', version(5, 'p'))], null, at(1))).rejects.toMatchObject({ code: 'CHECKPOINT_MISMATCH' });
    await expect(apply([record('y', version(5, 'p'))], at(2), at(3))).rejects.toMatchObject({ code: 'CHECKPOINT_MISMATCH' });
    await expect(apply([record('y', version(5, 'p'))], { incarnation: 'p2', position: 1 }, at(3))).rejects.toMatchObject({ code: 'CHECKPOINT_MISMATCH' });
    receiver = 'elsewhen';
    await expect(apply([record('y', version(5, 'p'))], at(1), at(3))).rejects.toMatchObject({ code: 'CHECKPOINT_MISMATCH' });
    expect(await count('things')).toBe(1);
    expect((await readPeer(a.replica.db, 'p')).taken).toMatchObject(at(1));
  });

  it('after which the peer holds what is here of it leaves nothing to send back to it', async () => {
    expect((await apply([record('x', version(5, 'p')), record('y', version(5, 'p'))], null, at(1))).fresh).toMatchObject({ after: 0, peer: 'p.p1', batch: { end: 2, count: 0, more: false, standing: { incarnation: receiver } } });
    expect((await apply([record('x', version(5, 'p'))], at(1), at(2))).fresh).toMatchObject({ after: 2, batch: { end: 2 } });
    await a.sql(`UPDATE things SET f2 = 'a' WHERE id = 'y'`);
    for (const [n, stored] of [record('y', version(6, 'q', { 'p.p1': 6 })), record('y', version(7, 'q', { 'p.p1': 7 }))].entries()) {
      expect((await apply([stored, record('z', version(6 + n, 'p', { 'p.p1': 6 + n }))], at(2 + n), at(3 + n))).fresh).toBeNull();
    }
  });

  it('that answers what an earlier incarnation of this replica asked is not taken', async () => {
    const report = (incarnation: string): Promise<Applied> => applyRecords(a.replica, PEER, [record('x', version(5, 'p'))], null, { incarnation, generation: 0 });
    expect(await report('elsewhen')).toMatchObject({ applied: 0, skipped: 1 });
    expect(await count('things')).toBe(0);
    expect(await report(receiver)).toMatchObject({ applied: 1, skipped: 0 });
  });

  it('that comes from two sides at once is taken from one', async () => {
    const tries = await Promise.allSettled(Array.from({ length: 5 }, () => apply([record('x', version(5, 'p'))], null, at(1))));
    expect(tries.map(({ status }) => status).toSorted()).toEqual(['fulfilled', ...Array.from({ length: 4 }, () => 'rejected')]);
    expect(await a.sql('SELECT position FROM replication.record')).toHaveLength(1);
  });

  it.each([
    ['the state', 'replication.record'],
    ['the conflict log', 'replication.conflict'],
    ['the digests', 'replication.digest'],
    ['the checkpoint', 'replication.peer'],
  ])('is taken whole or not at all: %s cannot be written', async (_what, table) => {
    await a.sql(`INSERT INTO things VALUES ('x', 'a', '0')`);
    await a.settle();
    const before = await statesOf(a);
    await a.sql(`CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'disk full' USING ERRCODE = '53100'; END $$;
      CREATE TRIGGER fail BEFORE INSERT OR UPDATE ON ${table} FOR EACH ROW EXECUTE FUNCTION fail()`);
    const batch = [record('x', version(5, 'p')), record('y', version(5, 'p'))];
    await expect(apply(batch, null, at(2))).rejects.toThrow('disk full');
    expect(await statesOf(a)).toEqual(before);
    expect([await count('things'), await count('replication.conflict'), (await readPeer(a.replica.db, 'p')).taken]).toEqual([1, 0, null]);
    await expectDigests(a, before);
    await a.sql(`DROP TRIGGER fail ON ${table}`);
    expect(await apply(batch, null, at(2))).toMatchObject({ applied: 2 });
    expect([await count('things'), await count('replication.conflict')]).toEqual([2, 1]);
  });

  it('may name a record twice, or hold versions that others cover', async () => {
    const old = version(5, 'old');
    const newer = version(9, 'new', { 'q.1': 3 });
    const other = { v: { 'q.1': 4 }, f: { f1: 'q', f2: '0' }, s: { '*': ['q.1', 4] } } satisfies WireVersion;
    await apply([record('x', newer, old), record('y', old), record('y', other, newer, newer)], null, at(2));
    expect([await valuesOf(a, 'x'), await valuesOf(a, 'y')]).toEqual([['new,0'], ['new,0', 'q,0']]);
    expect(await count('replication.conflict')).toBe(1);
    await expectDigests(a, await statesOf(a));
  });

  it('keeps both of two versions with one vector, and tells of them', async () => {
    await apply([record('x', version(5, 'one'))], null, at(1));
    await apply([record('x', version(5, 'two'))], at(1), at(2));
    expect(await valuesOf(a, 'x')).toEqual(['one,0', 'two,0']);
    expect(a.problems.splice(0)).toEqual(['Thing x: peer "p" sent a version that is stored here with other values; both are kept']);
  });

  it.each<[string, WireRecord]>([
    ['an unknown model', ['Ghost', 'x', [version(5, 'p')]]],
  ])('with %s is refused whole', async (_what, odd) => {
    await expect(apply([record('good', version(5, 'p')), odd], null, at(2))).rejects.toMatchObject({ code: 'BAD_MESSAGE' });
    expect(await count('replication.record')).toBe(0);
  });

  it('is taken as it is where its fields are not those known here', async () => {
    const odd = { ...version(5, 'p'), f: { f2: '0', f3: '3', toString: 't', F2: null } };
    await apply([record('x', odd)], null, at(1));
    expect((await statesOf(a)).get('Thing x')).toEqual([{ vector: odd.v, fields: odd.f, stamps: odd.s }]);
    expect(await a.sql('SELECT f1, f2 FROM things')).toEqual([{ f1: null, f2: '0' }]);
  });

  it('sends back what the sender does not hold', async () => {
    await a.sql(`INSERT INTO things VALUES ('x', 'a', '0'), ('y', 'a', '0')`);
    const { differing, conflicts } = await apply([record('x', version(5, 'p')), record('z', version(5, 'p'))], null, at(2));
    expect(differing.map(([, key, versions]) => [key, versions.length])).toEqual([['x', 2]]);
    expect(conflicts.detected).toMatchObject([{ model: 'Thing', key: 'x', kind: 'INSERT_INSERT' }]);
    // x is not what the peer sent, z is.
    expect(recordsOf(await readFeed(a.replica, 0, 'p.p1')).map(([, key]) => key)).toEqual(['x']);
    await a.settle();
    expect(recordsOf(await readFeed(a.replica, 0, 'p.p1')).map(([, key]) => key).toSorted()).toEqual(['x', 'y']);
  });

  it('does not go into states with a wrong type: such a record waits', async () => {
    await replicas.close();
    replicas = await openReplicas('a', { schema: PEOPLE });
    a = replicas.at('a');
    receiver = (await a.sql('SELECT replication.incarnation() AS i'))[0]?.['i'] as string;
    const person = (key: string, age: string): WireRecord => ['Person', key, [{ v: { 'p.p1': 5 }, f: { email: null, age }, s: { '*': ['p.p1', 5] } }]];
    expect(await apply([person('1', 'ten'), person('2', '10')], null, at(2))).toMatchObject({ applied: 2 });
    expect(await a.sql('SELECT id FROM people')).toEqual([{ id: '2' }]);
    expect(await a.sql('SELECT key, waiting FROM replication.record WHERE waiting IS NOT NULL')).toEqual([{ key: '1', waiting: 'invalid input syntax for type integer: "ten"' }]);
  });
});

describe('local writers meanwhile', () => {
  it('lose nothing: each write is shown, seen by what is shown, or a side', async () => {
    const keys = ['k1', 'k2', 'k3', 'k4'];
    await a.sql(`INSERT INTO things SELECT unnest($1::text[]), '0', '0'`, [keys]);
    await replicas.rest();
    const written: [string, string][] = [];
    const writing = { on: true };
    const writer = (client: number, on: TestReplica): Promise<void> =>
      on.session(async (session) => {
        for (let n = 0; writing.on; n++) {
          // In any order of rows, and of several in one transaction: deadlocks are the writer's to try again.
          const [first, second] = [keys[(client + n) % 4], keys[(client * 3 + n * 2 + 1) % 4]] as [string, string];
          const value = `${on.name}${client}.${n}`;
          try {
            await session.query('BEGIN');
            await session.query('UPDATE things SET f1 = $2 WHERE id = $1', [first, value]);
            if (second !== first) await session.query('UPDATE things SET f1 = $2 WHERE id = $1', [second, value]);
            await session.query('COMMIT');
            written.push([`${on.name} ${first}`, value]);
          } catch (error) {
            if ((error as { code?: string }).code !== '40P01') throw error;
            await session.query('ROLLBACK');
          }
        }
      });
    const syncing = async (): Promise<void> => {
      for (let i = 0; i < 10; i++) await replicas.sync(i % 2 ? 'a' : 'b', i % 2 ? 'b' : 'a');
      writing.on = false;
    };
    await Promise.all([syncing(), ...[0, 1, 2].flatMap((client) => [writer(client, a), writer(client, b)])]);
    await replicas.rest();
    const states = await expectSame(replicas);
    expect(written.length).toBeGreaterThan(20);
    for (const key of keys) {
      // Each side's last write is what it shows, whatever came from the other.
      for (const on of [a, b]) {
        const [row] = await on.sql('SELECT f1 FROM things WHERE id = $1', [key]);
        const sides = states.get(`Thing ${key}`)?.map(({ fields }) => fields?.['f1']);
        expect(sides).toContain(row?.['f1']);
        expect(row?.['f1']?.[0]).toBe(on.name);
      }
      expect((await a.sql(`SELECT FROM replication.conflict WHERE key = $1 AND status = 'PENDING'`, [key])).length).toBe(1);
    }
  });

  it('may hold a row: the batch waits for it, and takes their write with it', async () => {
    await a.sql(`INSERT INTO things VALUES ('x', '0', '0')`);
    await replicas.rest();
    await b.sql(`UPDATE things SET f1 = 'b' WHERE id = 'x'`);
    let done: Promise<unknown> = Promise.resolve();
    await a.session(async (session) => {
      await session.query(`BEGIN; UPDATE things SET f1 = 'a' WHERE id = 'x'`);
      done = replicas.sync('b', 'a');
      await lockWaited(a);
      await session.query('COMMIT');
    });
    await done;
    expect(await valuesOf(a, 'x')).toEqual(['a,0', 'b,0']);
    await replicas.rest();
    await expectSame(replicas);
  });

  it('may create the same key: neither creation is lost', async () => {
    await b.sql(`INSERT INTO things VALUES ('x', 'b', '0')`);
    let done: Promise<unknown> = Promise.resolve();
    await a.session(async (session) => {
      await session.query(`BEGIN; INSERT INTO things VALUES ('x', 'a', '0')`);
      done = replicas.sync('b', 'a');
      await lockWaited(a);
      await session.query('COMMIT');
    });
    await done;
    expect(await valuesOf(a, 'x')).toEqual(['a,0', 'b,0']);
    expect(await a.sql(`SELECT f1 FROM things`)).toEqual([{ f1: 'a' }]);
    expect(await a.sql('SELECT FROM replication.record WHERE waiting IS NOT NULL')).toEqual([]);
    await replicas.rest();
    await expectSame(replicas);
  });

  it('may create the same key and delete it again, between the reading of the record and the making of its row: the deletion is a side', async () => {
    const between = interceptOnce(a.replica.db, 'INSERT INTO "public"."things"', async () => {
      await a.sql(`INSERT INTO things VALUES ('x', 'own', '0')`);
      await a.sql('DELETE FROM things');
    });
    await apply([record('x', version(5, 'theirs'))], null, at(1));
    expect(between.done).toBe(true);
    expect(await valuesOf(a, 'x')).toEqual(['deleted', 'theirs,0']);
  });

  it('may change the row between the reading of its log and the fold: the later write counts as well', async () => {
    await a.sql(`INSERT INTO things VALUES ('x', '0', '0')`);
    await Promise.all(Array.from({ length: 20 }, async (_, n) => {
      await a.sql(`UPDATE things SET f1 = $1`, [String(n)]);
      await fold(a.replica, () => {});
    }));
    const [row] = await a.sql('SELECT f1 FROM things');
    expect(await valuesOf(a, 'x')).toEqual([`${row?.['f1']},0`]);
    await replicas.rest();
    await expectSame(replicas);
  });

  it('may work under any isolation level that the database is set to', async () => {
    const name = new URL(a.url).pathname.slice(1);
    await a.sql(`ALTER DATABASE ${name} SET default_transaction_isolation = 'repeatable read'`);
    try {
      await replicas.reopen('a');
      a = replicas.at('a');
      await a.sql(`INSERT INTO things VALUES ('x', '0', '0')`);
      await replicas.rest();
      let attempts = 0;
      const { db } = a.replica;
      const counting = { ...a.replica, db: { ...db, transaction: <T>(work: Parameters<typeof db.transaction<T>>[0]) => db.transaction<T>((tx) => (attempts++, work(tx))) } };
      let done: Promise<unknown> = Promise.resolve();
      await a.session(async (session) => {
        await session.query(`BEGIN; UPDATE things SET f1 = 'a'`);
        done = applyRecords(counting, PEER, [record('x', version(5, 'p'))], null);
        await lockWaited(a);
        await session.query('COMMIT');
      });
      await done;
      expect(attempts).toBe(1);
      expect(await valuesOf(a, 'x')).toEqual(['a,0', 'p,0']);
    } finally {
      await a.sql(`ALTER DATABASE ${name} RESET default_transaction_isolation`);
    }
  });
});

/** Returns once somebody waits for a lock: the database tells. */
async function lockWaited(on: TestReplica): Promise<void> {
  await on.sql(`DO $$ BEGIN FOR n IN 1..2000 LOOP
    IF EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock') THEN RETURN; END IF;
    PERFORM pg_sleep(0.005), pg_stat_clear_snapshot();
  END LOOP; RAISE 'nobody waits for a lock'; END $$`);
}
