/** `npm run bench`: measures Replique and others side by side in one run, and prints the table. */
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { describeMachine, loadNow } from './lib/machine.ts';
import type { Bench, Measure, Sample } from './lib/measure.ts';
import { chart, summarise, table, type Result, type Run } from './lib/report.ts';
import { openSite } from './lib/site.ts';
import { LONG, MEASURES } from './measures/all.ts';

const all = [...MEASURES, ...LONG];
const USAGE = `usage: npm run bench [-- options]
  --only NAME,…     these measures alone: ${all.map(({ name }) => name).join(', ')}
  --repeats N       how often each is done; medians count (default 3)
  --json            the run as JSON on stdout, in place of the table
  --chart FILE      writes the run's chart to an SVG`;

class UsageError extends Error {}

function readOptions(): { readonly measures: readonly Measure[]; readonly repeats: number; readonly json: boolean; readonly chart: string | undefined } {
  try {
    const { values } = parseArgs({ options: { only: { type: 'string' }, repeats: { type: 'string', default: '3' }, json: { type: 'boolean', default: false }, chart: { type: 'string' } } });
    const repeats = Number(values.repeats);
    if (!Number.isInteger(repeats) || repeats < 1) throw new UsageError(`--repeats is "${values.repeats}", and must be a whole number from 1 on.`);
    const measures = values.only === undefined ? MEASURES : values.only.split(',').map((name) => named(name.trim()));
    return { measures, repeats, json: values.json, chart: values.chart };
  } catch (error) {
    throw error instanceof UsageError ? error : new UsageError((error as Error).message);
  }
}

function named(name: string): Measure {
  const measure = all.find((each) => each.name === name);
  if (measure === undefined) throw new UsageError(`there is no measure "${name}".`);
  return measure;
}

async function main(): Promise<void> {
  const { measures, repeats, json, chart: file } = readOptions();
  const root = fileURLToPath(new URL('..', import.meta.url));
  const machine = describeMachine(root);
  const startedAt = new Date().toISOString();
  const folder = await mkdtemp(join(tmpdir(), 'replique-bench-'));
  const say = (text: string): void => void process.stderr.write(`${text}\n`);
  const closers: (() => Promise<void>)[] = [() => rm(folder, { recursive: true, force: true })];
  try {
    const a = await openSite(folder, 'a');
    closers.push(a.close);
    const b = await openSite(folder, 'b');
    closers.push(b.close);
    let databases = 0;
    const bench: Bench = {
      root,
      folder,
      say: (text) => say(`  ${text}`),
      held: () => {},
      async withDatabases(work) {
        const name = `bench_${++databases}`;
        const urls = [await a.createDatabase(name), await b.createDatabase(name)] as const;
        try {
          return await work(...urls);
        } finally {
          await a.dropDatabase(name);
          await b.dropDatabase(name);
        }
      },
    };
    const results: Result[] = [];
    for (const measure of measures) {
      const load = loadNow();
      const samples: Sample[] = [];
      for (let round = 1; round <= repeats; round++) {
        say(`${measure.title} (${round} of ${repeats})`);
        samples.push(...(await measure.run(bench)));
      }
      results.push(summarise(measure, samples, load));
    }
    const run: Run = { id: startedAt.replace(/\D/g, '').slice(2, 14), startedAt, machine, repeats, results };
    process.stdout.write(json ? `${JSON.stringify(run, null, 2)}\n` : `${table(run)}\n`);
    if (file !== undefined) await writeFile(file, chart(run));
  } finally {
    while (closers.length > 0) await closers.pop()?.();
  }
}

try {
  await main();
} catch (error) {
  process.stderr.write(`${error instanceof UsageError ? `${error.message}\n${USAGE}` : (error as Error).stack}\n`);
  process.exitCode = error instanceof UsageError ? 2 : 1;
}
