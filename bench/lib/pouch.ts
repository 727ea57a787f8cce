/** PouchDB, replicating over HTTP to another one; each keeps its data in LevelDB, in a folder. */
import { mkdtemp, rm } from 'node:fs/promises';
import { join } from 'node:path';

import type { Bench } from './measure.ts';
import { startServer } from './server.ts';

export const POUCH = 'PouchDB';

/** How long, in milliseconds, each of some replications of changed documents takes. */
export async function deltaOfPouch(bench: Bench, records: number, changed: number, rounds: number): Promise<number[]> {
  // Loaded when it is measured: it opens what it finds in the folder.
  const { default: PouchDB } = await import('pouchdb');
  const folder = await mkdtemp(join(bench.folder, 'pouch-'));
  const server = await startServer(bench, 'pouch.ts', [join(folder, 'remote')]);
  try {
    const local = new PouchDB(join(folder, 'local'));
    const remote = `${server.url}/users`;
    bench.say(`${POUCH}: making ${records} documents`);
    for (let from = 0; from < records; from += 5000) {
      await local.bulkDocs(
        Array.from({ length: Math.min(5000, records - from) }, (_, i) => ({ _id: String(from + i), nom: `Nom ${from + i}`, email: `person${from + i}@example.org`, telephone: `+33 1 23 ${from + i}` })),
      );
    }
    await local.replicate.to(remote, { batch_size: 1000 });
    const times: number[] = [];
    for (let round = 0; round <= rounds; round++) {
      const { rows } = await local.allDocs({ include_docs: true, limit: changed });
      await local.bulkDocs(rows.map(({ doc }) => ({ ...doc, telephone: `+${round}` })));
      const began = performance.now();
      const { docs_written } = await local.replicate.to(remote);
      if (docs_written !== changed) throw new Error(`${POUCH}: ${docs_written} of ${changed} were written`);
      if (round > 0) times.push(performance.now() - began);
    }
    await local.close();
    return times;
  } finally {
    await server.stop();
    await rm(folder, { recursive: true, force: true });
  }
}
