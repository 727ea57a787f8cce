/**
 * Digests: what two replicas compare to learn how many of their records are the same, without shipping the tables.
 *
 * A record's hash covers its whole state. The exclusive or of the hashes in a bucket of keys is kept up to date by each change of state (they come one at a time, so nothing contends for
 * it): comparing costs the same for any number of records, and only differing buckets are looked into.
 */
import { standing, stateHash, type State } from '../replication/merge.ts';
import { numbers, texts } from './arrays.ts';
import type { Transaction } from './database.ts';
import type { Replica } from './replica.ts';

export const BUCKETS = 1024;

/** Of a bucket that is not empty: [model, bucket, records, hash]; the hash in decimal digits. */
export type BucketDigest = readonly [model: string, bucket: number, records: number, hash: string];

/** [model, key, hash] */
export type KeyDigest = readonly [model: string, key: string, hash: string];

/** The bucket of a key, the same on every replica. */
export function bucketOf(key: string): number {
  return stateHash(key, []) % BUCKETS;
}

/** The hash of a state, in decimal digits; null where there is nothing but ghosts, which others have forgotten or never heard of. */
export function hashOf(key: string, state: State): string | null {
  return standing(state).length > 0 ? String(stateHash(key, state)) : null;
}

/** What a bucket's digest changes by; its hash in two halves. */
interface Delta {
  records: number;
  high: number;
  low: number;
}

/** Deltas by model and bucket. */
type Deltas = Map<string, Map<number, Delta>>;

/** A record's new hash and its old one; null where there is nothing of it but ghosts. */
export interface Rehashed {
  readonly model: string;
  readonly bucket: number;
  readonly hash: string | null;
  readonly old: string | null;
}

/** Takes new hashes in and old ones out. */
export function addToDigests(tx: Transaction, records: readonly Rehashed[]): void {
  const deltas = mixed(records);
  if (deltas !== null) tx.post(mixInto(1), deltas);
}

/** What such records change, as parameters of `mixInto`; null where that is nothing. */
export function mixed(records: readonly Rehashed[]): readonly unknown[] | null {
  const deltas: Deltas = new Map();
  for (const { model, bucket, hash, old } of records) {
    if (hash === old) continue;
    const delta = deltaOf(deltas, model, bucket);
    if (hash !== null) mix(delta, 1, Number(hash));
    if (old !== null) mix(delta, -1, Number(old));
  }
  return parametersOf(deltas);
}

/** Takes the hashes of records in that had none, all of one model. */
export function addNewToDigests(tx: Transaction, model: string, buckets: readonly number[], hashes: readonly number[]): void {
  const deltas: Deltas = new Map();
  hashes.forEach((hash, n) => mix(deltaOf(deltas, model, buckets[n] as number), 1, hash));
  const parameters = parametersOf(deltas);
  if (parameters !== null) tx.post(mixInto(1), parameters);
}

function deltaOf(deltas: Deltas, model: string, bucket: number): Delta {
  let own = deltas.get(model);
  if (own === undefined) deltas.set(model, (own = new Map()));
  let delta = own.get(bucket);
  if (delta === undefined) own.set(bucket, (delta = { records: 0, high: 0, low: 0 }));
  return delta;
}

function mix(delta: Delta, records: number, hash: number): void {
  delta.records += records;
  // Hashes have 53 bits, of which JavaScript mixes 32 at a time.
  delta.high ^= Math.floor(hash / 2 ** 32);
  delta.low ^= hash;
}

function parametersOf(deltas: Deltas): readonly unknown[] | null {
  const rows = [...deltas].flatMap(([model, own]) => [...own].map(([bucket, delta]) => ({ model, bucket, ...delta })));
  if (rows.length === 0) return null;
  return [texts(rows.map(({ model }) => model)), numbers(rows.map(({ bucket }) => bucket)), numbers(rows.map(({ records }) => records)), numbers(rows.map(({ high, low }) => high * 2 ** 32 + (low >>> 0)))];
}

/** The statement that brings digests up to date. @param first - The number of the first of its four parameters. */
export function mixInto(first: number): string {
  return `INSERT INTO replication.digest AS d (model, bucket, records, hash)
     SELECT * FROM unnest($${first}::text[], $${first + 1}::smallint[], $${first + 2}::bigint[], $${first + 3}::bigint[])
     ON CONFLICT (model, bucket) DO UPDATE SET records = d.records + excluded.records, hash = d.hash # excluded.hash`;
}

export async function readDigests(replica: Replica): Promise<BucketDigest[]> {
  const rows = await replica.db.query('SELECT model, bucket, records, hash FROM replication.digest WHERE records > 0 ORDER BY model, bucket');
  return rows.map(([model, bucket, records, hash]) => [model as string, Number(bucket), Number(records), hash as string]);
}

/** The records of some buckets, given as [model, bucket]. */
export async function readKeyDigests(replica: Replica, buckets: readonly (readonly [string, number])[]): Promise<KeyDigest[]> {
  if (buckets.length === 0) return [];
  // Bucket by bucket, over the index: joined, all records are read for them, and in portions of few buckets that many times over.
  const rows = await replica.db.transaction((tx) =>
    tx.query(
      `SELECT x.model, r.key, r.hash FROM unnest($1::text[], $2::bigint[]) AS x (model, bucket)
        CROSS JOIN LATERAL (SELECT key, hash FROM replication.record WHERE bucket = x.bucket AND model = x.model AND hash IS NOT NULL OFFSET 0) r`,
      [texts(buckets.map(([model]) => model)), numbers(buckets.map(([, bucket]) => bucket))],
    ),
  );
  return rows.map(([model, key, hash]) => [model as string, key as string, hash as string]);
}
