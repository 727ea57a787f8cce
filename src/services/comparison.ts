/**
 * Comparing this replica with a peer record by record, and mending what truly differs.
 *
 * What is merely on its way (the next sync in either direction carries it) is told apart from what no sync would ever mend. Differences are mended by the means that carry every change:
 * each side gives its records a new place in its feed, states are merged, and a sync carries the outcome. Buckets are looked into a portion at a time, so that neither side holds more.
 */
import { PeerRejectedError, PeerUnreachableError, type PeerClient } from '../peers/client.ts';
import { RefusalError, type PeerHandlers } from '../peers/endpoint.ts';
import { PROTOCOL } from '../replication/protocol.ts';
import { fromWire, type WireRecord } from '../replication/wire.ts';
import { applyRecords } from '../storage/apply.ts';
import { readPeer } from '../storage/checkpoints.ts';
import { BUCKETS, readDigests, type BucketDigest } from '../storage/digest.ts';
import { readIncarnation, readRoster, type Replica } from '../storage/replica.ts';
import { readStanding } from '../storage/knowledge.ts';
import { allBuckets, deepDigests, fieldsOf, lookInto, readerOf, readStates, touch, type Bucket, type DeepDigest, type RecordLook } from '../storage/states.ts';
import type { RecordName } from '../storage/sizes.ts';
import { toVersionVector } from './conflicts.ts';
import { compareBuckets } from './consistency.ts';
import { compareLooks, settleLooks, type Suspect } from './differences.ts';
import { ServiceError } from './errors.ts';
import { pageSize, parse } from './input.ts';
import type { Keeper } from './keeper.ts';
import type { Notices } from './notices.ts';
import type { VersionVector } from './records.ts';
import { toJsonValues } from './values.ts';

/** A version of a record as one side holds it; values are null where it is a deletion. */
export interface ComparedVersion {
  readonly values: Readonly<Record<string, unknown>> | null;
  readonly version: VersionVector;
}

/** A record that no sync would make the same. */
export interface ComparedRecord {
  readonly model: string;
  readonly recordId: string;
  /** DIFFERING: the states differ. CORRUPTED: they are the same, and the rows of the model's table are not. */
  readonly difference: 'DIFFERING' | 'CORRUPTED';
  /** The versions on each side; none where it does not know the record. */
  readonly here: readonly ComparedVersion[];
  readonly there: readonly ComparedVersion[];
}

export interface Comparison {
  readonly peer: string;
  /** Records on either side; those that are the same; that the next syncs carry; that differ for good; whose rows differ under equal states. */
  readonly records: number;
  readonly same: number;
  readonly onTheirWay: number;
  readonly differing: number;
  readonly corrupted: number;
  /** `same` over `records`; 1 where there are none. */
  readonly ratio: number;
  /** Of those that differ or are corrupted, the first. */
  readonly samples: readonly ComparedRecord[];
  readonly durationMs: number;
}

export interface RepairResult {
  readonly before: Comparison;
  /** Null for a dry run. */
  readonly after: Comparison | null;
  /** Records that were carried anew between the two. */
  readonly mended: number;
  readonly durationMs: number;
}

export interface CompareOptions {
  /** Compute every hash anew, on both sides, and compare the tables' rows. */
  readonly deep: boolean;
  /** Samples at most, 1 to 1000. */
  readonly first?: unknown;
}

export interface ComparisonService {
  /** @throws ServiceError UNKNOWN_PEER, PEER_UNREACHABLE, PEER_REJECTED. */
  compare(peer: string, options: CompareOptions): Promise<Comparison>;
  /** Mends what differs for good; a dry run only tells. Corrupted rows are told and left: which side is right is for a person to say. */
  repair(peer: string, options: CompareOptions & { readonly dryRun: boolean }): Promise<RepairResult>;
  /** What answers the peers. */
  readonly handlers: Pick<PeerHandlers, 'inspect' | 'resend'>;
}

export interface ComparisonOptions {
  readonly replica: Replica;
  readonly keeper: Pick<Keeper, 'settle'>;
  readonly notices: Notices;
  /** Throws ServiceError UNKNOWN_PEER. */
  readonly clientOf: (peer: string) => Promise<PeerClient>;
  /** A sync, so that what was mended is carried. */
  readonly syncTo: (peer: string) => Promise<unknown>;
}

