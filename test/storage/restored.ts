/** Replicas of which one was restored to before what the others have forgotten: what the tests of that do with them. */
import { readAside } from '../../src/storage/asides.ts';
import { collect } from '../../src/storage/collect.ts';
import { createAsides } from '../../src/services/asides.ts';
import type { TestDatabase } from '../support/postgres.ts';
import { expectSame } from '../support/compare.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import type { Schema } from '../support/schemas.ts';

/** Those that a test has opened. */
export let replicas: Replicas;
export const open = async (...options: Parameters<typeof openReplicas>): Promise<void> => {
  replicas = await openReplicas(...options);
};

export const sql = (name: string, text: string) => replicas.at(name).sql(text);
export const aside = async (name = 'a'): Promise<string[]> => (await readAside(replicas.at(name).replica, 100, null)).map(({ key }) => key);
export const asides = () => createAsides(replicas.at('a').replica, { wake() {} });

export const spread = (): Promise<void> => spreadBetween(replicas.names);

export async function spreadBetween(names: Iterable<string>): Promise<void> {
  for (let round = 0; round < 3; round++) {
    for (const from of names) for (const to of names) if (from !== to) await replicas.sync(from, to);
  }
}

/** All of it is forgotten everywhere. */
export async function forgetDeleted(): Promise<void> {
  for (let round = 0; round < 4; round++) {
    await spread();
    for (const name of replicas.names) await collect(replicas.at(name).replica, 0);
  }
}

/** Both hold what `create` makes; then `deletion` is made on b and forgotten by all, and a goes back to before it. Nobody has met since. */
export async function restored(create: string, deletion: string, options: { readonly names?: string; readonly schema?: Schema } = {}): Promise<TestDatabase> {
  const { names = 'ab', schema } = options;
  await open(names, schema && { schema });
  await sql('a', create);
  await spread();
  const backup = await replicas.backup('a');
  await sql('b', deletion);
  await forgetDeleted();
  await replicas.restore('a', backup);
  return backup;
}

/** Syncs until nothing is sent; what is told of the restore is expected. */
export async function settle(): Promise<void> {
  await spread();
  for (const name of replicas.names) await replicas.at(name).settle();
  await forgetDeleted();
  for (const name of replicas.names) replicas.at(name).problems.splice(0);
  await expectSame(replicas);
}
