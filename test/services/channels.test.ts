import { afterAll, afterEach, beforeAll, beforeEach, expect, it, vi } from 'vitest';

import { PeerUnreachableError, type PeerClient } from '../../src/peers/client.ts';
import { createChannels, type Channels } from '../../src/services/channels.ts';
import { createIntroductions } from '../../src/services/introductions.ts';
import { createNotices } from '../../src/services/notices.ts';
import { addAddress, removeAddress } from '../../src/storage/addresses.ts';
import { readPeer } from '../../src/storage/checkpoints.ts';
import type { Replica } from '../../src/storage/replica.ts';
import { createParties, type Parties } from './parties.ts';

let parties: Parties;
let replica: Replica;
let channels: Channels;
/** Tasks that the leader has now: comparisons, and a loop for each peer. */
let tasks: number;
/** Messages to peers that wait for an answer, by the peer's address. */
let asked: Map<string, AbortSignal>;
let told: string[];

beforeAll(() => {
  parties = createParties();
});
afterAll(() => parties.close());
beforeEach(async () => {
  replica = await parties.open('a', { slot: 1 });
  tasks = 0;
  asked = new Map();
  told = [];
  channels = createChannels({
    replica,
    introductions: createIntroductions(replica, { skew: () => {}, warn: () => {} }),
    keeper: { settle: async () => {} },
    notices: createNotices(),
    events: {
      finished: (peer, outcome) => void told.push(`${peer} ${outcome}`),
      applied: () => {},
      failed: () => {},
      joined: (peer) => void told.push(`${peer} joined`),
      left: (peer) => void told.push(`${peer} left`),
    },
    random: () => 0,
    live: true,
    connect: ({ name, url }) => silent(name, url),
    leadership: {
      onLead(start) {
        tasks++;
        const stop = start();
        return async () => {
          await stop();
          tasks--;
        };
      },
    },
  });
});
afterEach(async () => {
  await channels.close();
  expect(tasks).toBe(0);
  parties.giveBack();
});

/** A peer that takes a message and never answers. */
function silent(name: string, url: string): PeerClient {
  const ask = (_request: object, signal?: AbortSignal): Promise<never> =>
    new Promise((_resolve, reject) => {
      if (signal) asked.set(url, signal);
      signal?.addEventListener('abort', () => reject(new PeerUnreachableError('given up')));
    });
  return { name, url, handshake: ask, changes: ask, digest: ask, inspect: ask, resend: ask };
}
const isAsked = (url: string) => vi.waitFor(() => expect(asked.has(url)).toBe(true));

it('a peer that is added is sent to, and one that is removed no more: what is under way ends, and so does its loop', async () => {
  await channels.start();
  await addAddress(replica.db, { name: 'b', url: 'http://b' });
  await addAddress(replica.db, { name: 'c', url: 'http://c' });
  await channels.refresh();
  await isAsked('http://b');
  await isAsked('http://c');
  expect(tasks).toBe(3);

  await removeAddress(replica.db, 'b');
  await channels.refresh();
  expect([asked.get('http://b')?.aborted, asked.get('http://c')?.aborted]).toEqual([true, false]);
  await vi.waitFor(() => expect(tasks).toBe(2));
  expect(channels.all().map(({ client }) => client.name)).toEqual(['c']);
  // That it was not waited for counts as nothing, and says nothing of it.
  expect(told).toEqual(['b joined', 'c joined', 'b left']);
  expect((await readPeer(replica.db, 'b')).state).toBe('UNKNOWN');
});

it('a peer that another gateway adds is found by a look; one that moves is sent to where it is', async () => {
  await channels.start();
  await addAddress(replica.db, { name: 'b', url: 'http://b' });
  await isAsked('http://b');
  await removeAddress(replica.db, 'b');
  await addAddress(replica.db, { name: 'b', url: 'http://elsewhere' });
  await isAsked('http://elsewhere');
  expect(asked.get('http://b')?.aborted).toBe(true);
  expect(channels.get('b')?.client.url).toBe('http://elsewhere');
});
