import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import type { PeerClient } from '../../src/peers/client.ts';
import { compareBuckets, compareKeys, compareWith, portionsOf } from '../../src/services/consistency.ts';
import { createNotices } from '../../src/services/notices.ts';
import { readDigests, readKeyDigests, type BucketDigest, type KeyDigest } from '../../src/storage/digest.ts';
import { fold } from '../../src/storage/fold.ts';
import type { Replica } from '../../src/storage/replica.ts';
import { createParties, type Parties } from './parties.ts';

/** Records by model and key, each with the hash of its state. */
type Records = ReadonlyMap<string, number>;
const BUCKETS = 4;
const bucketOf = (id: string): number => [...id].reduce((sum, char) => sum + char.charCodeAt(0), 0) % BUCKETS;
const parts = (id: string): [string, string] => id.split(' ') as [string, string];

function bucketsOf(records: Records): BucketDigest[] {
  const found = new Map<string, [string, number, number, bigint]>();
  for (const [id, hash] of records) {
    const [model] = parts(id);
    const bucket = found.get(`${model} ${bucketOf(id)}`) ?? [model, bucketOf(id), 0, 0n];
    bucket[2]++;
    bucket[3] ^= BigInt(hash);
    found.set(`${model} ${bucketOf(id)}`, bucket);
  }
  return [...found.values()].map(([model, bucket, count, hash]) => [model, bucket, count, String(hash)]);
}
const keysOf = (records: Records, buckets: readonly (readonly [string, number])[]): KeyDigest[] =>
  [...records].flatMap(([id, hash]) => {
    const [model, key] = parts(id);
    return buckets.some(([name, bucket]) => name === model && bucket === bucketOf(id)) ? [[model, key, String(hash)] as const] : [];
  });

const records = fc.dictionary(fc.constantFrom('M 1', 'M 2', 'M 3', 'M 11', 'N 1', 'N 2', 'N 30', 'N 4'), fc.integer({ min: 1, max: 3 })).map((found): Records => new Map(Object.entries(found)));

describe('comparing digests', () => {
  it('finds out what comparing the records would, but for buckets whose hashes cancel out', () => {
    fc.assert(
      fc.property(records, records, (mine, theirs) => {
        const { differing, same } = compareBuckets(bucketsOf(mine), bucketsOf(theirs));
        const counts = compareKeys(keysOf(mine, differing), keysOf(theirs, differing));
        const all = new Set([...mine.keys(), ...theirs.keys()]);
        const equal = [...all].filter((id) => mine.get(id) === theirs.get(id));
        const unseen = [...all].filter((id) => !differing.some(([model, bucket]) => model === parts(id)[0] && bucket === bucketOf(id)));
        fc.pre(unseen.every((id) => mine.get(id) === theirs.get(id)));
        expect([same + counts.same, same + counts.all]).toEqual([equal.length, all.size]);
      }),
      { numRuns: 1_000 },
    );
  });

  it('asks for a few thousand records at a time, however many differ', () => {
    const digest = fc.tuple(fc.constantFrom('M', 'N'), fc.integer({ min: 0, max: 1_023 }), fc.oneof(fc.integer({ min: 1, max: 20 }), fc.integer({ min: 1, max: 9_000 })), fc.constant('1'));
    const side = fc.uniqueArray(digest, { selector: ([model, bucket]) => `${model} ${bucket}`, maxLength: 1_500 });
    fc.assert(
      fc.property(side, side, (mine, theirs) => {
        const { differing } = compareBuckets(mine, theirs.map(([model, bucket, count]) => [model, bucket, count, '2'] as const));
        const portions = [...portionsOf(differing, [...mine, ...theirs])];
        expect(portions.flat()).toEqual(differing);
        for (const portion of portions) {
          const held = [mine, theirs].map((all) => all.filter(([model, bucket]) => portion.some((asked) => asked[0] === model && asked[1] === bucket)).reduce((sum, [, , count]) => sum + count, 0));
          expect(portion.length === 1 || Math.max(...held) <= 5_000).toBe(true);
          expect(portion.length).toBeLessThanOrEqual(64);
        }
      }),
      { numRuns: 20 },
    );
  });

  it('asks for no bucket where all is the same', () => {
    fc.assert(
      fc.property(records, (all) => {
        expect(compareBuckets(bucketsOf(all), bucketsOf(all))).toEqual({ differing: [], same: all.size });
      }),
    );
  });
});

describe('two replicas', () => {
  let parties: Parties;
  let a: Replica;
  let b: Replica;
  beforeAll(async () => {
    parties = createParties();
    [a, b] = [await parties.open('a', { slot: 1 }), await parties.open('b', { slot: 2 })];
  });
  afterAll(() => parties.close());

  it('that hold different records are compared key by key, in portions', async () => {
    const asked: number[] = [];
    const digest: PeerClient['digest'] = async ({ buckets }) => {
      asked.push(buckets.length);
      const [digests, keys] = await Promise.all([buckets.length === 0 ? readDigests(b) : [], readKeyDigests(b, buckets)]);
      return { digests: digests.map((one) => [...one]), keys: keys.map((one) => [...one]) };
    };
    const client = { digest } as PeerClient;
    expect(await compareWith(a, client)).toBe(1);
    const fill = async (replica: Replica, from: number, to: number): Promise<void> => {
      await replica.db.query(`INSERT INTO users (id, nom, email) SELECT n, 'N', n || '@x.org' FROM generate_series($1::int, $2::int) n`, [from, to]);
      await fold(replica, createNotices().conflicts);
    };
    await fill(a, 1, 300);
    expect(await compareWith(a, client)).toBe(0);
    await fill(b, 301, 400);
    asked.length = 0;
    expect(await compareWith(a, client)).toBe(0);
    expect(asked[0]).toBe(0);
    expect(asked.length).toBeGreaterThan(2);
    expect(Math.max(...asked)).toBeLessThanOrEqual(64);
    asked.length = 0;
    expect(await compareWith(a, client, undefined, () => false)).toBeNull();
    expect(asked).toEqual([0]);
  });
});
