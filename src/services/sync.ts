/** Sending this replica's changes to its peers, and taking over theirs. */
import { setTimeout as sleep } from 'node:timers/promises';

import { PeerRejectedError, PeerUnreachableError, type PeerClient } from '../peers/client.ts';
import { RefusalError, type PeerHandlers } from '../peers/endpoint.ts';
import { applyRecords, BatchError } from '../storage/apply.ts';
import { pendingOf, readConflicts, type ConflictEntry } from '../storage/conflicts.ts';
import { readPeer, storeOwed } from '../storage/checkpoints.ts';
import { readDigests, readKeyDigests } from '../storage/digest.ts';
import { readRoster, type Replica } from '../storage/replica.ts';
import { compareWith } from './consistency.ts';
import { pageSize, parse } from './input.ts';
import { toConflict, type Conflict, type Undelivered } from './conflicts.ts';
import { ServiceError } from './errors.ts';
import { IntroductionError, type Introductions } from './introductions.ts';
import type { Keeper } from './keeper.ts';
import { createLink, type Detected, type Link as Carrier, type Pushed } from './links.ts';
import type { Notices } from './notices.ts';
import { createPump, type Pump } from './pump.ts';
import type { PeerState } from './status.ts';

export interface SyncResult {
  readonly peer: string;
  /** Records sent; that the peer took over; that it already had. */
  readonly sent: number;
  readonly applied: number;
  readonly skipped: number;
  /** Conflicts newly detected, each counted once. */
  readonly conflictsDetected: number;
  /** Those of them that this replica's log holds, in order of id, at most `first` (1 to 1000). */
  conflicts(first: number): Promise<Conflict[]>;
  readonly durationMs: number;
}

export interface Sync {
  /**
   * Sends to a peer every change that it has not acknowledged.
   * @throws ServiceError UNKNOWN_PEER, PEER_UNREACHABLE, PEER_REJECTED.
   */
  syncTo(peer: string): Promise<SyncResult>;
}

/** What is known of the link to a peer while this process runs. */
export interface LinkStatus {
  readonly client: PeerClient;
  readonly state: PeerState;
  /** 0 to 1; null until first compared. */
  readonly consistency: number | null;
}

export interface SyncService extends Sync {
  readonly links: readonly LinkStatus[];
  /** What answers the peers. */
  readonly handlers: PeerHandlers;
  /** Carries a resolution to every peer that can be reached; what cannot be is owed, and goes with the next sync in either direction. */
  deliver(): Promise<Undelivered[]>;
  close(): Promise<void>;
}

export interface SyncEvents {
  /** A sync with a peer is over. */
  readonly finished: (peer: string, outcome: 'success' | 'failure') => void;
  readonly applied: (peer: string, records: number) => void;
  readonly failed: (error: unknown, what: string) => void;
}

export interface SyncOptions {
  readonly replica: Replica;
  readonly clients: readonly PeerClient[];
  readonly introductions: Introductions;
  readonly keeper: Keeper;
  readonly notices: Notices;
  readonly events: SyncEvents;
  /** Each change goes out as it is made (`SYNC_MODE=continuous`); otherwise only when told. */
  readonly live: boolean;
  /** 0 to 1, for the delays before a peer is tried again. */
  readonly random: () => number;
}

const COMPARE_MS = 30_000;
/** Failures in a row, a second or so, after which a peer is said to be away. */
const OUTAGE_FAILURES = 3;
/** How long a peer that calls waits for what it is owed; what is more goes on beside its own sync. */
const DEBT_MS = 4_000;
/** Between two comparisons with one peer, however many syncs there are. */
const COMPARE_AGAIN_MS = 1_000;
/** The receiver's differing states that one answer holds, in bytes, about; the others go with its own feed. */
const REPORTED_BYTES = 16 * 1024 * 1024;

interface Link {
  readonly client: PeerClient;
  readonly carrier: Carrier;
  state: PeerState;
  consistency: number | null;
  /** The push under way. */
  busy: Promise<unknown> | null;
  /** The comparison under way, or the pause after it. */
  comparing: Promise<void> | null;
  /** A sync has ended since the last comparison began. */
  stale: boolean;
  pump: Pump | null;
}

