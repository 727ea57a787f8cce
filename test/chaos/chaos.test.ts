/** A short run of `npm run chaos` over everything there is, and the plants: that each still finds the text it changes. */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { expect, it } from 'vitest';

import { PLANTS, plantIn } from './plants.ts';
import { run } from './run.ts';

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

it(
  'finds nothing in three replicas that are hurt in every way',
  async () => {
    const report = await run({ seed: 7, seconds: 45, topology: 'chain', policy: 'manual', mode: 'continuous', retention: 2 });
    expect(report.violations, `the history is in ${report.folder}`).toEqual([]);
    expect(report.rounds).toBeGreaterThan(0);
    await rm(report.folder, { recursive: true, force: true });
  },
  600_000,
);

it.each(Object.keys(PLANTS))('the plant %s finds its place in the product', async (name) => {
  const folder = await mkdtemp(join(tmpdir(), 'replique-plant-'));
  try {
    await plantIn(ROOT, folder, name);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});
