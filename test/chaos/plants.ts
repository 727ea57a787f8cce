/**
 * Bugs, to see that they are caught. None of them is in the product: a copy of it is made, the text of one place is changed there, and the replicas run from the copy. A text that is not
 * found is an error, so that no plant quietly stops planting.
 */
import { cp, mkdir, readFile, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';

export interface Plant {
  readonly about: string;
  readonly file: string;
  readonly changes: readonly (readonly [text: string, planted: string])[];
}

export const PLANTS: Readonly<Record<string, Plant>> = {
  'cursor-over-the-log': {
    about: 'the fold remembers how far it has read the log and takes nothing before that: what commits late is skipped (a skipped fence)',
    file: 'src/storage/fold.ts',
    changes: [['SELECT ctid, model, key, op, seq, at, incarnation FROM replication.captured LIMIT $1) l', "SELECT ctid, model, key, op, seq, at, incarnation FROM replication.captured c WHERE NOT EXISTS (SELECT FROM replication.record r WHERE r.changed_at > date_part('epoch', c.at) * 1000000 + 400000) LIMIT $1) l"]],
  },
  'acknowledged-before-commit': {
    about: 'the checkpoint is stored in a transaction of its own, two seconds before the batch is taken over',
    file: 'src/storage/apply.ts',
    changes: [
      [
        '    const report = createReport();',
        `    if (checkpoint) {
      await replica.db.transaction(async (other) => storeTaken(other, sender.name, { ...checkpoint.end, taker: incarnation }));
      await tx.query('SELECT pg_sleep(2)');
    }
    const report = createReport();`,
      ],
    ],
  },
  'merge-forgets-a-side': {
    about: 'a merge keeps two sides at most',
    file: 'src/replication/merge.ts',
    changes: [['  return changed ? ordered(kept) : a;', '  return changed ? ordered(kept.slice(-2)) : a;']],
  },
  'checkpoint-ahead': {
    about: 'the sender counts a batch as taken although the connection broke, and goes on behind it',
    file: 'src/services/links.ts',
    changes: [
      ['  let session: Session | null = null;', '  let session: Session | null = null;\n  let ahead = 0;'],
      ['position: peer.checkpoint.position }, read: after };', 'position: peer.checkpoint.position }, read: Math.max(ahead, after) };'],
      ['        flights.push(flight);', '        ahead = batch.end;\n        flights.push(flight);'],
    ],
  },
  'incarnation-constant': {
    about: 'a restored database goes on under its old incarnation',
    file: 'src/storage/sql/019-captured.sql',
    changes: [[`hashtextextended(pg_relation_filepath('replication.replica'), (date_part('epoch', pg_postmaster_start_time()) * 1000000)::bigint)`, `(SELECT system_identifier FROM pg_control_system())`]],
  },
  'log-in-another-transaction': {
    about: 'the conflict log is written in a transaction of its own, three seconds after the states',
    file: 'src/storage/changes.ts',
    changes: [['  const conflicts = await logConflicts(tx, replica, now.clock, changes, encoded);', '  const conflicts = NO_CHANGES;\n  setTimeout(() => void replica.db.transaction((other) => logConflicts(other, replica, now.clock, changes, encoded)).catch(() => {}), 3_000);']],
  },
  'fold-without-locks': {
    about: 'a fold marks values in rows that local writers may still change',
    file: 'src/storage/fold.ts',
    changes: [['  if ((await contested(tx, now, changes)).length > 0) changes', '  if (((await contested(tx, now, changes)).length as number) < 0) changes']],
  },
  'last-claim-holds': {
    about: 'of two records that claim an address the one that claimed it last has it',
    file: 'src/replication/unique.ts',
    changes: [['holder === null || isLater(holder.stamp, claim.stamp) ||', 'holder === null || isLater(claim.stamp, holder.stamp) ||']],
  },
  'floor-ignored': {
    about: 'a replica that was restored to before what others have forgotten goes on as if nothing were',
    file: 'src/storage/reseed.ts',
    changes: [['    if (behind === null) return null;', '    if (behind === null || behind !== null) return null;']],
  },
  'tombstone-dropped-early': {
    about: 'a deletion is forgotten although not everybody has it',
    file: 'src/storage/collect.ts',
    changes: [['  const stable = stablePlace({ member: replica.id, incarnation: known.incarnation }, known.roster, known.struck, known.rows);', '  const stable = Number.MAX_SAFE_INTEGER;']],
  },
};

/** What a copy needs beside `src`. */
const SHARED = ['node_modules', 'prisma', 'schema', 'package.json', 'tsconfig.json'];

/** Copies the project with a bug in it, and gives back where to. */
export async function plantIn(root: string, folder: string, name: string): Promise<string> {
  const plant = PLANTS[name];
  if (plant === undefined) throw new Error(`there is no plant "${name}". Those there are: ${Object.keys(PLANTS).join(', ')}.`);
  const copy = join(folder, 'planted');
  await mkdir(copy);
  await cp(join(root, 'src'), join(copy, 'src'), { recursive: true });
  for (const shared of SHARED) await symlink(join(root, shared), join(copy, shared));
  const path = join(copy, plant.file);
  let source = await readFile(path, 'utf8');
  for (const [text, planted] of plant.changes) {
    if (source.split(text).length !== 2) throw new Error(`plant "${name}": ${plant.file} does not hold the text that it changes, exactly once. The product has changed; change the plant.`);
    source = source.replace(text, () => planted);
  }
  await writeFile(path, source);
  return copy;
}