export function createSync({ replica, clients, introductions, keeper, notices, events, live, random }: SyncOptions): SyncService {
  const closing = new AbortController();
  const links = new Map<string, Link>(
    clients.map((client) => {
      const onApplied = (records: number): void => events.applied(client.name, records);
      const carrier = createLink({ replica, client, introductions, keeper, notices, onApplied, signal: closing.signal });
      return [client.name, { client, carrier, state: 'UNKNOWN', consistency: null, busy: null, comparing: null, stale: false, pump: null }];
    }),
  );

  /** One push to a peer at a time: its checkpoint allows no other. */
  async function pushTo(link: Link, how: { readonly answering?: boolean; readonly warm?: boolean } = {}): Promise<Pushed> {
    while (link.busy !== null) await link.busy.catch(() => {});
    const { name } = link.client;
    const work = link.carrier.push(how.answering ?? false, how.warm ?? false);
    link.busy = work;
    try {
      const pushed = await work;
      link.state = 'CONNECTED';
      events.finished(name, 'success');
      link.stale = true;
      compare(link);
      return pushed;
    } catch (error) {
      events.finished(name, 'failure');
      throw asServiceError(link, error);
    } finally {
      link.busy = null;
    }
  }

  function compare(link: Link): void {
    if (closing.signal.aborted || link.comparing !== null) return;
    link.stale = false;
    link.comparing = compareWith(replica, link.client, closing.signal)
      .then(
        (ratio) => {
          link.consistency = ratio;
          // A peer that does not fit answers this all the same; only a sync tells that it fits now.
          if (link.state !== 'REJECTED') link.state = 'CONNECTED';
        },
        (error: unknown) => {
          if (error instanceof PeerUnreachableError) link.state = 'UNREACHABLE';
          else if (!(error instanceof PeerRejectedError) && !closing.signal.aborted) events.failed(error, `comparing with peer "${link.client.name}"`);
        },
      )
      .then(() => pause(COMPARE_AGAIN_MS, closing.signal))
      .finally(() => {
        link.comparing = null;
        if (link.stale) compare(link);
      });
  }

  const timer = setInterval(() => {
    for (const link of links.values()) compare(link);
  }, COMPARE_MS);

  /** What a peer is owed is carried to it when it shows that it is there. */
  async function settleDebt(name: string): Promise<void> {
    const link = links.get(name);
    // While a sync is under way it carries the debt itself, and waiting for it could be waiting for ourselves.
    if (link === undefined || link.busy !== null || !(await readPeer(replica.db, name)).owed) return;
    const carried = pushTo(link, { answering: true }).then(
      () => {},
      (error: unknown) => events.failed(error, `carrying a resolution to peer "${name}"`),
    );
    await Promise.race([carried, pause(DEBT_MS, closing.signal)]);
  }

  async function senderIsKnown(sender: { readonly name: string; readonly id: string }): Promise<void> {
    const known = (await readRoster(replica.db)).some(({ id, name }) => id === sender.id && name === sender.name);
    if (!known) throw new RefusalError('REFUSED', `it does not know replica "${sender.name}". Begin with a handshake`);
  }

  const wakeAll = (): void => {
    for (const { pump } of links.values()) pump?.wake();
  };
  if (live) {
    for (const link of links.values()) {
      link.pump = createPump({
        push: () => pushTo(link, { warm: true }),
        random,
        onError(error, failures) {
          // Once an outage, and not for a peer that is being started at the same time.
          if (failures === OUTAGE_FAILURES) events.failed(error, `sending changes to peer "${link.client.name}" (tried again until it is back)`);
        },
      });
    }
  }
  const forget = notices.onChanged(wakeAll);

  return {
    get links() {
      return [...links.values()];
    },

    async syncTo(name) {
      const link = links.get(name);
      if (link === undefined) {
        const known = [...links.keys()].map((peer) => `"${peer}"`).join(', ');
        throw new ServiceError('UNKNOWN_PEER', `"${name}" is no peer of replica "${replica.name}". ${known ? `Its peers: ${known}.` : 'It has none; name them in PEERS.'}`);
      }
      const began = performance.now();
      const { conflicts, ...counts } = await pushTo(link);
      return {
        peer: name,
        ...counts,
        durationMs: performance.now() - began,
        conflicts: (first) => logged(replica, conflicts, parse(pageSize, first, 'first')),
      };
    },

    async deliver() {
      for (const { client } of links.values()) await storeOwed(replica.db, client.name);
      const results = await Promise.all(
        [...links.values()].map(async (link) => {
          try {
            await pushTo(link);
            return [];
          } catch (error) {
            const peer = link.client.name;
            events.failed(error, `carrying a resolution to peer "${peer}"`);
            // A sync that was under way already, and without it, may have taken the note away.
            await storeOwed(replica.db, peer);
            return [{ peer, reason: (error as Error).message }];
          }
        }),
      );
      return results.flat();
    },

    handlers: {
      async handshake({ answering, ...peer }) {
        await introductions.accept(null, peer, 0).catch((error: unknown) => {
          throw error instanceof IntroductionError ? new RefusalError('REFUSED', error.message) : error;
        });
        if (!answering) await settleDebt(peer.name);
        const link = links.get(peer.name);
        if (link) link.state = 'CONNECTED';
        link?.pump?.peerIsThere();
        const { taken } = await readPeer(replica.db, peer.name);
        return { ...(await introductions.own()), checkpoint: taken };
      },

      async changes({ sender, receiver, start, end, records }) {
        await senderIsKnown(sender);
        try {
          const { applied, skipped, conflicts, differing } = await applyRecords(replica, sender, records, { receiver, start, end });
          notices.conflicts(conflicts);
          events.applied(sender.name, applied);
          if (applied > 0) notices.changed();
          return { applied, skipped, detected: conflicts.detected.map(({ model, key }) => [model, key]), records: bounded(differing) };
        } catch (error) {
          throw error instanceof BatchError ? new RefusalError(error.code, error.message) : error;
        }
      },

      async digest({ buckets }) {
        const [digests, keys] = await Promise.all([buckets.length === 0 ? readDigests(replica) : [], readKeyDigests(replica, buckets)]);
        return { digests: digests.map((digest) => [...digest]), keys: keys.map((key) => [...key]) };
      },
    },

    async close() {
      closing.abort();
      clearInterval(timer);
      forget();
      await Promise.all([...links.values()].map(({ pump }) => pump?.close()));
      await Promise.allSettled([...links.values()].flatMap(({ busy, comparing }) => [busy, comparing]));
    },
  };
}

