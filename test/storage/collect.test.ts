/** Dropping tombstones on real databases: the histories of test/replication/collection.test.ts that can be played there, and what only a database has. */
import { afterEach, describe, expect, it } from 'vitest';

import { collect, countTombstones } from '../../src/storage/collect.ts';
import { listConflicts } from '../../src/storage/conflicts.ts';
import { readWaiting } from '../../src/storage/present.ts';
import { strike } from '../../src/storage/replica.ts';
import { expectDigests, expectSame, statesOf, valuesOf } from '../support/compare.ts';
import { linksOf, openReplicas, type Replicas, type Topology } from '../support/replicas.ts';
import { ACCOUNTS, PEOPLE } from '../support/schemas.ts';

let replicas: Replicas;
afterEach(() => replicas.close());

const create = (name: string, key = 'r', f1 = '0'): Promise<unknown> => replicas.at(name).sql('INSERT INTO things VALUES ($1, $2)', [key, f1]);
const remove = (name: string, key = 'r'): Promise<unknown> => replicas.at(name).sql('DELETE FROM things WHERE id = $1', [key]);
const row = async (name: string, key = 'r'): Promise<string | null> => (await replicas.at(name).sql('SELECT f1 FROM things WHERE id = $1', [key]))[0]?.['f1'] ?? null;
const gather = (name: string, retention = 0): ReturnType<typeof collect> => collect(replicas.at(name).replica, retention);
const isHeld = async (name: string, key = 'r'): Promise<boolean> => (await replicas.at(name).sql('SELECT FROM replication.record WHERE key = $1', [key])).length > 0;

/** All hold the record and know of each other. */
async function holding(names: string, topology: Topology = 'mesh'): Promise<void> {
  replicas = await openReplicas(names);
  await create('a');
  await spread(topology);
}

/** Everybody tells everybody, until all know what all have. */
async function spread(topology: Topology = 'mesh'): Promise<void> {
  for (let round = 0; round < replicas.names.length + 2; round++) {
    for (const [from, to] of linksOf(topology, replicas.names)) await replicas.sync(from, to);
  }
}

async function collectAll(topology: Topology = 'mesh'): Promise<void> {
  for (let round = 0; round < 6; round++) {
    await spread(topology);
    let changed = 0;
    for (const name of replicas.names) {
      const { dropped, forgotten } = await gather(name);
      changed += dropped + forgotten;
    }
    if (changed === 0) return;
  }
  throw new Error('collection never comes to rest');
}

describe('histories', () => {
  it('recreate-after-gc-is-no-conflict', async () => {
    await holding('ab');
    await remove('b');
    await spread();
    expect(await gather('b')).toEqual({ dropped: 1, forgotten: 0 });
    await spread();
    expect(await gather('b')).toEqual({ dropped: 0, forgotten: 1 });
    expect([await isHeld('a'), await isHeld('b')]).toEqual([true, false]);
    await create('b', 'r', 'new');
    await replicas.sync('b', 'a');
    expect(await row('a')).toBe('new');
    expect(await listConflicts(replicas.at('a').replica.db, { status: null, first: 9, before: null })).toEqual([]);
    await collectAll();
    await expectSame(replicas);
  });

  it('late-batch-after-gc', async () => {
    await holding('abc');
    await replicas.at('b').sql(`UPDATE things SET f1 = 'x'`);
    const [a, b] = [replicas.at('a'), replicas.at('b')];
    // The batch is built and held back; a hears the rest through c alone.
    let arrive = (): void => {};
    const held = new Promise<void>((resolve) => (arrive = resolve));
    let leave = (): void => {};
    const left = new Promise<void>((resolve) => (leave = resolve));
    const late = replicas.sync('b', 'a', () => {
      leave();
      return held;
    });
    await left;
    await remove('b');
    for (let round = 0; round < 6; round++) {
      for (const [from, to] of [['b', 'c'], ['c', 'b'], ['c', 'a'], ['a', 'c']] as const) await replicas.sync(from, to);
      await gather('a');
    }
    expect(await isHeld('a')).toBe(false);
    arrive();
    await late;
    expect([await row('a'), a.problems, b.problems]).toEqual([null, [], []]);
  });

  it('gc-with-unseen-concurrent-edit', async () => {
    await holding('abc', 'chain');
    await remove('a');
    await replicas.sync('a', 'b');
    await replicas.at('c').sql(`UPDATE things SET f1 = 'x'`);
    await replicas.sync('c', 'b');
    expect(await gather('a')).toEqual({ dropped: 0, forgotten: 0 });
    await spread('chain');
    expect(await valuesOf(replicas.at('a'), 'r')).toEqual(['deleted', 'x,']);
  });

  it('restore-across-gc', async () => {
    replicas = await openReplicas('ab');
    await create('a', 's');
    await spread();
    await create('a');
    await replicas.at('a').settle();
    const backup = await replicas.backup('a');
    await spread();
    await remove('b');
    await spread();
    await gather('b');
    await spread();
    await gather('b');
    expect(await isHeld('b')).toBe(false);
    await replicas.restore('a', backup);
    await create('a', 't', 'since');
    await replicas.sync('a', 'b');
    expect([await row('b'), await row('b', 't')]).toEqual([null, 'since']);
    // Nobody finds an empty table meanwhile.
    expect([await row('a'), await row('a', 's')]).toEqual(['0', '0']);
    await replicas.sync('b', 'a');
    await replicas.at('a').settle();
    expect([await row('a'), await row('a', 's'), await row('a', 't')]).toEqual([null, '0', 'since']);
    expect(await replicas.at('a').sql('SELECT key FROM replication.aside')).toEqual([{ key: 'r' }]);
    expect(replicas.at('a').problems.splice(0)).toEqual([expect.stringContaining('this database went back in time')]);
    await collectAll();
    await expectSame(replicas);
  });

  it.each<[string, Topology]>([['abc', 'chain'], ['abcd', 'ring'], ['abcd', 'star']])('the replicas %s in a %s forget what is deleted, and then send nothing', async (names, topology) => {
    await holding(names, topology);
    await remove('b');
    await create('b', 's', 'stays');
    await collectAll(topology);
    for (const name of names) expect([await isHeld(name), await row(name, 's'), await countTombstones(replicas.at(name).replica)]).toEqual([false, 'stays', 0]);
    await expectSame(replicas);
    for (const [from, to] of linksOf(topology, replicas.names)) expect((await replicas.sync(from, to))?.sent).toBe(0);
  });

  it('a replica that is away holds everything up, until it is struck; then it is not listened to', async () => {
    await holding('abc');
    await remove('b');
    const both = async (): Promise<void> => {
      for (let round = 0; round < 4; round++) {
        await replicas.sync('a', 'b');
        await replicas.sync('b', 'a');
        await gather('a');
        await gather('b');
      }
    };
    await both();
    expect([await isHeld('a'), await isHeld('b')]).toEqual([true, true]);
    await strike(replicas.at('a').replica.db, replicas.at('c').replica.id);
    await both();
    expect([await isHeld('a'), await isHeld('b')]).toEqual([false, false]);
    await expect(replicas.sync('c', 'b')).rejects.toThrow('this replica was struck from the roster');
    await expect(replicas.sync('b', 'c')).rejects.toThrow('it was struck from the roster');
    expect(await row('b')).toBeNull();
  });
});

