/** The commands as a person runs them: real processes in a folder of their own, on ports of their own. */
import { spawn } from 'node:child_process';
import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { buildSources } from '../../bin/build.js';
import { digestOfBuild, digestOfSources } from '../../bin/sources.js';
import { stopEmbedded } from '../../src/storage/embedded.ts';

export interface Command {
  readonly child: ChildProcess;
  stdout: string;
  stderr: string;
  /** The exit code, once it has ended. */
  readonly ended: Promise<number | null>;
}

export interface Workplace {
  /** The working folder of every command; empty at first. */
  readonly folder: string;
  /** Free, as is the port after it. */
  readonly basePort: number;
  /** Runs `npm run` …, without npm. */
  run(args: readonly string[], env?: Readonly<Record<string, string>>): Command;
  /** Runs `npm start`, and waits for its banner. */
  start(env?: Readonly<Record<string, string>>): Promise<Command>;
  /** Ends what still runs, databases included, and removes the folder. */
  close(): Promise<void>;
}

const program = fileURLToPath(new URL('../../bin/replique.js', import.meta.url));

const WAIT_MS = 40_000;

export async function openWorkplace(): Promise<Workplace> {
  // Else the first command says that it compiles.
  if (digestOfBuild() !== digestOfSources()) await buildSources();
  const folder = await mkdtemp(join(tmpdir(), 'replique-commands-'));
  const basePort = await freePorts();
  const running: Command[] = [];

  function run(args: readonly string[], env: Readonly<Record<string, string>> = {}): Command {
    const child = spawn(process.execPath, [program, ...args], {
      cwd: folder,
      env: { PATH: process.env['PATH'], BASE_PORT: String(basePort), ...env },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    const command: Command = { child, stdout: '', stderr: '', ended: once(child, 'close').then(([code]) => code as number | null) };
    child.stdout.setEncoding('utf8').on('data', (text: string) => (command.stdout += text));
    child.stderr.setEncoding('utf8').on('data', (text: string) => (command.stderr += text));
    running.push(command);
    return command;
  }

  return {
    folder,
    basePort,
    run,
    async start(env) {
      const command = run(['start'], env);
      await until('the banner', () => {
        if (command.child.exitCode !== null) throw new Error(`it ended: ${command.stderr}`);
        return command.stdout.includes('Ctrl-C');
      });
      return command;
    },
    async close() {
      for (const { child, ended } of running.splice(0)) {
        child.kill('SIGTERM');
        await ended;
      }
      for (const name of ['a', 'b']) await stopEmbedded({ dataDir: join(folder, '.data'), name });
      await rm(folder, { recursive: true, force: true });
    },
  };
}

export async function until(what: string, holds: () => boolean | Promise<boolean>): Promise<void> {
  for (let waited = 0; !(await holds()); waited += 50) {
    if (waited > WAIT_MS) throw new Error(`waited in vain until ${what}`);
    await sleep(50);
  }
}

/** Whether a replica answers on a port. */
export function answers(port: number): Promise<boolean> {
  return fetch(`http://127.0.0.1:${port}/livez`).then((response) => response.ok, () => false);
}

async function freePorts(): Promise<number> {
  for (;;) {
    const port = 12_000 + Math.floor(Math.random() * 7000);
    if ((await isFree(port)) && (await isFree(port + 1))) return port;
  }
}

async function isFree(port: number): Promise<boolean> {
  const probe = createServer();
  const free = await new Promise<boolean>((settle) => {
    probe.once('error', () => settle(false));
    probe.listen(port, '127.0.0.1', () => settle(true));
  });
  probe.close();
  return free;
}
