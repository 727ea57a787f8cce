/**
 * The channels to the peers that there are now.
 *
 * Peers come and go while the replica runs, through any of its gateways; the database holds them, and each gateway looks there twice a second. The one that leads has a loop for each peer where changes travel by
 * themselves, and compares with all of them from time to time.
 */
import type { PeerClient } from '../peers/client.ts';
import { readAddresses, type Address, type KnownPeer } from '../storage/addresses.ts';
import { createChannel, type Channel, type ChannelOptions } from './channel.ts';
import type { Leadership } from './leadership.ts';

export interface ChannelsOptions extends ChannelOptions {
  readonly connect: (address: Address) => PeerClient;
  readonly leadership: Pick<Leadership, 'onLead'>;
  /** Each change goes out as it is made (`SYNC_MODE=continuous`); otherwise only when told. */
  readonly live: boolean;
}

export interface Channels {
  get(name: string): Channel | undefined;
  all(): Channel[];
  /** Looks which peers there are now. */
  refresh(): Promise<void>;
  /** Looks now, and from time to time. */
  start(): Promise<void>;
  close(): Promise<void>;
}

const LOOK_MS = 500;
const COMPARE_MS = 30_000;

interface Open {
  readonly channel: Channel;
  /** Ends the loop that the leader has. */
  readonly endLoop: () => Promise<void>;
  /** As last seen in the database. */
  state: string;
}

export function createChannels(options: ChannelsOptions): Channels {
  const { replica, connect, leadership, live, notices, events } = options;
  const channels = new Map<string, Open>();
  const leaving = new Set<Promise<void>>();
  let looking: Promise<void> | null = null;
  let next: Promise<void> | null = null;
  let timer: NodeJS.Timeout | null = null;
  let closed = false;

  function open({ name, url, state }: KnownPeer): void {
    const channel = createChannel(connect({ name, url }), options);
    channels.set(name, { channel, state, endLoop: live ? leadership.onLead(channel.pump) : async () => {} });
    events.joined(name);
  }

  function leave(name: string, { channel, endLoop }: Open): void {
    channels.delete(name);
    events.left(name);
    const left: Promise<void> = Promise.all([channel.close(), endLoop()]).then(() => void leaving.delete(left));
    leaving.add(left);
  }

  async function look(): Promise<void> {
    const present = await readAddresses(replica.db);
    if (closed) return;
    const urls = new Map(present.map(({ name, url }) => [name, url]));
    for (const [name, each] of channels) if (urls.get(name) !== each.channel.client.url) leave(name, each);
    for (const peer of present) {
      const known = channels.get(peer.name);
      if (known === undefined) open(peer);
      else {
        // Another gateway heard of it.
        if (peer.state === 'CONNECTED' && known.state !== 'CONNECTED') known.channel.peerIsThere();
        known.state = peer.state;
      }
    }
  }

  /** One look after the one under way, which may have begun before what the caller wants seen. */
  function refresh(): Promise<void> {
    if (looking === null) {
      looking = look().finally(() => {
        looking = null;
      });
      return looking;
    }
    next ??= looking
      .catch(() => {})
      .then(() => {
        next = null;
        return refresh();
      });
    return next;
  }

  function schedule(): void {
    if (closed) return;
    timer = setTimeout(() => {
      refresh()
        .catch((error: unknown) => events.failed(error, 'looking for peers'))
        .finally(schedule);
    }, LOOK_MS);
  }

  const forgetChanges = notices.onChanged((fresh) => {
    for (const { channel } of channels.values()) channel.wake(fresh);
  });
  const endComparisons = leadership.onLead(() => {
    const interval = setInterval(() => {
      for (const { channel } of channels.values()) channel.compare();
    }, COMPARE_MS);
    return () => clearInterval(interval);
  });

  return {
    get: (name) => channels.get(name)?.channel,
    all: () => [...channels.values()].map(({ channel }) => channel),
    refresh,
    async start() {
      await refresh();
      schedule();
    },
    async close() {
      closed = true;
      if (timer) clearTimeout(timer);
      forgetChanges();
      await endComparisons();
      await looking?.catch(() => {});
      for (const [name, each] of channels) leave(name, each);
      await Promise.all(leaving);
    },
  };
}