/** Records that are looked into at once, about, on each side. */
const RECORDS_AT_ONCE = 10_000;
/** Records that one transaction gives a new place. */
const TOUCHED_AT_ONCE = 500;

export function createComparison({ replica, keeper, notices, clientOf, syncTo }: ComparisonOptions): ComparisonService {
  /** Goes through what differs, portion by portion. */
  async function walk(client: PeerClient, deep: boolean, first: number, each: (suspects: readonly Suspect[], buckets: readonly Bucket[]) => Promise<void>): Promise<Comparison> {
    const began = performance.now();
    await keeper.settle();
    const total = { records: 0, same: 0, onTheirWay: 0, differing: 0, corrupted: 0 };
    const samples: ComparedRecord[] = [];

    const inspect = async (buckets: readonly Bucket[], keys: boolean): Promise<{ here: RecordLook[]; there: Awaited<ReturnType<PeerClient['inspect']>> }> => {
      const sender = { name: replica.name, incarnation: await readIncarnation(replica) };
      const fields = deep ? fieldsOf(replica) : {};
      // Read before the peer looks: what it changes after that is on its way.
      const { taken } = await readPeer(replica.db, client.name);
      const there = await client.inspect({ protocol: PROTOCOL, sender, taken, buckets: buckets.map(([model, bucket]) => [model, bucket]), deep, keys, fields });
      const reader = await readerOf(replica, { name: client.name, incarnation: there.incarnation }, there.taken);
      return { here: await lookInto(replica, buckets, reader, deep ? fields : null), there };
    };

    const lookAt = async (buckets: readonly Bucket[]): Promise<void> => {
      const { here, there } = await inspect(buckets, true);
      let looked = compareLooks(here, there.keys);
      if (looked.suspects.length > 0) {
        // What moved between two looks is no difference: a change travels while others are read.
        const again = await inspect(buckets, true);
        looked = settleLooks(looked, compareLooks(again.here, again.there.keys));
      }
      total.records += looked.records;
      total.same += looked.same;
      total.onTheirWay += looked.onTheirWay;
      for (const { difference } of looked.suspects) total[difference === 'DIFFERING' ? 'differing' : 'corrupted']++;
      samples.push(...(await sample(client, looked.suspects.slice(0, first - samples.length))));
      await each(looked.suspects, buckets);
    };

    const mine = await readDigests(replica);
    const atOnce = bucketsAtOnce(mine.reduce((sum, [, , records]) => sum + records, 0));
    if (deep) {
      const all = allBuckets(replica);
      for (let i = 0; i < all.length; i += atOnce) {
        const some = all.slice(i, i + atOnce);
        const { here, there } = await inspect(some, false);
        // The two hashes of a bucket side by side are one for this purpose.
        const joined = (digests: readonly DeepDigest[]): BucketDigest[] => digests.map(([model, bucket, count, hash, rows]) => [model, bucket, count, `${hash} ${rows}`]);
        const { differing, same } = compareBuckets(joined(deepDigests(here)), joined(there.digests));
        total.records += same;
        total.same += same;
        if (differing.length > 0) await lookAt(differing);
      }
    } else {
      const { there } = await inspect([], false);
      const { differing, same } = compareBuckets(mine, there.digests.map(([model, bucket, count, hash]) => [model, bucket, count, hash]));
      total.records += same;
      total.same += same;
      for (let i = 0; i < differing.length; i += atOnce) await lookAt(differing.slice(i, i + atOnce));
    }
    return { peer: client.name, ...total, ratio: total.records === 0 ? 1 : total.same / total.records, samples, durationMs: performance.now() - began };
  }

  async function resend(client: PeerClient, keys: readonly RecordName[], buckets: readonly Bucket[], touching: boolean): Promise<Awaited<ReturnType<PeerClient['resend']>>> {
    return client.resend({
      protocol: PROTOCOL,
      sender: { name: replica.name, id: replica.id },
      keys: keys.map(([model, key]) => [model, key]),
      buckets: buckets.map(([model, bucket]) => [model, bucket]),
      touch: touching,
    });
  }

  async function sample(client: PeerClient, suspects: readonly Suspect[]): Promise<ComparedRecord[]> {
    if (suspects.length === 0) return [];
    const names = suspects.map(({ model, key }): RecordName => [model, key]);
    const [here, there] = [await readStates(replica, names), await resend(client, names, [], false)];
    return suspects.map(({ model, key, difference }) => ({
      model,
      recordId: key,
      difference,
      here: versionsOf(here.records, model, key),
      there: versionsOf(there.records, model, key),
    }));
  }

  function versionsOf(records: readonly WireRecord[], model: string, key: string): ComparedVersion[] {
    const table = replica.tables.get(model);
    const [, , versions] = records.find(([other, id]) => other === model && id === key) ?? [];
    return (versions ?? []).map(fromWire).map(({ fields, vector }) => ({
      values: fields === null || table === undefined ? null : toJsonValues(table, key, fields),
      version: toVersionVector(vector),
    }));
  }

  /** Both sides give the records a new place; the peer's states are merged here at once, and the next sync carries ours. */
  async function mend(client: PeerClient, suspects: readonly Suspect[], buckets: readonly Bucket[]): Promise<void> {
    const names = suspects.filter(({ difference }) => difference === 'DIFFERING').map(({ model, key }): RecordName => [model, key]);
    for (let i = 0; i === 0 || i < names.length; ) {
      const some = names.slice(i, i + TOUCHED_AT_ONCE);
      const { incarnation: here, generation } = await readStanding(replica.db);
      const asked = { incarnation: here, generation };
      const { incarnation, count, records } = await resend(client, some, buckets, true);
      const done = some.slice(0, count);
      const { conflicts } = await applyRecords(replica, { name: client.name, incarnation }, records, null, asked);
      notices.conflicts(conflicts);
      await touch(replica, done, buckets);
      if (names.length === 0) return;
      // A peer that answers for none of them would be asked for ever.
      if (count === 0) throw new PeerRejectedError('BAD_MESSAGE', `peer "${client.name}" did not answer for any of the records it was asked for.`);
      i += count;
    }
  }

  const compare: ComparisonService['compare'] = (name, { deep, first }) =>
    translated(async () => walk(await clientOf(name), deep, parse(pageSize, first ?? 10, 'first'), async () => {}));

  return {
    compare,

    async repair(name, { deep, first, dryRun }) {
      const began = performance.now();
      const client = await clientOf(name);
      let mended = 0;
      const before = await translated(() =>
        walk(client, deep, parse(pageSize, first ?? 10, 'first'), async (suspects, buckets) => {
          if (dryRun) return;
          await mend(client, suspects, buckets);
          mended += suspects.filter(({ difference }) => difference === 'DIFFERING').length;
        }),
      );
      if (dryRun) return { before, after: null, mended, durationMs: performance.now() - began };
      notices.changed();
      await syncTo(name);
      const after = await compare(name, { deep, first });
      return { before, after, mended, durationMs: performance.now() - began };
    },

    handlers: {
      async inspect({ sender, taken, buckets, deep, keys, fields }) {
        await keeper.settle();
        const { taken: ours } = await readPeer(replica.db, sender.name);
        if (!deep && !keys) {
          const digests = (await readDigests(replica)).map(([model, bucket, records, hash]): [string, number, number, string, string] => [model, bucket, records, hash, '0']);
          return { incarnation: await readIncarnation(replica), taken: ours, digests, keys: [] };
        }
        const looks = await lookInto(replica, buckets, await readerOf(replica, sender, taken), deep ? fields : null);
        return {
          incarnation: await readIncarnation(replica),
          taken: ours,
          digests: keys ? [] : deepDigests(looks).map((digest) => [...digest]),
          keys: keys ? looks.map((look) => [...look]) : [],
        };
      },

      async resend({ sender, keys, buckets, touch: touching }) {
        const known = (await readRoster(replica.db)).some(({ id, name }) => id === sender.id && name === sender.name);
        if (!known) throw new RefusalError('REFUSED', `it does not know replica "${sender.name}". Begin with a handshake`);
        const { count, records } = await readStates(replica, keys);
        if (touching) {
          await touch(replica, keys.slice(0, count), buckets);
          notices.changed();
        }
        return { incarnation: await readIncarnation(replica), count, records };
      },
    },
  };
}

/** As many buckets as hold some ten thousand records, and no more than one message asks for. */
function bucketsAtOnce(records: number): number {
  return Math.min(BUCKETS, Math.max(1, Math.floor((RECORDS_AT_ONCE * BUCKETS) / Math.max(records, 1))));
}

async function translated<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof PeerUnreachableError) throw new ServiceError('PEER_UNREACHABLE', error.message);
    if (error instanceof PeerRejectedError) throw new ServiceError('PEER_REJECTED', error.message);
    throw error;
  }
}
