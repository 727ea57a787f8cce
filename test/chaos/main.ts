/**
 * `npm run chaos -- --seed S --minutes T`: tries to prove that the promises do not hold, on real processes, databases and sockets.
 *
 * Topology, policy, faults and the order of writes come from the seed. How real processes interleave does not: a seed that failed once need not fail again, which is why the history is kept.
 */
import { readFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

import type { ConflictPolicy, SyncMode } from '../../src/config.ts';
import type { Violation } from './facts.ts';
import { FAULT_KINDS, type FaultKind } from './faults.ts';
import { TOPOLOGIES, type Topology } from './plan.ts';
import { PLANTS } from './plants.ts';
import { run, type Report } from './run.ts';

const USAGE = `usage: npm run chaos -- [--seed S] [--minutes T] [--replicas N] [--topology ${TOPOLOGIES.join('|')}] [--policy manual|latest|field-wise]
       [--mode continuous|manual] [--retention SECONDS|none] [--plant NAME] [--round SECONDS] [--no-faults] [--often FAULT[,FAULT]] [--json] [--keep]
plants: ${Object.keys(PLANTS).join(', ')}
faults: ${FAULT_KINDS.join(', ')}`;
/** Lines of a failing record's history that are printed; all of it is in the folder. */
const SHOWN = 40;

async function main(): Promise<number> {
  const { values } = parseArgs({
    options: {
      seed: { type: 'string' },
      minutes: { type: 'string', default: '2' },
      replicas: { type: 'string' },
      topology: { type: 'string' },
      policy: { type: 'string' },
      mode: { type: 'string' },
      retention: { type: 'string' },
      plant: { type: 'string' },
      round: { type: 'string' },
      'no-faults': { type: 'boolean', default: false },
      often: { type: 'string' },
      json: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      help: { type: 'boolean', default: false },
    },
  });
  if (values.help) {
    process.stdout.write(`${USAGE}\n`);
    return 0;
  }
  const seed = values.seed === undefined ? Date.now() % 1_000_000 : number('seed', values.seed);
  const ending = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => {
      // The second time, at once: what was started is ended by the exit.
      if (ending.signal.aborted) process.exit(130);
      ending.abort();
    });
  }
  const terminal = process.stderr.isTTY;
  let told = 0;
  const report = await run({
    seed,
    seconds: number('minutes', values.minutes) * 60,
    ...(values.replicas !== undefined && { replicas: number('replicas', values.replicas) }),
    ...(values.topology !== undefined && { topology: oneOf('topology', values.topology, TOPOLOGIES) as Topology }),
    ...(values.policy !== undefined && { policy: oneOf('policy', values.policy, ['manual', 'latest', 'field-wise']) as ConflictPolicy }),
    ...(values.mode !== undefined && { mode: oneOf('mode', values.mode, ['continuous', 'manual']) as SyncMode }),
    ...(values.retention !== undefined && { retention: values.retention === 'none' ? null : number('retention', values.retention) }),
    ...(values.plant !== undefined && { plant: oneOf('plant', values.plant, Object.keys(PLANTS)) }),
    ...(values.round !== undefined && { roundSeconds: number('round', values.round) }),
    faults: !values['no-faults'],
    ...(values.often !== undefined && { often: values.often.split(',').map((kind) => oneOf('often', kind, FAULT_KINDS) as FaultKind) }),
    signal: ending.signal,
    onProgress(line) {
      // A line that stays where it is; where there is no terminal, one now and then.
      if (terminal) process.stderr.write(`\r\x1b[K${line}`);
      else if (performance.now() - told > 10_000 || told === 0) {
        told = performance.now();
        process.stderr.write(`${line}\n`);
      }
    },
  });
  if (terminal) process.stderr.write('\n');
  process.stdout.write(values.json ? `${JSON.stringify(report)}\n` : describe(report));
  if (report.violations.length > 0) process.stderr.write(await explain(report));
  else if (!values.keep) await rm(report.folder, { recursive: true, force: true });
  return report.violations.length > 0 ? 1 : 0;
}

function describe({ seed, plan, plant, seconds, rounds, operations, faults, conflicts, clashes, forgotten, reseeded, records, memory, errors, violations }: Report): string {
  const list = (counts: Readonly<Record<string, unknown>>): string => Object.entries(counts).map(([name, count]) => `${name} ${String(count)}`).join(', ') || 'none';
  const megabytes = Object.fromEntries(Object.entries(memory).map(([name, [first, last, most]]) => [name, `${first} to ${last} MB (most ${most})`]));
  return [
    `seed        ${seed}${plant === null ? '' : `, planted: ${plant}`}`,
    `replicas    ${plan.names.join(', ')}: ${plan.topology}, SYNC_MODE ${plan.mode}, CONFLICT_POLICY ${plan.policy}, TOMBSTONE_RETENTION ${plan.retention === null ? 'as it is' : `${plan.retention}s`}`,
    `time        ${seconds} s, ${rounds} times at rest and checked`,
    `operations  ${list(operations)}`,
    `records     ${records}, conflicts ${conflicts}, ${clashes} of them over an address`,
    `deletions   ${forgotten} forgotten; replicas that began anew: ${reseeded.join(', ') || 'none'}`,
    `faults      ${list(faults)}`,
    `memory      ${list(megabytes)}`,
    `log errors  ${list(errors)}`,
    `violations  ${violations.length === 0 ? 'none' : violations.length}`,
    '',
  ].join('\n');
}

async function explain({ seed, folder, violations }: Report): Promise<string> {
  const lines = (await readFile(join(folder, 'history.jsonl'), 'utf8')).split('\n');
  const of = ({ key }: Violation): string[] => (key === undefined ? [] : lines.filter((line) => line.includes(`"key":"${key}"`)).slice(-SHOWN));
  const shown = violations.slice(0, 5).flatMap((violation) => [`\n${violation.rule}: ${violation.message}`, ...of(violation)]);
  return `seed ${seed}; history and logs in ${folder}\n${shown.join('\n')}\n`;
}

function number(name: string, text: string): number {
  const value = Number(text);
  if (text === '' || !Number.isFinite(value) || value < 0) throw new Error(`--${name} is "${text}", and should be a number.\n${USAGE}`);
  return value;
}

function oneOf(name: string, text: string, allowed: readonly string[]): string {
  if (!allowed.includes(text)) throw new Error(`--${name} is "${text}", and should be one of: ${allowed.join(', ')}.\n${USAGE}`);
  return text;
}

process.exitCode = await main().catch((error: unknown) => {
  const cause = error instanceof Error && error.cause instanceof Error ? `\n${error.cause.stack ?? ''}` : '';
  process.stderr.write(`\n${error instanceof Error ? error.message : String(error)}${cause}\n`);
  return 2;
});
process.exit();