describe('keys', () => {
  it.each([3, 11_000])('of the own slot that come back after a restore, %i of them, are not given out again', async (lost) => {
    replicas = await openReplicas('ab', { schema: PEOPLE });
    const backup = await replicas.backup('a');
    await replicas.at('a').sql(`INSERT INTO people (age) SELECT n FROM generate_series(1, ${lost}) n`);
    await replicas.rest();
    await replicas.restore('a', backup);
    await replicas.rest();
    await replicas.at('a').sql('INSERT INTO people (age) VALUES (0)');
    const [found] = await replicas.at('a').sql('SELECT count(*), max(id) FROM people');
    expect(found).toEqual({ count: String(lost + 1), max: String(lost * 10 + 1) });
  });
});

describe('collection', () => {
  it('keeps a deletion for as long as it is told to', async () => {
    await holding('ab');
    await remove('b');
    await spread();
    expect(await gather('b', 3_600)).toEqual({ dropped: 0, forgotten: 0 });
    expect(await countTombstones(replicas.at('b').replica)).toBe(1);
  });

  it('goes on while a record beside whose deletion another claims its value has no row', async () => {
    replicas = await openReplicas('ab', { schema: ACCOUNTS });
    const [{ sql: onA }, { sql: onB }] = [replicas.at('a'), replicas.at('b')];
    await onA(`INSERT INTO accounts (id, email) VALUES ('s', 's'), ('t', 't')`);
    await spread();
    await onA(`INSERT INTO accounts (id, email) VALUES ('r', 'twelve chars')`);
    await onA(`DELETE FROM accounts WHERE id IN ('s', 't')`);
    await onB(`UPDATE accounts SET email = 'twelve chars' WHERE id = 's'`);
    await collectAll();
    expect((await readWaiting(replicas.at('b').replica, 10)).map(({ key, held }) => [key, held])).toEqual([['s', null]]);
    expect([await isHeld('a', 't'), await isHeld('b', 't')]).toEqual([false, false]);
    // Whoever makes the row anew has not seen the deletion: that is a side of its own.
    await onB(`INSERT INTO accounts (id, email) VALUES ('s', 'anew')`);
    await spread();
    expect(await valuesOf(replicas.at('a'), 's', 'Account')).toEqual(['anew,,t,', 'deleted', 'twelve chars,,t,']);
  });

  it('leaves no trace in the digests of what is a ghost', async () => {
    await holding('ab');
    await create('a', 's');
    await remove('b');
    await spread();
    await gather('b');
    for (const name of ['a', 'b']) await expectDigests(replicas.at(name), await statesOf(replicas.at(name)));
    await spread();
    await expectSame(replicas);
  });

  it('takes the deletions of a large table away in pages', async () => {
    replicas = await openReplicas('ab');
    await replicas.at('a').sql(`INSERT INTO things SELECT 'k' || n, 'v' FROM generate_series(1, 2500) n`);
    await replicas.at('a').settle();
    await replicas.at('a').sql('DELETE FROM things');
    await collectAll();
    for (const name of ['a', 'b']) expect(await countTombstones(replicas.at(name).replica)).toBe(0);
  });
});