/** A failed push in the terms of the contract; notes on the link what it says of the peer. */
function asServiceError(link: Link, error: unknown): unknown {
  if (error instanceof PeerUnreachableError) {
    link.state = 'UNREACHABLE';
    return new ServiceError('PEER_UNREACHABLE', error.message);
  }
  if (error instanceof PeerRejectedError) {
    link.state = 'REJECTED';
    return new ServiceError('PEER_REJECTED', error.message);
  }
  if (error instanceof IntroductionError) {
    link.state = 'REJECTED';
    return new ServiceError('PEER_REJECTED', `peer "${link.client.name}" does not fit this replica: ${error.message}.`);
  }
  if (error instanceof BatchError) {
    link.state = 'REJECTED';
    return new ServiceError('PEER_REJECTED', `peer "${link.client.name}" reported what this replica cannot take: ${error.message}. Nothing of it was taken over.`);
  }
  return error;
}

async function logged(replica: Replica, found: readonly Detected[], first: number): Promise<Conflict[]> {
  // Under an automatic policy an entry is resolved as soon as it is there.
  const entries: ConflictEntry[] = await readConflicts(replica.db, found.flatMap(({ id }) => id ?? []));
  for (const model of replica.tables.keys()) {
    const keys = found.filter((detected) => detected.model === model && detected.id === null).map(({ key }) => key);
    if (keys.length > 0) entries.push(...(await pendingOf(replica.db, model, keys)));
  }
  entries.sort((a, b) => Number(a.id) - Number(b.id));
  return entries.slice(0, first).map((entry) => toConflict(replica.tables, entry));
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return sleep(ms, undefined, { signal, ref: false }).catch(() => {});
}

function bounded<T>(records: readonly T[]): T[] {
  const fitting: T[] = [];
  let bytes = 0;
  for (const record of records) {
    bytes += JSON.stringify(record).length;
    if (bytes > REPORTED_BYTES && fitting.length > 0) break;
    fitting.push(record);
  }
  return fitting;
}
