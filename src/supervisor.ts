/**
 * Runs the replicas of `npm start`, each a process of its own.
 *
 * They live and die together: one that fails takes the others with it, and none outlives this process, since each stops when the channel
 * to it ends, however that came about.
 */
import { fork } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';

import { replicaEnvironment } from './config.ts';
import type { FleetConfig, ReplicaConfig } from './config.ts';
import { stopEmbedded } from './storage/embedded.ts';

/** What a replica tells the process that started it. */
export type ReplicaMessage =
  | { readonly type: 'progress'; readonly message: string }
  | { readonly type: 'ready'; readonly url: string }
  | { readonly type: 'failed'; readonly message: string };

export interface RunningReplica {
  readonly config: ReplicaConfig;
  readonly url: string;
}

export interface FleetHooks {
  onProgress(message: string): void;
  onReady(replicas: readonly RunningReplica[]): void;
  /** Ends the fleet when it aborts. */
  readonly signal: AbortSignal;
}

/** A replica that ended on its own; the message is all there is to say. */
export class ReplicaFailure extends Error {
  override readonly name = 'ReplicaFailure';
}

/** A replica finishes its requests and its database's last checkpoint in this time, or is killed. */
const STOP_MS = 30_000;

/**
 * Starts the replicas and runs them until the signal aborts; then all have ended, databases included.
 *
 * @throws ReplicaFailure when one fails or ends by itself; all others have been stopped.
 */
export async function runFleet(fleet: FleetConfig, hooks: FleetHooks): Promise<void> {
  const children = fleet.replicas.map((config) => startChild(config, (message) => hooks.onProgress(`${config.name}: ${message}`)));
  hooks.onProgress(`starting ${fleet.replicas.map((config) => config.name).join(', ')}`);
  const aborted = new Promise<null>((settle) => {
    if (hooks.signal.aborted) settle(null);
    hooks.signal.addEventListener('abort', () => settle(null), { once: true });
  });
  const failed = Promise.race(children.map((child) => child.failed));
  try {
    const urls = await Promise.race([Promise.all(children.map((child) => child.ready)), failed, aborted]);
    if (urls !== null) {
      hooks.onReady(children.map(({ config }, index) => ({ config, url: urls[index] ?? '' })));
      await Promise.race([failed, aborted]);
    }
  } finally {
    await Promise.all(children.map((child) => child.stop()));
  }
}

interface Child {
  readonly config: ReplicaConfig;
  readonly ready: Promise<string>;
  /** Rejects when it ends without having been told to. */
  readonly failed: Promise<never>;
  stop(): Promise<void>;
}

function startChild(config: ReplicaConfig, onProgress: (message: string) => void): Child {
  // The program that this process runs, compiled or not.
  const process = fork(globalThis.process.argv[1] ?? '', ['replica', '--supervised'], {
    env: { ...globalThis.process.env, ...replicaEnvironment(config) },
    // A session of its own: Ctrl-C in a terminal reaches the supervisor alone, which then stops all in good order.
    detached: true,
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  });
  const ended = new Promise<string>((settle) => {
    // Not `exit`, which may come before the last message.
    process.once('close', (code, signal) => settle(signal === null ? `exit code ${code}` : `signal ${signal}`));
    process.once('error', (error) => settle(error.message));
  });
  let message: string | null = null;
  let stopping = false;
  let isReady = false;
  const ready = new Promise<string>((settle) => {
    process.on('message', (received: ReplicaMessage) => {
      if (received.type === 'progress') onProgress(received.message);
      else if (received.type === 'failed') message = received.message;
      else if (received.type === 'ready') {
        isReady = true;
        settle(received.url);
      }
    });
  });
  const failed = new Promise<never>((_, reject) => {
    void ended.then((how) => {
      if (stopping) return;
      const when = isReady ? 'ended unexpectedly' : 'ended while starting';
      reject(new ReplicaFailure(message ?? `replica ${config.name} ${when} (${how}), and all others with it. Its messages are above; npm start runs them again, with all data.`));
    });
  });
  // More than one may fail; the first is what is told.
  failed.catch(() => {});
  const stop = async () => {
    stopping = true;
    await endProcess(process, ended);
    // One that was killed left its database server running; any other end stops it.
    if (config.databaseUrl === null && process.signalCode !== null) await stopEmbedded({ dataDir: config.dataDir, name: config.name }).catch(() => false);
  };
  return { config, ready, failed, stop };
}

async function endProcess(child: ChildProcess, ended: Promise<string>): Promise<void> {
  if (child.exitCode === null && child.signalCode === null) child.kill('SIGTERM');
  const timer = setTimeout(() => child.kill('SIGKILL'), STOP_MS);
  await ended;
  clearTimeout(timer);
}
