/** Replicas of accounts, whose addresses only one may have: what the tests of unique values do with them. */
import { expect } from 'vitest';

import { decide, type Decision } from '../../src/storage/decide.ts';
import { listConflicts, type ConflictEntry } from '../../src/storage/conflicts.ts';
import { expectSame, rowsOf } from '../support/compare.ts';
import { linksOf, openReplicas, type Replicas } from '../support/replicas.ts';
import { ACCOUNTS, type Schema } from '../support/schemas.ts';

/** Those that a test has opened. */
export let replicas: Replicas;

export const open = async (names: string, policy: 'manual' | 'latest' | 'field-wise' = 'manual', schema: Schema = ACCOUNTS): Promise<void> => {
  replicas = await openReplicas(names, { schema, policies: Object.fromEntries([...names].map((name) => [name, policy])) });
};
export const sql = (name: string, text: string): Promise<Record<string, string | null>[]> => replicas.at(name).sql(text);
export const create = (name: string, key: string, email: string): Promise<unknown> => sql(name, `INSERT INTO accounts (id, email) VALUES ('${key}', '${email}')`);
export const set = (name: string, key: string, change: string): Promise<unknown> => sql(name, `UPDATE accounts SET ${change} WHERE id = '${key}'`);
export const emails = async (name: string): Promise<Record<string, string | null>> =>
  Object.fromEntries((await sql(name, 'SELECT id, email FROM accounts ORDER BY id')).map(({ id, email }) => [id, email as string]));
export const pending = async (name: string): Promise<ConflictEntry[]> => {
  await replicas.at(name).settle();
  return (await listConflicts(replicas.at(name).replica.db, { status: 'PENDING', first: 100, before: null })).toReversed();
};
export const losers = async (name: string): Promise<unknown[]> => (await pending(name)).map(({ kind, key, fields, holder }) => [kind, key, fields.join(), holder?.key]).toSorted();
/** Decides the conflict on a record. */
export const settleBy = async (name: string, key: string, decision: Decision): Promise<void> => {
  const entry = (await pending(name)).find((each) => each.key === key);
  await decide(replicas.at(name).replica, [entry?.id as string], decision, true);
};

/** Comes to rest: all hold and show the same, and nobody waits. */
export async function rest(topology: 'mesh' | 'chain' = 'mesh'): Promise<Record<string, string | null>> {
  await replicas.rest(linksOf(topology, replicas.names));
  await expectSame(replicas);
  const [first, ...others] = replicas.names as [string, ...string[]];
  for (const other of others) {
    expect(await rowsOf(replicas.at(other))).toEqual(await rowsOf(replicas.at(first)));
    expect(await losers(other)).toEqual(await losers(first));
  }
  return emails(first);
}
