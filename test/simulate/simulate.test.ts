/** A short run of the simulator: the promises hold, and each planted bug is caught with the seed that docs/testing.md names. */
import { readFile } from 'node:fs/promises';

import { describe, expect, it } from 'vitest';

import { gossip } from './gossip.ts';
import { planOf } from './plan.ts';
import { PLANTS } from './plants.ts';
import { runPlan } from './run.ts';
import { shrink } from './shrink.ts';

const SIZE = { steps: 400 };
const silent = (): void => {};

describe('without a planted bug', () => {
  it.each([1, 11, 21, 31])('all promises hold for ten seeds from %i on', (from) => {
    for (let seed = from; seed < from + 10; seed++) expect(runPlan(planOf(seed, SIZE)), `seed ${seed}`).toMatchObject({ violation: null });
  });

  it('one seed is one history', () => {
    const [once, again]: [string[], string[]] = [[], []];
    runPlan(planOf(7, SIZE), undefined, (text) => once.push(text));
    runPlan(planOf(7, SIZE), undefined, (text) => again.push(text));
    expect(once).toEqual(again);
  });
});

describe.each(PLANTS)('with $name planted', (plant) => {
  it('the seed in docs/testing.md catches it', async () => {
    expect(runPlan(planOf(plant.seed, SIZE), plant).violation).not.toBeNull();
    const listed = await readFile(new URL('../../docs/testing.md', import.meta.url), 'utf8');
    expect(listed).toContain(`| \`${plant.name}\` | ${plant.what} | ${plant.seed} |`);
  });
});

it('a failure shrinks to its shortest history, which breaks the same promise', () => {
  const plant = PLANTS.find(({ name }) => name === 'skipped-fence');
  const plan = planOf(plant?.seed ?? 0, SIZE);
  const promise = runPlan(plan, plant).violation?.promise;
  const short = shrink(plan, (candidate) => runPlan(candidate, plant).violation?.promise === promise);
  expect(short.steps.map((step) => step.do).toSorted()).toEqual(['open', 'sync', 'write']);
  expect(runPlan(short, plant).violation?.promise).toBe(promise);
});

it('a change reaches all by gossip, and a vector has an entry for each writer', () => {
  const { spread, widest } = gossip(1, 30, 4, silent);
  expect(spread.rounds).toBeGreaterThan(1);
  expect(spread.rounds).toBeLessThan(20);
  expect(widest.vectorEntries).toBe(30);
});
