/** The commands: `start`, `replica`, `reset`, `demo`. What they say is meant for a person; only the log is for machines. */
import { existsSync, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline/promises';

import { readFleetConfig, readReplicaConfig, withEnvFile } from './config.ts';
import type { Environment, ReplicaConfig } from './config.ts';
import { createProgress } from './progress.ts';
import { describeData, resetReplicas } from './reset.ts';
import { StartError, byFleet, byReplica, checkStart, explainError } from './startup.ts';
import { runFleet } from './supervisor.ts';
import type { ReplicaMessage, RunningReplica } from './supervisor.ts';
import { createLogger } from './telemetry/log.ts';

const USAGE = `usage:
  npm start               all the replicas of REPLICAS, each a process of its own
  npm run replica         one replica: REPLICA, PORT, PEERS
  npm run demo            concurrent updates, told step by step on two replicas
  npm run reset           empties the replicas' databases (-- --yes: without asking)
The variables are in .env.example.`;

/** Resolves when the process is told to end: Ctrl-C, SIGTERM, or the end of the process that started it. */
function endSignal(): AbortSignal {
  const ending = new AbortController();
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, () => ending.abort());
  process.once('disconnect', () => ending.abort());
  return ending.signal;
}

async function start(env: Environment): Promise<void> {
  const fleet = readFleetConfig(env);
  const signal = endSignal();
  await checkStart(fleet.replicas, byFleet);
  const progress = createProgress();
  try {
    await runFleet(fleet, {
      signal,
      onProgress: progress.say,
      onReady(replicas) {
        progress.end();
        process.stdout.write(banner(replicas));
      },
    });
    process.stderr.write('\nAll replicas have stopped.\n');
  } finally {
    progress.end();
  }
}

async function replica(env: Environment, supervised: boolean): Promise<void> {
  const by = supervised ? byFleet : byReplica;
  const signal = endSignal();
  let config: ReplicaConfig | undefined;
  const tell = (message: ReplicaMessage) => {
    if (supervised && process.connected) process.send?.(message);
  };
  const progress = createProgress();
  try {
    config = readReplicaConfig(env);
    const own = config;
    if (!supervised) await checkStart([own], by);
    const { startReplica } = await import('./main.ts');
    if (signal.aborted) return;
    const running = await startReplica(own, {
      log: createLogger({ replica: own.name }),
      onProgress: (message: string) => (supervised ? tell({ type: 'progress', message }) : progress.say(message)),
    });
    progress.end();
    tell({ type: 'ready', url: running.url });
    if (!supervised) process.stdout.write(banner([{ config: own, url: running.url }]));
    if (!signal.aborted) await new Promise<void>((settle) => signal.addEventListener('abort', () => settle(), { once: true }));
    await running.close();
  } catch (error) {
    if (!supervised) throw new StartError(explainError(error, config, by), { cause: error });
    const prefix = config === undefined ? '' : `replica ${config.name} cannot run: `;
    process.exitCode = 1;
    await new Promise<void>((settle) => {
      const message: ReplicaMessage = { type: 'failed', message: `${prefix}${explainError(error, config, by)}` };
      if (process.connected && process.send !== undefined) process.send(message, () => settle());
      else settle();
    });
  } finally {
    progress.end();
  }
}

async function reset(env: Environment, sure: boolean): Promise<void> {
  const alone = env['REPLICA'] !== undefined && env['REPLICA'] !== '';
  const replicas = alone ? [readReplicaConfig(env)] : readFleetConfig(env).replicas;
  const list = replicas.map((each) => `  ${describeData(each)}\n`).join('');
  if (!sure) {
    if (!process.stdin.isTTY) {
      throw new StartError(`reset deletes for good:\n${list}Nothing was done, since there is no terminal to ask at. Say so with: npm run reset -- --yes`);
    }
    const terminal = createInterface({ input: process.stdin, output: process.stderr });
    const answer = await terminal.question(`This deletes for good:\n${list}Go on? (yes/no) `);
    terminal.close();
    if (!/^y(es)?$/i.test(answer.trim())) {
      process.stderr.write('Nothing was done.\n');
      return;
    }
  }
  const done = await resetReplicas(replicas);
  process.stdout.write(done.map((line) => `${line}\n`).join(''));
}

async function demo(env: Environment): Promise<void> {
  const { runDemo } = await import('./demo.ts');
  await runDemo(env, endSignal());
}

function banner(replicas: readonly RunningReplica[]): string {
  const rows = replicas.flatMap(({ config, url }) => [
    '',
    `  ${bold(config.name)}  REST      ${url}/api/v1/users`,
    ...[
      ['GraphiQL', `${url}/graphql`],
      ['REST docs', `${url}/docs`],
      ['Metrics', `${url}/metrics`],
      ['Database', config.databaseUrl === null ? `embedded; psql "$(cat ${config.dataDir}/${config.name}/url)"` : new URL(config.databaseUrl).host],
    ].map(([label, value]) => `  ${' '.repeat(config.name.length)}  ${label?.padEnd(9)} ${value}`),
  ]);
  const [here, there] = replicas;
  const peer = here?.config.peers[0];
  const next = here === undefined ? [] : [
    '',
    `Next: create a user on ${here.config.name}${peer === undefined ? '' : `, send it to ${peer.name}, and read it there`}:`,
    '',
    `  curl -X POST ${here.url}/api/v1/users -H 'content-type: application/json' -d '{"nom": "Ada Lovelace", "email": "ada@example.org"}'`,
    ...(peer === undefined ? [] : [`  curl -X POST ${here.url}/api/v1/sync-to-${peer.name}`, `  curl ${there?.url ?? peer.url}/api/v1/users`]),
  ];
  const count = replicas.length === 1 ? 'One replica is' : `${replicas.length} replicas are`;
  return ['', bold(`Replique: ${count} ready.`), ...rows, ...next, '', 'Ctrl-C stops everything.', '', ''].join('\n');
}

function bold(text: string): string {
  return process.stdout.isTTY ? `\x1b[1m${text}\x1b[0m` : text;
}

async function run(args: readonly string[]): Promise<void> {
  const env = existsSync('.env') ? withEnvFile(process.env, readFileSync('.env', 'utf8')) : process.env;
  const [command, ...flags] = args;
  const allowed = command === 'reset' ? ['--yes', '-y'] : command === 'replica' ? ['--supervised'] : [];
  const unknown = flags.find((flag) => !allowed.includes(flag));
  if (unknown !== undefined) throw new StartError(`${command} takes no "${unknown}".\n\n${USAGE}`);
  switch (command) {
    case 'start':
      return start(env);
    case 'replica':
      return replica(env, flags.includes('--supervised'));
    case 'reset':
      return reset(env, flags.length > 0);
    case 'demo':
      return demo(env);
    default:
      throw new StartError(command === undefined ? USAGE : `there is no command "${command}".\n\n${USAGE}`);
  }
}

try {
  await run(process.argv.slice(2));
} catch (error) {
  process.stderr.write(`\n${explainError(error)}\n`);
  process.exitCode = 1;
}
// Nothing may keep an ended command alive, such as a pool that a failed start left behind.
process.exit();
