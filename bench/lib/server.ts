/** A server of somebody else's, as a process of its own: a file of `servers/` that tells its port on stdout. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import type { Bench } from './measure.ts';

export interface BenchServer {
  /** `http://127.0.0.1:8001` */
  readonly url: string;
  readonly pid: number;
  stop(): Promise<void>;
}

/** @param file - Its name in `servers/`. */
export async function startServer(bench: Bench, file: string, args: readonly string[]): Promise<BenchServer> {
  const child = spawn(process.execPath, ['--import', 'tsx', fileURLToPath(new URL(`../servers/${file}`, import.meta.url)), ...args], {
    cwd: bench.root,
    env: { PATH: process.env['PATH'] ?? '', NODE_ENV: 'production' },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let last = '';
  child.stderr.on('data', (text: Buffer) => (last = text.toString()));
  const gone = once(child, 'exit');
  const port = once(createInterface({ input: child.stdout }), 'line').then(([line]) => line as string);
  const started = await Promise.race([port, gone.then(() => null)]);
  if (started === null) throw new Error(`${file} ended before it was ready: ${last}`);
  return {
    url: `http://127.0.0.1:${started}`,
    pid: (child as { pid: number }).pid,
    async stop() {
      child.kill('SIGTERM');
      await gone;
    },
  };
}
