/** How many of two replicas' records are the same, told from digests: buckets first, then the keys of those that differ. */
import type { PeerClient } from '../peers/client.ts';
import { PROTOCOL } from '../replication/protocol.ts';
import { readDigests, readKeyDigests, type BucketDigest, type KeyDigest } from '../storage/digest.ts';
import type { Replica } from '../storage/replica.ts';

/** Buckets, and about how many records, that are looked into at once: of a large table that differs throughout neither side holds more. */
const BUCKETS_AT_ONCE = 64;
const RECORDS_AT_ONCE = 5_000;

/**
 * The share of records that are the same here and on a peer, 0 to 1; 1 where there are none.
 *
 * @param isWorth - Asked before buckets that differ are looked into.
 * @returns Null where that was not worth it.
 * @throws PeerUnreachableError, PeerRejectedError
 */
export async function compareWith(replica: Replica, client: PeerClient, signal?: AbortSignal, isWorth: () => boolean = () => true): Promise<number | null> {
  const ask = (buckets: [string, number][]): ReturnType<PeerClient['digest']> =>
    client.digest({ protocol: PROTOCOL, sender: replica.name, buckets }, signal);
  const [mine, { digests: theirs }] = await Promise.all([readDigests(replica), ask([])]);
  const { differing, same: whole } = compareBuckets(mine, theirs);
  let same = whole;
  let all = whole;
  for (const some of portionsOf(differing, [...mine, ...theirs])) {
    if (!isWorth()) return null;
    const [here, there] = await Promise.all([readKeyDigests(replica, some), ask(some)]);
    const counts = compareKeys(here, there.keys);
    same += counts.same;
    all += counts.all;
  }
  return all === 0 ? 1 : same / all;
}

/** The buckets that differ, and how many records the others hold. */
export function compareBuckets(mine: readonly BucketDigest[], theirs: readonly BucketDigest[]): { readonly differing: [string, number][]; readonly same: number } {
  const others = new Map(theirs.map((digest) => [bucketId(digest), digest]));
  const differing: [string, number][] = [];
  let same = 0;
  for (const digest of mine) {
    const [model, bucket, records, hash] = digest;
    const other = others.get(bucketId(digest));
    others.delete(bucketId(digest));
    if (other && other[2] === records && other[3] === hash) same += records;
    else differing.push([model, bucket]);
  }
  for (const [model, bucket] of others.values()) differing.push([model, bucket]);
  return { differing, same };
}

/** Cuts buckets into portions: at most `BUCKETS_AT_ONCE`, of about `RECORDS_AT_ONCE` records on the side that has more of them. A bucket is not cut. */
export function* portionsOf(buckets: readonly [string, number][], digests: readonly BucketDigest[]): Generator<[string, number][]> {
  const sizes = new Map<string, number>();
  for (const digest of digests) sizes.set(bucketId(digest), Math.max(sizes.get(bucketId(digest)) ?? 0, digest[2]));
  let portion: [string, number][] = [];
  let records = 0;
  for (const bucket of buckets) {
    const size = sizes.get(bucketId(bucket)) ?? 0;
    if (portion.length === BUCKETS_AT_ONCE || (portion.length > 0 && records + size > RECORDS_AT_ONCE)) {
      yield portion;
      portion = [];
      records = 0;
    }
    portion.push(bucket);
    records += size;
  }
  if (portion.length > 0) yield portion;
}

/** How many records are on either side, and how many are the same on both. */
export function compareKeys(mine: readonly KeyDigest[], theirs: readonly KeyDigest[]): { readonly all: number; readonly same: number } {
  const hashes = new Map(mine.map(([model, key, hash]) => [`${model} ${key}`, hash]));
  let same = 0;
  let onlyThere = 0;
  for (const [model, key, hash] of theirs) {
    const own = hashes.get(`${model} ${key}`);
    if (own === undefined) onlyThere++;
    else if (own === hash) same++;
  }
  return { all: mine.length + onlyThere, same };
}

function bucketId([model, bucket]: readonly [string, number, ...unknown[]]): string {
  return `${bucket} ${model}`;
}
