import { afterAll, afterEach, expect, it } from 'vitest';

import { createCollector } from '../../src/services/collector.ts';
import { createRoster } from '../../src/services/roster.ts';
import { addAddress, removeAddress, storeState } from '../../src/storage/addresses.ts';
import type { Collected } from '../../src/storage/collect.ts';
import { fold } from '../../src/storage/fold.ts';
import { learnRoster, readRoster } from '../../src/storage/replica.ts';
import { createParties } from './parties.ts';

const parties = createParties();
afterEach(parties.giveBack);
afterAll(parties.close);

it('asks the peers first, drops what all have, and then forgets it', async () => {
  const replica = await parties.open('a', { slot: 1 });
  await replica.db.query(`INSERT INTO users (nom, email) VALUES ('n', 'e')`);
  await replica.db.query('DELETE FROM users');
  await fold(replica, () => {});
  const told: (Collected | string)[] = [];
  const collector = createCollector({
    replica,
    retention: 0,
    exchange: async () => void told.push('asked'),
    onCollected: (collected) => void told.push(collected),
    onError: (error) => void told.push(String(error)),
  });
  // A peer that was never met may have opposed anything.
  await addAddress(replica.db, { name: 'b', url: 'http://127.0.0.1:1' });
  await collector.run();
  await removeAddress(replica.db, 'b');
  await collector.run();
  await collector.run();
  await collector.run();
  await collector.close();
  expect(told).toEqual(['asked', 'asked', { dropped: 1, forgotten: 0 }, 'asked', { dropped: 0, forgotten: 1 }, 'asked']);
});

it('runs by itself, at least as often as deletions are kept', async () => {
  const replica = await parties.open('a', { slot: 1 });
  // Each minute, where they are kept for longer: too late for this test.
  await new Promise<void>((resolve, reject) => {
    const collector = createCollector({ replica, retention: 1, exchange: async () => void collector.close().then(resolve, reject), onCollected: () => {}, onError: reject });
  });
});

it('strikes who does not come back, and nobody else', async () => {
  const replica = await parties.open('a', { slot: 1 });
  const member = (n: number, name: string) => ({ id: `00000000-0000-4000-8000-00000000000${n}`, name, slot: n, stride: 10 });
  await learnRoster(replica.db, [member(2, 'b'), member(3, 'c')]);
  await addAddress(replica.db, { name: 'b', url: 'http://127.0.0.1:1' });
  await storeState(replica.db, 'b', 'CONNECTED');
  const roster = createRoster(replica, 's');
  const strike = (name: string) => roster.strike(name, 'Bearer s');
  await expect(roster.strike('c', null)).rejects.toThrow('PEER_SECRET');
  await expect(strike('a')).rejects.toThrow('is this replica itself');
  await expect(strike('b')).rejects.toThrow('"b" answers');
  await expect(strike('x')).rejects.toThrow('there is no replica "x"');
  await strike('c');
  expect(await roster.members()).toEqual([{ name: 'a', struck: false }, { name: 'b', struck: false }, { name: 'c', struck: true }]);
  // Its name and slot are another's from then on.
  await learnRoster(replica.db, [{ ...member(4, 'c'), slot: 3 }]);
  expect((await readRoster(replica.db)).filter(({ name }) => name === 'c').map(({ struck }) => struck)).toEqual([true, undefined]);
});
