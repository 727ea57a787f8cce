/** SYNC_MODE=continuous over every shape of links, under every policy, with a part of them cut while all are written to. */
import { afterEach, describe, expect, it } from 'vitest';

import { startFleet, type Fleet, type FleetReplica } from '../support/fleet.ts';

type Links = Readonly<Record<string, readonly string[]>>;
const SHAPES: Readonly<Record<string, Links>> = {
  pair: { a: ['b'], b: ['a'] },
  chain: { a: ['b'], b: ['a', 'c'], c: ['b'] },
  ring: { a: ['b'], b: ['c'], c: ['d'], d: ['a'] },
  star: { a: ['b', 'c', 'd'], b: ['a'], c: ['a'], d: ['a'] },
  mesh: { a: ['b', 'c', 'd'], b: ['a', 'c', 'd'], c: ['a', 'b', 'd'], d: ['a', 'b', 'c'] },
};

let fleet: Fleet;
afterEach(() => fleet.close());

async function eventually<T>(ask: () => Promise<T>, wanted: (answer: T) => boolean): Promise<T> {
  for (;;) {
    const answer = await ask();
    if (wanted(answer)) return answer;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}
const states = async (on: FleetReplica): Promise<string> => JSON.stringify(await on.sql('SELECT key, hash FROM replication.record ORDER BY key'));
const insert = (on: FleetReplica, what: string) => on.sql(`INSERT INTO users (nom, email) VALUES ($1, $1 || '@x.org')`, [on.name + what]);

describe.each(Object.keys(SHAPES))('%s', (shape) => {
  it.each(['manual', 'latest', 'field-wise'] as const)('under %s: all get everything, though a (a hub, an end, a part of the ring) is cut off for a while', async (conflictPolicy) => {
    const links = SHAPES[shape] as Links;
    fleet = await startFleet(Object.fromEntries(Object.entries(links).map(([name, peers]) => [name, { syncMode: 'continuous', conflictPolicy, peers }])));
    const all = Object.keys(links).map((name) => fleet.of(name));
    const [a, b] = all as [FleetReplica, FleetReplica];
    const rows = (count: number) => Promise.all(all.map((on) => eventually(() => on.sql('SELECT FROM users'), ({ length }) => length === count)));
    await insert(a, 'first');
    await rows(1);
    // Nobody reaches a; what a reaches may still hear of it.
    a.cut();
    await Promise.all(all.map((on) => insert(on, 'apart')));
    for (const on of [a, b]) await on.sql('UPDATE users SET telephone = $1 WHERE nom = $2', [on.name, 'afirst']);
    a.heal();
    await rows(1 + all.length);
    if (conflictPolicy === 'manual' && (await a.sql('SELECT FROM replication.conflict')).length > 0) {
      await a.rest('POST', '/api/v1/resolve-conflicts', { strategy: 'latest' });
    }
    await eventually(async () => new Set(await Promise.all(all.map(states))).size, (different) => different === 1);
    const shown = new Set(await Promise.all(all.map(async (on) => JSON.stringify(await on.sql('SELECT id, nom, telephone FROM users ORDER BY id')))));
    if (conflictPolicy !== 'manual') expect(shown.size).toBe(1);
  }, 180_000);
});
