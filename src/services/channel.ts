/**
 * All that this gateway has to do with one peer: pushes to it, one at a time; what is seen of it, kept in the database for every gateway to tell; comparisons; and, while this gateway leads and changes travel by
 * themselves, the loop that sends them.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import { PeerRejectedError, PeerUnreachableError, type PeerClient } from '../peers/client.ts';
import { storeConsistency, storeState } from '../storage/addresses.ts';
import { BatchError } from '../storage/apply.ts';
import { readPeer } from '../storage/checkpoints.ts';
import type { Fresh } from '../storage/feed.ts';
import type { Replica } from '../storage/replica.ts';
import { compareWith } from './consistency.ts';
import { ServiceError } from './errors.ts';
import { IntroductionError, type Introductions } from './introductions.ts';
import type { Keeper } from './keeper.ts';
import { createLink, type Pushed } from './links.ts';
import type { Notices } from './notices.ts';
import { createPump, type Pump } from './pump.ts';
import { createQuiet, createSeries } from './quiet.ts';
import type { PeerState } from './status.ts';

export interface SyncEvents {
  /** A sync with a peer is over. */
  readonly finished: (peer: string, outcome: 'success' | 'failure') => void;
  readonly applied: (peer: string, records: number) => void;
  readonly failed: (error: unknown, what: string) => void;
  /** A peer is there now, or no more. */
  readonly joined: (peer: string) => void;
  readonly left: (peer: string) => void;
}

export interface ChannelOptions {
  readonly replica: Replica;
  readonly introductions: Introductions;
  readonly keeper: Pick<Keeper, 'settle'>;
  readonly notices: Notices;
  readonly events: SyncEvents;
  /** 0 to 1, for the delays before a peer is tried again. */
  readonly random: () => number;
}

export interface Channel {
  readonly client: PeerClient;
  /** @throws ServiceError PEER_UNREACHABLE, PEER_REJECTED. */
  push(): Promise<Pushed>;
  /** A handshake alone: each tells the other what it has. Throws as `push` does. */
  greet(): Promise<void>;
  /** Carries what the peer is owed to it, since it has shown that it is there; waits only so long. */
  settleDebt(): Promise<void>;
  /** The peer called. @param introduced - It fits this replica, too. */
  heardOf(introduced: boolean): Promise<void>;
  /** A batch of the peer's comes. @returns what is told when it is over; `more`: others follow. */
  receive(): (more: boolean) => void;
  /** The peer is there again: a delay after a failure is over. */
  peerIsThere(): void;
  /** There may be something to send. @param fresh - What, where that is known. */
  wake(fresh: Fresh | null): void;
  compare(): void;
  /** Sends changes by itself from now on. @returns what ends that. */
  pump(): () => Promise<void>;
  /** Gives up what is under way, and waits for its end. */
  close(): Promise<void>;
}

/** Failures in a row, a second or so, after which a peer is said to be away. */
const OUTAGE_FAILURES = 3;
/** How long a peer that calls waits for what it is owed; what is more goes on beside its own sync. */
const DEBT_MS = 4_000;
/** Between two comparisons with one peer, however many syncs there are; and so many times as long as the last one took, where that is more: comparing many that differ is work for both sides. */
const COMPARE_AGAIN_MS = 1_000;
const COMPARE_AGAIN_TIMES = 10;
/** A comparison between two syncs finds what is on its way, and slows both down: it waits for a moment without any, and only so long for more than the end of one. */
const QUIET_MS = 100;
const QUIET_AT_LATEST_MS = 10_000;
/** So long a sync of the peer's counts as under way behind a batch that promised others. */
const PROMISED_MS = 5_000;

/** Of a push: the peer waits for an answer meanwhile; it goes on where the last one ended; it was made to see whether the peer is there. */
interface How {
  readonly answering?: boolean;
  readonly warm?: boolean;
  readonly look?: boolean;
  /** What has just changed. */
  readonly fresh?: Fresh | null;
}

