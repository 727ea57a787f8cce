/** What replicas hold and show, in a form that can be compared. */
import { expect } from 'vitest';

import { standing, stateHash, type State } from '../../src/replication/merge.ts';
import { vectorText, type Version } from '../../src/replication/version.ts';
import { bucketOf, readDigests, type BucketDigest } from '../../src/storage/digest.ts';
import { readRecords, settle } from '../../src/storage/records.ts';
import type { Replicas, TestReplica } from './replicas.ts';

/** The state of every record, by `model key`, captured writes folded in. */
export async function statesOf({ replica, settle: foldAll }: TestReplica): Promise<Map<string, State>> {
  await foldAll();
  const states = new Map<string, State>();
  for (const table of replica.tables.values()) {
    const keys = await replica.db.query('SELECT key FROM replication.record WHERE model = $1 ORDER BY key COLLATE "C"', [table.name]);
    const records = await replica.db.transaction((tx) => readRecords(tx, table, keys.map(([key]) => key as string)));
    for (const record of records) states.set(`${table.name} ${record.key}`, settle(record, replica).settled);
  }
  return states;
}

/** Values of one record's sides, in order: `x,0`, `deleted`. */
export async function valuesOf(at: TestReplica, key: string, model = 'Thing'): Promise<string[]> {
  const state = (await statesOf(at)).get(`${model} ${key}`) ?? [];
  return [...new Set(state.map(({ fields }) => (fields === null ? 'deleted' : Object.values(fields).join(','))))].toSorted();
}

/** The rows of all models, as text. */
export async function rowsOf({ replica, sql }: TestReplica): Promise<string[]> {
  const rows: string[] = [];
  for (const { name, table, keyColumn } of replica.tables.values()) {
    const found = await sql(`SELECT ROW(t.*)::text AS row FROM ${table} t ORDER BY t.${keyColumn.column}::text COLLATE "C"`);
    rows.push(...found.map(({ row }) => `${name} ${row}`));
  }
  return rows;
}

/** That all hold the same, that their digests say so, and that rows are the same where no conflict and no record waits. */
export async function expectSame(replicas: Replicas): Promise<Map<string, State>> {
  const [first, ...others] = replicas.names.map((name) => replicas.at(name)) as [TestReplica, ...TestReplica[]];
  const states = await statesOf(first);
  await expectDigests(first, states);
  const digests = await readDigests(first.replica);
  const aside = await Promise.all([first, ...others].map(({ sql }) => sql('SELECT FROM replication.record WHERE waiting IS NOT NULL')));
  const settled = [...states.values()].every((state) => state.length < 2) && aside.flat().length === 0;
  for (const other of others) {
    expect(toText(await statesOf(other)), `states of ${first.name} and ${other.name}`).toEqual(toText(states));
    expect(await readDigests(other.replica)).toEqual(digests);
    if (settled) expect(await rowsOf(other), `rows of ${first.name} and ${other.name}`).toEqual(await rowsOf(first));
  }
  for (const { problems } of [first, ...others]) expect(problems).toEqual([]);
  return states;
}

/** That the digests kept are those of the states. */
export async function expectDigests({ replica }: TestReplica, states: ReadonlyMap<string, State>): Promise<void> {
  const digests = new Map<string, [string, number, number, bigint]>();
  for (const [record, state] of states) {
    const [model, key] = [record.slice(0, record.indexOf(' ')), record.slice(record.indexOf(' ') + 1)];
    // Of ghosts alone there is no trace.
    if (standing(state).length === 0) continue;
    const bucket = bucketOf(key);
    const digest = digests.get(`${model} ${bucket}`) ?? [model, bucket, 0, 0n];
    digests.set(`${model} ${bucket}`, [model, bucket, digest[2] + 1, digest[3] ^ BigInt(stateHash(key, state))]);
  }
  const expected = [...digests.values()].map(([model, bucket, records, hash]): BucketDigest => [model, bucket, records, String(hash)]);
  const kept = await readDigests(replica);
  expect(kept.toSorted(byBucket)).toEqual(expected.toSorted(byBucket));
}

function byBucket(a: BucketDigest, b: BucketDigest): number {
  return a[0] === b[0] ? a[1] - b[1] : a[0] < b[0] ? -1 : 1;
}

function toText(states: ReadonlyMap<string, State>): Record<string, string[]> {
  return Object.fromEntries([...states].map(([record, state]) => [record, state.map(versionText)]));
}

function versionText({ vector, fields, stamps, resolution }: Version): string {
  const sorted = (object: object): unknown => Object.entries(object).toSorted(([a], [b]) => (a < b ? -1 : 1));
  return JSON.stringify([vectorText(vector), fields && sorted(fields), sorted(stamps), resolution ?? null]);
}
