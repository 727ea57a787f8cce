/** Chains, rings, stars and meshes: the same code, and once at rest nothing is sent any more. */
import { afterEach, expect, it } from 'vitest';

import { decide } from '../../src/storage/decide.ts';
import { listConflicts } from '../../src/storage/conflicts.ts';
import { expectSame, rowsOf } from '../support/compare.ts';
import { linksOf, openReplicas, type Replicas, type Topology } from '../support/replicas.ts';

let replicas: Replicas;

afterEach(() => replicas.close());

/** The same numbers each time: xorshift. */
function dice(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) % below;
  };
}

async function randomWrite(name: string, roll: (below: number) => number): Promise<void> {
  const { sql } = replicas.at(name);
  const [key, value] = [`k${roll(6)}`, `${name}${roll(4)}`];
  switch (roll(5)) {
    case 0:
      await sql('DELETE FROM things WHERE id = $1', [key]);
      break;
    case 1:
      await sql(`UPDATE things SET f1 = $1 WHERE id > $2`, [value, key]);
      break;
    default:
      await sql(`INSERT INTO things VALUES ($1, $2, '0') ON CONFLICT (id) DO UPDATE SET ${roll(2) ? 'f1' : 'f2'} = $2`, [key, value]);
  }
}

async function resolveOne(name: string, roll: (below: number) => number): Promise<void> {
  const { replica, settle } = replicas.at(name);
  await settle();
  const pending = await listConflicts(replica.db, { status: 'PENDING', first: 10, before: null });
  const entry = pending[roll(Math.max(1, pending.length))];
  if (entry) await decide(replica, [entry.id], { strategy: roll(2) ? 'latest' : 'field-wise' }, false);
}

it.each<[Topology, string]>([
  ['chain', 'abcd'],
  ['ring', 'abcde'],
  ['star', 'abcd'],
  ['mesh', 'abc'],
])('in a %s of %s all come to hold the same', async (topology, names) => {
  replicas = await openReplicas(names);
  const roll = dice(names.length * 7919 + topology.length);
  const links = linksOf(topology, [...names]);
  for (let step = 0; step < 60; step++) {
    const name = names[roll(names.length)] as string;
    if (roll(3) > 0) await randomWrite(name, roll);
    else if (roll(4) === 0) await resolveOne(name, roll);
    else {
      const [from, to] = links[roll(links.length)] as [string, string];
      await replicas.sync(from, to, (['arrives', 'answer lost', 'batch lost', 'twice', 'torn'] as const)[roll(5)] ?? 'arrives');
    }
  }
  await replicas.rest(links);
  await expectSame(replicas);
  const logs = await Promise.all(
    [...names].map((name) => replicas.at(name).sql(`SELECT key, fields::text FROM replication.conflict WHERE status = 'PENDING' ORDER BY key`)),
  );
  for (const log of logs) expect(log).toEqual(logs[0]);

  // All are settled on one replica: everyone hears of it.
  const { replica } = replicas.at(names[0] as string);
  const pending = await listConflicts(replica.db, { status: 'PENDING', first: 100, before: null });
  expect(pending.length).toBeGreaterThan(0);
  await decide(replica, pending.map(({ id }) => id), { strategy: 'field-wise' }, false);
  await replicas.rest(links);
  const states = await expectSame(replicas);
  expect([...states.values()].every((state) => state.length === 1)).toBe(true);
  for (const name of names) {
    expect(await replicas.at(name).sql(`SELECT FROM replication.conflict WHERE status = 'PENDING'`)).toEqual([]);
    expect(await rowsOf(replicas.at(name))).toEqual(await rowsOf(replicas.at('a')));
  }
  for (const [from, to] of links) expect(await replicas.sync(from, to)).toMatchObject({ sent: 0, applied: 0, conflictsDetected: 0 });
});
