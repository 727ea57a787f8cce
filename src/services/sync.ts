/** Sending this replica's changes to its peers, and taking over theirs. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { PeerClient } from '../peers/client.ts';
import type { PeerHandlers } from '../peers/endpoint.ts';
import { storeOwed } from '../storage/checkpoints.ts';
import { pendingOf, readConflicts, type ConflictEntry } from '../storage/conflicts.ts';
import type { Replica } from '../storage/replica.ts';
import type { Channel } from './channel.ts';
import { createChannels, type Channels, type ChannelsOptions } from './channels.ts';
import { toConflict, type Conflict, type Undelivered } from './conflicts.ts';
import { ServiceError } from './errors.ts';
import { createHandlers } from './handlers.ts';
import { pageSize, parse } from './input.ts';
import type { Detected } from './links.ts';

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

export interface SyncService extends Sync {
  readonly channels: Pick<Channels, 'refresh' | 'start'>;
  /** @throws ServiceError UNKNOWN_PEER. */
  clientOf(peer: string): Promise<PeerClient>;
  /** What answers the peers. */
  readonly handlers: Omit<PeerHandlers, 'inspect' | 'resend'>;
  /** Carries a resolution to every peer that can be reached; what cannot be is owed, and goes with the next sync in either direction. */
  deliver(): Promise<Undelivered[]>;
  /**
   * Tells the peers that can be reached what this replica has, and hears what they have. Live, what they have not taken goes with it; otherwise nothing is sent before it is told to.
   */
  exchange(): Promise<void>;
  close(): Promise<void>;
}

/** Whoever resolves waits this long for the peers, no longer: one may accept and never answer. */
const DELIVER_MS = 20_000;

export function createSync(options: ChannelsOptions): SyncService {
  const { replica, introductions, notices, events, live } = options;
  const channels = createChannels(options);

  async function find(name: string): Promise<Channel> {
    // It may have been added, or removed, a moment ago through another gateway.
    await channels.refresh();
    const channel = channels.get(name);
    if (channel !== undefined) return channel;
    const known = channels.all().map(({ client }) => `"${client.name}"`).join(', ');
    throw new ServiceError('UNKNOWN_PEER', `"${name}" is no peer of replica "${replica.name}". ${known ? `Its peers: ${known}.` : 'It has none; name them in PEERS, or add one with addPeer.'}`);
  }

  async function deliverTo(channel: Channel): Promise<Undelivered[]> {
    const { name } = channel.client;
    try {
      await channel.push();
      return [];
    } catch (error) {
      events.failed(error, `carrying a resolution to peer "${name}"`);
      // A sync that was under way already, and without it, may have taken the note away.
      await storeOwed(replica.db, name);
      return [{ peer: name, reason: (error as Error).message }];
    }
  }

  return {
    channels,
    handlers: createHandlers({ replica, channels, introductions, notices, events, live }),

    clientOf: async (name) => (await find(name)).client,

    async syncTo(name) {
      const channel = await find(name);
      const began = performance.now();
      const { conflicts, ...counts } = await channel.push();
      return {
        peer: name,
        ...counts,
        durationMs: performance.now() - began,
        conflicts: (first) => logged(replica, conflicts, parse(pageSize, first, 'first')),
      };
    },

    async deliver() {
      await channels.refresh();
      const all = channels.all();
      for (const { client } of all) await storeOwed(replica.db, client.name);
      const results = await Promise.all(
        all.map(async (channel) => {
          const patience = new AbortController();
          const { name } = channel.client;
          const late = sleep(DELIVER_MS, [{ peer: name, reason: `peer "${name}" has not answered for ${DELIVER_MS / 1000} s. It gets it as soon as it does.` }], { signal: patience.signal });
          // Given up where the peer was faster.
          late.catch(() => {});
          return Promise.race([deliverTo(channel), late]).finally(() => patience.abort());
        }),
      );
      return results.flat();
    },

    async exchange() {
      await channels.refresh();
      await Promise.allSettled(channels.all().map((channel) => (live ? channel.push() : channel.greet())));
    },

    close: channels.close,
  };
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
