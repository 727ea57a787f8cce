/** Unique values over random histories on databases. */
import { afterEach, expect, it } from 'vitest';

import { listConflicts } from '../../src/storage/conflicts.ts';
import { readWaiting } from '../../src/storage/present.ts';
import { expectSame, rowsOf } from '../support/compare.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { ACCOUNTS } from '../support/schemas.ts';

let replicas: Replicas;
afterEach(() => replicas.close());

const sql = (name: string, text: string) => replicas.at(name).sql(text);

/** Small numbers, the same in every run. */
function numbers(seed: number): (below: number) => number {
  let state = seed;
  return (below) => {
    state = (Math.imul(state, 1_664_525) + 1_013_904_223) >>> 0;
    return Math.floor((state / 2 ** 32) * below);
  };
}

const SEEDS = Array.from({ length: Number(process.env['FUZZ'] ?? 4) }, (_, n) => n + 1);

it.each(SEEDS)('of three replicas converge, rows as well, and every record that gives way is one conflict (%i)', async (seed) => {
  const next = numbers(seed);
  const policy = (['latest', 'field-wise'] as const)[seed % 2] ?? 'latest';
  replicas = await openReplicas('abc', { schema: ACCOUNTS, policies: { a: policy, b: policy, c: policy } });
  for (let step = 0; step < 60; step++) {
    const name = 'abc'[next(3)] as string;
    const other = 'abc'.replace(name, '')[next(2)] as string;
    const [key, email, seat] = [`k${next(5)}`, `e${next(4)}`, next(3)];
    const steps = [
      () => sql(name, `INSERT INTO accounts (id, email, seat) VALUES ('${key}', '${email}', ${seat})`),
      () => sql(name, `DELETE FROM accounts WHERE id = '${key}'`),
      () => sql(name, `UPDATE accounts SET name = '${step}' WHERE id = '${key}'`),
      () => sql(name, `UPDATE accounts SET email = '${email}' WHERE id = '${key}'`),
      () => sql(name, `UPDATE accounts SET seat = ${seat} WHERE id = '${key}'`),
      () => replicas.sync(name, other),
    ];
    // A value that is taken on this replica is refused by its database.
    await (steps[next(steps.length)] as () => Promise<unknown>)().catch((error: unknown) => expect(String(error)).toContain('duplicate key'));
  }
  await replicas.rest();
  await expectSame(replicas);
  for (const name of 'abc') {
    expect(await rowsOf(replicas.at(name))).toEqual(await rowsOf(replicas.at('a')));
    const masked = await sql(name, `SELECT r.key || ' ' || m.key AS record FROM replication.record r, json_each_text(masked) m`);
    const aside = new Set((await readWaiting(replicas.at(name).replica, 100)).map(({ key }) => key));
    const pending = await listConflicts(replicas.at(name).replica.db, { status: 'PENDING', first: 100, before: null });
    const conflicts = pending.filter(({ key }) => !aside.has(key));
    expect(conflicts.map((entry) => `${entry.key} ${entry.name}`).toSorted()).toEqual(masked.map(({ record }) => record).toSorted());
  }
});
