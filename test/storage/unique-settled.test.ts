/** How a value that two records claim is settled by people. */
import { afterEach, describe, expect, it } from 'vitest';

import { listConflicts } from '../../src/storage/conflicts.ts';
import { decide, NotShownError, type Decision } from '../../src/storage/decide.ts';
import { expectSame } from '../support/compare.ts';
import { create, open, pending, replicas, rest, set, settleBy } from './accounts.ts';

afterEach(() => replicas.close());

describe('settled', () => {
  const collide = async (): Promise<void> => {
    await open('ab');
    await create('a', 'r', 'x');
    await create('b', 's', 'x');
    await rest();
  };

  it.each<[string, Decision]>([['by a strategy', { strategy: 'latest' }], ['by the side of the holder', { side: 'a' }]])('%s: what the other shows becomes its own', async (_how, decision) => {
    await collide();
    await settleBy('b', 's', decision);
    expect(await rest()).toEqual({ r: 'x', s: 'x#s' });
    expect(await pending('a')).toEqual([]);
    const [entry] = await listConflicts(replicas.at('a').replica.db, { status: 'RESOLVED', first: 1, before: null });
    expect(entry).toMatchObject({ resolution: 'strategy' in decision ? 'latest' : 'manual', resolvedBy: 'b' });
    await set('a', 'r', `email = 'z'`);
    expect(await rest()).toEqual({ r: 'z', s: 'x#s' });
  });

  it('by the other side: the holder gives the value up', async () => {
    await collide();
    await settleBy('a', 's', { side: 'b' });
    expect(await rest()).toEqual({ r: 'x#r', s: 'x' });
    expect([await pending('a'), await pending('b')]).toEqual([[], []]);
  });

  it('by values, which go to the record without', async () => {
    await collide();
    await settleBy('a', 's', { values: { email: 'new' } });
    expect(await rest()).toEqual({ r: 'x', s: 'new' });
    expect(await pending('b')).toEqual([]);
  });

  it('by values that still clash: nothing is changed', async () => {
    await collide();
    await expect(settleBy('a', 's', { values: { email: 'x' } })).rejects.toThrow(NotShownError);
    await expect(settleBy('a', 's', { values: { name: 'n' } })).resolves.toBeUndefined();
    expect(await rest()).toEqual({ r: 'x', s: 'x#s' });
  });

  it('by two people at once in different ways: a new conflict', async () => {
    await collide();
    await settleBy('a', 's', { strategy: 'latest' });
    await settleBy('b', 's', { side: 'b' });
    await replicas.rest();
    await expectSame(replicas);
    for (const name of 'ab') expect((await pending(name)).map(({ kind, key }) => [kind, key])).toEqual([['UPDATE_UPDATE', 's']]);
  });

  it('for one of three claimants that is not the next in line: refused', async () => {
    await open('abc');
    await create('a', 'r', 'x');
    await create('b', 's', 'x');
    await create('c', 't', 'x');
    await rest();
    await expect(settleBy('a', 't', { side: 'c' })).rejects.toThrow(NotShownError);
    await settleBy('a', 's', { side: 'b' });
    expect(await rest()).toEqual({ r: 'x#r', s: 'x', t: 'x#t' });
  });

  it('all together, beside an ordinary conflict on the same record', async () => {
    await collide();
    await set('a', 's', `name = 'a'`);
    await set('b', 's', `name = 'b'`);
    await replicas.rest();
    const ids = (await pending('a')).map(({ id }) => id);
    expect(ids).toHaveLength(2);
    await decide(replicas.at('a').replica, ids, { strategy: 'latest' }, false);
    expect(await rest()).toEqual({ r: 'x', s: 'x#s' });
    expect(await pending('b')).toEqual([]);
  });
});
