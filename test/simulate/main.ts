/**
 * `npm run simulate`: tries to break the design's promises with histories by chance, each from a seed, and shrinks the first that does.
 *
 * How it works and how to read what it prints is in docs/testing.md.
 */
import { randomInt } from 'node:crypto';
import { parseArgs } from 'node:util';

import { gossip, type GossipReport } from './gossip.ts';
import { planOf, type Size } from './plan.ts';
import { PLANTS, type Plant } from './plants.ts';
import { createLine, createTotals, gossipText, reportText, summary, type Failure } from './report.ts';
import { runPlan } from './run.ts';
import { shrink } from './shrink.ts';

const USAGE = `usage: npm run simulate -- [options]
  --seed S         one history, from this seed; without it, many from a random one, which is printed
  --replicas N     how many replicas there are at first; by chance 2 to 6
  --steps M        steps a history (400)
  --histories H    so many seeds, from --seed on (1 with --seed, else 200)
  --minutes T      further seeds until the time is over
  --plant NAME     with a bug planted, to see it caught: ${PLANTS.map(({ name }) => name).join(', ')}
  --gossip         how many rounds and bytes a change takes to reach --replicas N (1000), and a tenth and a hundredth of them
  --neighbours K   with --gossip: with how many a replica talks (4); 0: with anyone
  --json           the report as JSON
`;

const OPTIONS = {
  seed: { type: 'string' },
  replicas: { type: 'string' },
  steps: { type: 'string' },
  histories: { type: 'string' },
  minutes: { type: 'string' },
  plant: { type: 'string' },
  gossip: { type: 'boolean' },
  neighbours: { type: 'string' },
  json: { type: 'boolean' },
  help: { type: 'boolean' },
} as const;

class UsageError extends Error {}

try {
  process.exitCode = await main(process.argv.slice(2));
} catch (error) {
  if (!(error instanceof UsageError)) throw error;
  process.stderr.write(`${error.message}\n\n${USAGE}`);
  process.exitCode = 2;
}

async function main(args: readonly string[]): Promise<number> {
  const values = read(args);
  if (values.help) {
    process.stdout.write(USAGE);
    return 0;
  }
  const seed = whole('seed', values.seed, 0) ?? randomInt(2 ** 32);
  if (values.gossip) return spread(seed, whole('replicas', values.replicas, 2) ?? 1000, whole('neighbours', values.neighbours, 0) ?? 4, values.json ?? false);
  const plant = PLANTS.find(({ name }) => name === values.plant);
  if (values.plant !== undefined && plant === undefined) throw new UsageError(`There is no bug named "${values.plant}" to plant.`);
  const size: Size = { replicas: whole('replicas', values.replicas, 2), steps: whole('steps', values.steps, 1) ?? 400 };
  const minutes = fraction('minutes', values.minutes);
  const histories = whole('histories', values.histories, 1) ?? (minutes === undefined ? (values.seed === undefined ? 200 : 1) : Infinity);
  return search({ seed, size, plant, histories, seconds: minutes === undefined ? Infinity : minutes * 60, json: values.json ?? false });
}

interface Search {
  readonly seed: number;
  readonly size: Size;
  readonly plant: Plant | undefined;
  readonly histories: number;
  readonly seconds: number;
  readonly json: boolean;
}

async function search({ seed: from, size, plant, histories, seconds, json }: Search): Promise<number> {
  const started = performance.now();
  const elapsed = (): number => (performance.now() - started) / 1000;
  const totals = createTotals();
  const line = createLine();
  let failure: Failure | null = null;
  const stop = new AbortController();
  process.once('SIGINT', () => stop.abort());
  process.stderr.write(`seed ${from}\n`);
  for (let i = 0; i < histories && elapsed() < seconds && !stop.signal.aborted && failure === null; i++) {
    const seed = from + i;
    const plan = planOf(seed, size);
    const { violation, steps, counts, rests } = runPlan(plan, plant);
    totals.histories++;
    totals.steps += steps;
    totals.rests += rests;
    for (const [kind, count] of counts) totals.counts.set(kind, (totals.counts.get(kind) ?? 0) + count);
    const { faults } = summary(totals);
    line.show(`seed ${seed}: ${totals.histories} histories, ${totals.steps} steps (${Math.round(totals.steps / elapsed())} a second), ${faults} faults`);
    if (violation !== null) {
      line.show('shrinking …');
      const cause = violation.promise;
      const short = shrink(plan, (candidate) => runPlan(candidate, plant).violation?.promise === cause);
      const history: string[] = [];
      const end = runPlan(short, plant, (text) => history.push(text)).violation ?? violation;
      failure = { seed, violation: end, history, setup: short, command: commandOf(seed, size, plant) };
    }
    // Lets a signal in.
    if (i % 8 === 0) await new Promise((resolve) => setImmediate(resolve));
  }
  line.end();
  const report = { seed: from, histories: totals.histories, steps: totals.steps, rests: totals.rests, ...summary(totals), counts: Object.fromEntries(totals.counts), failure };
  process.stdout.write(json ? `${JSON.stringify({ ...report, violations: failure ? 1 : 0 })}\n` : reportText(totals, elapsed(), failure));
  return failure ? 1 : 0;
}

function commandOf(seed: number, { replicas, steps }: Size, plant: Plant | undefined): string {
  const parts = [`--seed ${seed}`, replicas === undefined ? '' : `--replicas ${replicas}`, `--steps ${steps}`, plant ? `--plant ${plant.name}` : ''];
  return `npm run simulate -- ${parts.filter((part) => part !== '').join(' ')}`;
}

function spread(seed: number, replicas: number, neighbours: number, json: boolean): number {
  const line = createLine();
  const counts = [...new Set([replicas / 100, replicas / 10, replicas].map(Math.round))].filter((count) => count >= 2);
  const reports = counts.map((count): GossipReport => gossip(seed, count, neighbours, line.show));
  line.end();
  process.stdout.write(json ? `${JSON.stringify({ seed, reports })}\n` : gossipText(reports));
  return 0;
}

function read(args: readonly string[]): ReturnType<typeof parseArgs<{ options: typeof OPTIONS }>>['values'] {
  try {
    return parseArgs({ args: [...args], options: OPTIONS }).values;
  } catch (error) {
    throw new UsageError(error instanceof Error ? error.message : String(error));
  }
}

function whole(name: string, text: string | undefined, least: number): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!Number.isSafeInteger(value) || value < least || text.trim() === '') throw new UsageError(`--${name} is "${text}": give it a whole number from ${least} on.`);
  return value;
}

function fraction(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (!(value > 0)) throw new UsageError(`--${name} is "${text}": give it a number greater than 0.`);
  return value;
}
