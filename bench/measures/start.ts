/** `npm start` until both replicas are ready, their embedded servers included: the first time, which makes the databases, and again. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp } from 'node:fs/promises';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

import { US, type Bench, type Measure, type Sample } from '../lib/measure.ts';
import { freePortPair } from '../lib/replica.ts';
import { openEmbedded } from '../../src/storage/embedded.ts';

const SERVERS = 'two PostgreSQL servers alone';
const FIRST = 'first';
const LATER = 'later';

export const start: Measure = {
  name: 'start',
  title: '`npm start` to both ready',
  labels: { [FIRST]: { unit: 's', better: 'less', baseline: [SERVERS] }, [LATER]: { unit: 's', better: 'less', baseline: [SERVERS] } },
  async run(bench) {
    const samples: Sample[] = [];
    for (const [subject, begin] of [
      [US, npmStart],
      [SERVERS, bothServers],
    ] as const) {
      const folder = await mkdtemp(join(bench.folder, 'start-'));
      for (const label of [FIRST, LATER]) {
        bench.say(`${subject}: ${label}`);
        const began = performance.now();
        const stop = await begin(bench, folder);
        samples.push({ label, subject, value: (performance.now() - began) / 1000 });
        await stop();
      }
    }
    return samples;
  },
};

/** @returns what stops it again. */
type Begin = (bench: Bench, folder: string) => Promise<() => Promise<void>>;

const npmStart: Begin = async ({ root }, folder) => {
  // The second replica takes the port after the first's.
  const base = await freePortPair();
  const child = spawn('npm', ['start'], {
    cwd: root,
    env: { ...process.env, DATA_DIR: folder, BASE_PORT: String(base), REPLICAS: 'a,b', DATABASE_URL_A: '', DATABASE_URL_B: '' },
    stdio: ['ignore', 'pipe', 'pipe'],
    // A group of its own, as a terminal makes it, so that all of it can be ended as Ctrl-C does.
    detached: true,
  });
  let last = '';
  child.stderr.on('data', (text: Buffer) => (last = text.toString()));
  const gone = once(child, 'exit');
  const ready = new Promise<void>((settle) => createInterface({ input: child.stdout }).on('line', (line) => void (line.includes('are ready') && settle())));
  await Promise.race([
    ready,
    gone.then(() => {
      throw new Error(`npm start ended before it was ready: ${last}`);
    }),
  ]);
  return async () => {
    process.kill(-(child as { pid: number }).pid, 'SIGINT');
    await gone;
  };
};

const bothServers: Begin = async (_, folder) => {
  const servers = await Promise.all(['a', 'b'].map((name) => openEmbedded({ dataDir: folder, name })));
  return async () => void (await Promise.all(servers.map((server) => server.close())));
};