export function createChannel(client: PeerClient, { replica, introductions, keeper, notices, events, random }: ChannelOptions): Channel {
  const { name } = client;
  const closing = new AbortController();
  const { signal } = closing;
  const link = createLink({ replica, client, introductions, keeper, notices, onApplied: (records) => events.applied(name, records), signal });
  const now: { /** The push under way. */ busy: Promise<unknown> | null } = { busy: null };
  const quiet = createQuiet(QUIET_MS, QUIET_AT_LATEST_MS);
  /** The comparison under way, or what it waits for, or the pause after it. */
  let comparing: Promise<void> | null = null;
  /** A sync has ended since the last comparison began. */
  let stale = false;
  let pump: Pump<Fresh> | null = null;

  /** One push at a time: the peer's checkpoint allows no other. */
  async function push(how: How = {}): Promise<Pushed> {
    const isFirst = now.busy === null;
    while (now.busy !== null) await now.busy.catch(() => {});
    // Busy until all of it is over. Whoever waits for a promise that has settled already waits in a loop that lets nothing else happen, and so for ever.
    const work = pushOnce(isFirst ? how : { ...how, fresh: null }).finally(() => {
      now.busy = null;
    });
    now.busy = work;
    return work;
  }

  async function pushOnce({ answering = false, warm = false, look = false, fresh = null }: How): Promise<Pushed> {
    quiet.begin();
    try {
      const pushed = await link.push(answering, warm, fresh);
      events.finished(name, 'success');
      // Right after a sync that was asked for the two sides agree; of those that follow each other by themselves the next is on its way.
      if (!look) compare(!warm);
      return pushed;
    } catch (error) {
      // Of a peer that was removed nothing is counted any more.
      if (!signal.aborted) events.finished(name, 'failure');
      throw await tell(error);
    } finally {
      quiet.end();
    }
  }

  /** Notes what was seen of the peer. That this gateway stops says nothing of it. */
  async function see(state: PeerState, how: { readonly reason?: string; readonly unless?: readonly PeerState[] } = {}): Promise<void> {
    if (signal.aborted) return;
    await storeState(replica.db, name, state, how).catch((error: unknown) => events.failed(error, `noting the state of peer "${name}"`));
  }

  /** Notes what a failure says of the peer, and gives it back in the terms of the contract. */
  async function tell(error: unknown): Promise<unknown> {
    const { state, told } = explain(name, error);
    if (state !== null) await see(state, { reason: (told as Error).message });
    return told;
  }

  function compare(atOnce = false): void {
    stale = true;
    if (signal.aborted || comparing !== null) return;
    let began = 0;
    comparing = (atOnce ? Promise.resolve() : quiet.moment(signal))
      .then(() => {
        stale = false;
        began = performance.now();
        return compareOnce(atOnce);
      })
      .then(() => pause(Math.max(COMPARE_AGAIN_MS, COMPARE_AGAIN_TIMES * (performance.now() - began)), signal))
      .finally(() => {
        comparing = null;
        if (stale) compare();
      });
  }

  async function greet(): Promise<void> {
    try {
      await link.greet();
      await see('CONNECTED');
    } catch (error) {
      throw await tell(error);
    }
  }

  /** @param atOnce - Unless the next sync is faster: then what differs is on its way, and is looked at in a quiet moment. */
  async function compareOnce(atOnce: boolean): Promise<void> {
    if (signal.aborted) return;
    try {
      if (link.hasNews()) await greet();
    } catch (error) {
      // What is seen of a peer shows in its state.
      if (!(error instanceof ServiceError) && !signal.aborted) events.failed(error, `greeting peer "${name}"`);
      return;
    }
    try {
      const ratio = await compareWith(replica, client, signal, () => !atOnce || !(stale || quiet.isBusy()));
      if (ratio === null) stale = true;
      if (ratio === null || signal.aborted) return;
      // A peer that does not fit answers this all the same; only a sync tells that it fits now.
      await see('CONNECTED', { unless: ['REJECTED'] });
      await storeConsistency(replica.db, name, ratio);
    } catch (error) {
      if (error instanceof PeerUnreachableError) await see('UNREACHABLE', { reason: error.message });
      else if (!(error instanceof PeerRejectedError) && !signal.aborted) events.failed(error, `comparing with peer "${name}"`);
    }
  }

  return {
    client,
    push,
    compare: () => compare(),

    greet,

    async settleDebt() {
      // While a sync is under way it carries the debt itself, and waiting for it could be waiting for ourselves.
      if (now.busy !== null || !(await readPeer(replica.db, name)).owed) return;
      const carried = push({ answering: true }).then(
        () => {},
        (error: unknown) => events.failed(error, `carrying a resolution to peer "${name}"`),
      );
      await Promise.race([carried, pause(DEBT_MS, signal)]);
    },

    async heardOf(introduced) {
      await see('CONNECTED', introduced ? {} : { unless: ['REJECTED'] });
      pump?.peerIsThere();
    },

    receive: createSeries(quiet, PROMISED_MS),
    peerIsThere: () => pump?.peerIsThere(),
    wake: (fresh) => pump?.wake(fresh),

    pump() {
      const started = createPump<Fresh>({
        push: (look, fresh) => push({ warm: !look, look, fresh }),
        random,
        onError(error, failures) {
          // Once an outage, and not for a peer that is being started at the same time.
          if (failures === OUTAGE_FAILURES) events.failed(error, `sending changes to peer "${name}" (tried again until it is back)`);
        },
      });
      pump = started;
      return () => {
        if (pump === started) pump = null;
        return started.close();
      };
    },

    async close() {
      closing.abort();
      await pump?.close();
      await Promise.allSettled([now.busy, comparing]);
    },
  };
}

/** A failed push in the terms of the contract, and what it says of the peer. */
function explain(peer: string, error: unknown): { readonly state: PeerState | null; readonly told: unknown } {
  const rejected = (message: string) => ({ state: 'REJECTED' as const, told: new ServiceError('PEER_REJECTED', message) });
  if (error instanceof PeerUnreachableError) return { state: 'UNREACHABLE', told: new ServiceError('PEER_UNREACHABLE', error.message) };
  if (error instanceof PeerRejectedError) return rejected(error.message);
  if (error instanceof IntroductionError) return rejected(`peer "${peer}" does not fit this replica: ${error.message}.`);
  if (error instanceof BatchError) return rejected(`peer "${peer}" reported what this replica cannot take: ${error.message}. Nothing of it was taken over.`);
  return { state: null, told: error };
}

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return sleep(ms, undefined, { signal, ref: false }).catch(() => {});
}
