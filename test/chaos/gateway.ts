/** One gateway process, started as a person starts it. It is started again when it was killed, and what it says is kept. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, readFileSync } from 'node:fs';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';

import { onEnd, send } from './children.ts';

export interface Gateway {
  readonly name: string;
  readonly url: string;
  readonly port: number;
  /** It answers. */
  readonly ready: boolean;
  /** kill -9; it is started again. */
  kill(): Promise<void>;
  pause(): void;
  resume(): void;
  /** Megabytes of memory; null while there is no process. */
  memory(): number | null;
  stop(): Promise<void>;
}

export interface GatewayOptions {
  /** Whose it is, and which of its gateways: `a`, `a2`. */
  readonly name: string;
  readonly port: number;
  /** Of the project, or of a copy of it. */
  readonly root: string;
  readonly env: Readonly<Record<string, string>>;
  readonly logFile: string;
  /** It ended and nobody had killed it, once it had been ready. */
  readonly onCrash: (name: string, last: string) => void;
  readonly onError: (name: string, line: string) => void;
}

const ERROR = 50;

export function startGateway({ name, port, root, env, logFile, onCrash, onError }: GatewayOptions): Gateway {
  const log = createWriteStream(logFile, { flags: 'a' });
  let child: ChildProcess | null = null;
  let ready = false;
  let killed = false;
  const closing = new AbortController();
  const forget = onEnd(() => child?.pid !== undefined && send(child.pid, 'SIGKILL'));

  async function live(): Promise<void> {
    while (!closing.signal.aborted) {
      killed = false;
      let last = '';
      const spawned = spawn(process.execPath, ['--import', 'tsx', 'src/cli.ts', 'replica'], {
        cwd: root,
        env: { PATH: process.env['PATH'] ?? '', ...env, PORT: String(port) },
        stdio: ['ignore', 'pipe', 'pipe'],
        // Ctrl-C in a terminal is for the run, which ends its processes itself.
        detached: true,
      });
      child = spawned;
      const gone = once(spawned, 'close');
      createInterface({ input: spawned.stdout }).on('line', (line) => {
        if (line.includes('is ready')) ready = true;
      });
      createInterface({ input: spawned.stderr }).on('line', (line) => {
        last = line;
        log.write(`${line}\n`);
        if (levelOf(line) >= ERROR) onError(name, line);
      });
      await gone;
      if (!killed && ready && !closing.signal.aborted) onCrash(name, last);
      child = null;
      ready = false;
      await sleep(killed ? 100 : 1000, undefined, { signal: closing.signal }).catch(() => {});
    }
    log.end();
  }
  const living = live();

  return {
    name,
    port,
    url: `http://127.0.0.1:${port}`,
    get ready() {
      return ready;
    },
    async kill() {
      if (child === null) return;
      const gone = once(child, 'exit');
      killed = true;
      child.kill('SIGKILL');
      await gone;
    },
    pause: () => void child?.kill('SIGSTOP'),
    resume: () => void child?.kill('SIGCONT'),
    memory() {
      if (child?.pid === undefined) return null;
      try {
        const kilobytes = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${child.pid}/status`, 'utf8'))?.[1];
        return kilobytes === undefined ? null : Number(kilobytes) / 1024;
      } catch {
        return null;
      }
    },
    async stop() {
      closing.abort();
      killed = true;
      child?.kill('SIGCONT');
      child?.kill('SIGTERM');
      const limit = setTimeout(() => child?.kill('SIGKILL'), 10_000);
      await living;
      clearTimeout(limit);
      forget();
    },
  };
}

function levelOf(line: string): number {
  if (!line.startsWith('{')) return 0;
  try {
    return Number((JSON.parse(line) as { level?: number }).level ?? 0);
  } catch {
    return 0;
  }
}
