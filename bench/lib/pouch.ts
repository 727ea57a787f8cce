/** PouchDB, replicating over HTTP to another one; each keeps its data in LevelDB, in a folder. */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';

import type PouchDB from 'pouchdb';

import type { Bench } from './measure.ts';
import { memoryOf } from './process.ts';
import { startServer } from './server.ts';

export const POUCH = 'PouchDB';

/** How long, in milliseconds, each of some replications of changed documents takes. */
export async function deltaOfPouch(bench: Bench, records: number, changed: number, rounds: number): Promise<number[]> {
  return withPouch(bench, records, async ({ local, remote }) => {
    await local.replicate.to(remote, { batch_size: BATCH });
    const times: number[] = [];
    for (let round = 0; round <= rounds; round++) {
      const { rows } = await local.allDocs({ include_docs: true, limit: changed });
      await local.bulkDocs(rows.map(({ doc }) => ({ ...doc, telephone: `+${round}` })));
      const began = performance.now();
      const { docs_written } = await local.replicate.to(remote);
      if (docs_written !== changed) throw new Error(`${POUCH}: ${docs_written} of ${changed} were written`);
      if (round > 0) times.push(performance.now() - began);
    }
    return times;
  });
}

/** The most that the process of the receiver held, in MiB. */
export async function memoryOfPouch(bench: Bench, records: number): Promise<number> {
  return withPouch(bench, records, async ({ local, remote, receiver }) => {
    const { docs_written } = await local.replicate.to(remote, { batch_size: BATCH });
    if (docs_written !== records) throw new Error(`${POUCH}: ${docs_written} of ${records} were written`);
    return memoryOf(receiver).peak;
  });
}

interface Pouches {
  readonly local: PouchDB;
  /** The other one's address. */
  readonly remote: string;
  /** Its process. */
  readonly receiver: number;
}

const BATCH = 1000;

async function withPouch<T>(bench: Bench, records: number, work: (pouches: Pouches) => Promise<T>): Promise<T> {
  // Loaded when it is measured: it opens what it finds in the folder.
  const { default: Pouch } = await import('pouchdb');
  const folder = await mkdtemp(join(bench.folder, 'pouch-'));
  const server = await startServer(bench, 'pouch.ts', [join(folder, 'remote')]);
  try {
    const local = new Pouch(join(folder, 'local'));
    bench.say(`${POUCH}: making ${records} documents`);
    for (let from = 0; from < records; from += 5000) {
      await local.bulkDocs(
        Array.from({ length: Math.min(5000, records - from) }, (_, i) => ({ _id: String(from + i), nom: `Nom ${from + i}`, email: `person${from + i}@example.org`, telephone: `+33 1 23 ${from + i}` })),
      );
    }
    const result = await work({ local, remote: `${server.url}/users`, receiver: server.pid });
    await local.close();
    return result;
  } finally {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  }
}
