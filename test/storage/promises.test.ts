/**
 * Random histories on three real databases, after the manner of Elle: each write appends a token of its own to what it saw in the row, so that a row tells what its writer had
 * seen, and whatever is missing in the end was lost.
 */
import fc from 'fast-check';
import { afterAll, beforeAll, expect, it } from 'vitest';

import { decide } from '../../src/storage/decide.ts';
import { pendingOf } from '../../src/storage/conflicts.ts';
import { expectSame } from '../support/compare.ts';
import type { Fate } from '../support/memory-client.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';

type Step =
  | { readonly do: 'append' | 'delete' | 'decide' | 'fold'; readonly on: string; readonly key: number }
  | { readonly do: 'sync'; readonly on: string; readonly to: string; readonly fate: Fate };

const on = fc.constantFrom('a', 'b', 'c');
const key = fc.nat(1);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant('append' as const), on, key }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constantFrom('delete' as const, 'fold' as const), on, key }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('decide' as const), on, key }) },
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('sync' as const), on, to: on, fate: fc.constantFrom<Fate>('arrives', 'arrives', 'answer lost', 'batch lost', 'twice', 'torn') }),
  },
);

/** A larger run: FUZZ=1000 takes an hour, with another seed each time. */
const fuzz = Number(process.env['FUZZ'] ?? 0);

let replicas: Replicas;
let runs = 0;

beforeAll(async () => {
  replicas = await openReplicas('abc');
});

afterAll(() => replicas.close());

const tokensOf = (list: string | null | undefined): string[] => list?.split(' ').filter((token) => token !== '') ?? [];

it('converge, lose nothing, and see no conflict where there is none', async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 30, size: 'max' }), async (history) => {
      const run = ++runs;
      let last = 0;
      /** Acknowledged, and not deleted by somebody who saw it. */
      const written = [new Set<string>(), new Set<string>()];
      const nameOf = (n: number): string => `${run}.${n}`;
      for (const each of history) {
        const { sql, replica, settle } = replicas.at(each.on);
        if (each.do === 'sync') {
          if (each.on !== each.to) await replicas.sync(each.on, each.to, each.fate);
          continue;
        }
        const known = written[each.key] as Set<string>;
        const name = nameOf(each.key);
        const token = `${each.on}${++last}`;
        if (each.do === 'fold') await settle();
        else if (each.do === 'append') {
          await sql(`INSERT INTO things VALUES ($1, $2) ON CONFLICT (id) DO UPDATE SET f1 = things.f1 || ' ' || excluded.f1`, [name, token]);
          known.add(token);
        } else if (each.do === 'delete') {
          const [gone] = await sql('DELETE FROM things WHERE id = $1 RETURNING f1', [name]);
          for (const seen of tokensOf(gone?.['f1'])) known.delete(seen);
        } else {
          await settle();
          const [entry] = await pendingOf(replica.db, 'Thing', [name]);
          if (entry === undefined) continue;
          const all = new Set(entry.sides.flatMap(({ fields }) => tokensOf(fields?.['f1'])));
          await decide(replica, [entry.id], { values: { f1: [...all, token].join(' '), f2: null } }, true);
          known.add(token);
        }
      }
      await replicas.rest();
      const states = await expectSame(replicas);
      for (const [n, tokens] of written.entries()) {
        const sides = (states.get(`Thing ${nameOf(n)}`) ?? []).map(({ fields }) => new Set(tokensOf(fields?.['f1'])));
        for (const token of tokens) expect(sides.some((side) => side.has(token)), `${token} was lost`).toBe(true);
        const living = sides.filter(({ size }) => size > 0);
        for (const [i, side] of living.entries()) {
          const seen = living.some((other, j) => i !== j && [...side].every((token) => other.has(token)));
          expect(seen, `${[...side].join(' ')} was seen by the other side`).toBe(false);
        }
      }
      for (const [from, to] of [['a', 'b'], ['b', 'c'], ['c', 'a']] as const) expect((await replicas.sync(from, to))?.sent).toBe(0);
    }),
    fuzz > 0 ? { numRuns: fuzz } : { numRuns: 10, seed: 20260301 },
  );
}, 60_000 + fuzz * 5_000);
