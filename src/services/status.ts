/** What this replica knows of itself and of its peers. */
import { stampToInstant } from '../replication/clock.ts';
import { latest } from '../replication/policy.ts';
import { countConflicts } from '../storage/conflict-log.ts';
import { readAddresses } from '../storage/addresses.ts';
import { readPeer, readPending } from '../storage/checkpoints.ts';
import { countTombstones } from '../storage/collect.ts';
import { countWaiting, readWaiting } from '../storage/present.ts';
import { countRecords, fenceSeconds, type Replica } from '../storage/replica.ts';
import { pageSize, parse } from './input.ts';
import { toJsonValues } from './values.ts';

export type PeerState = 'CONNECTED' | 'UNREACHABLE' | 'REJECTED' | 'UNKNOWN';

export interface PeerStatus {
  readonly name: string;
  readonly url: string;
  readonly state: PeerState;
  /** Why it is unreachable or rejected, and what to do; null otherwise. */
  readonly reason: string | null;
  /** ISO 8601 in UTC with microseconds. */
  readonly lastSyncAt: string | null;
  /** At most 100,000 are counted. */
  readonly pendingChanges: number;
  /** Seconds. */
  readonly lagSeconds: number;
  /** 0 to 1; null until first compared. */
  readonly consistency: number | null;
  /** Its clock less this one's; null until first measured. */
  readonly clockSkewSeconds: number | null;
}

/** A record whose state cannot be shown in its table (a value taken by another record, a missing parent): it waits, and is tried again. */
export interface WaitingRecord {
  readonly model: string;
  readonly recordId: string;
  readonly reason: string;
  readonly values: Readonly<Record<string, unknown>> | null;
}

export interface ReplicaStatus {
  readonly name: string;
  /** Whether this gateway leads: sends changes by itself, compares with peers, collects. Of the gateways of one replica one does. */
  leading(): boolean;
  records(): Promise<number>;
  pendingConflicts(): Promise<number>;
  /** Those that the log still holds. */
  resolvedConflicts(): Promise<number>;
  /** How long it holds them; null: for ever. */
  readonly conflictRetentionSeconds: number | null;
  peers(): Promise<PeerStatus[]>;
  /** Records set aside, in order of key, at most `first`. */
  waiting(first: number): Promise<WaitingRecord[]>;
  /** How many records of each model are set aside. */
  recordsWaiting(): Promise<ReadonlyMap<string, number>>;
  /** Age in seconds of the oldest transaction that writes; 0 where there is none. What it has written is not on its way before it commits. */
  fenceSeconds(): Promise<number>;
  /** Records whose state holds a deletion that is not forgotten yet. */
  tombstones(): Promise<number>;
  /** True when the database answers and is migrated. */
  ready(): Promise<boolean>;
}

/**
 * All of it is read from the database, so that every gateway of a replica tells the same.
 *
 * @param leads - Whether this gateway leads now.
 * @param conflictRetention - How long resolved conflicts stay in the log, in seconds; Infinity: for ever.
 */
export function createStatus(replica: Replica, leads: () => boolean, conflictRetention: number): ReplicaStatus {
  return {
    name: replica.name,
    leading: leads,
    records: () => countRecords(replica),
    conflictRetentionSeconds: Number.isFinite(conflictRetention) ? conflictRetention : null,
    pendingConflicts: async () => (await countConflicts(replica.db)).pending,
    resolvedConflicts: async () => (await countConflicts(replica.db)).resolved,

    async peers() {
      const addresses = await readAddresses(replica.db);
      return Promise.all(
        addresses.map(async ({ name, url }) => {
          const peer = await readPeer(replica.db, name);
          const { changes, lagSeconds } = await readPending(replica, peer);
          return {
            name,
            url,
            state: peer.state as PeerState,
            reason: peer.reason,
            lastSyncAt: peer.lastSyncAt === null ? null : stampToInstant(peer.lastSyncAt),
            pendingChanges: changes,
            lagSeconds,
            consistency: peer.consistency,
            clockSkewSeconds: peer.clockSkew,
          };
        }),
      );
    },

    async waiting(first) {
      const records = await readWaiting(replica, parse(pageSize, first, 'first'));
      return records.map(({ table, key, waiting, settled }) => {
        const fields = settled.length > 0 ? latest(settled).fields : null;
        return { model: table.name, recordId: key, reason: waiting ?? '', values: fields && toJsonValues(table, key, fields) };
      });
    },

    recordsWaiting: () => countWaiting(replica),

    fenceSeconds: () => fenceSeconds(replica),

    tombstones: () => countTombstones(replica),

    async ready() {
      try {
        await replica.db.query('SELECT FROM replication.replica');
        return true;
      } catch {
        return false;
      }
    },
  };
}
