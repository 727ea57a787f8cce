import { afterAll, afterEach, beforeAll, expect, it, vi } from 'vitest';

import { PeerUnreachableError, type PeerClient } from '../../src/peers/client.ts';
import { createChannel, type Channel } from '../../src/services/channel.ts';
import { createIntroductions } from '../../src/services/introductions.ts';
import { createNotices } from '../../src/services/notices.ts';
import type { Replica } from '../../src/storage/replica.ts';
import { clientTo } from '../support/memory-client.ts';
import { openReplicas } from '../support/replicas.ts';
import { createParties, type Parties } from './parties.ts';

let parties: Parties;
beforeAll(() => {
  parties = createParties();
});
afterEach(() => vi.restoreAllMocks());
afterAll(() => parties.close());

/** A loop of promises that are settled already lets no timer fire and no test time out: it is ended after so many rounds. */
const ROUNDS = 1_000;

function endLoops(): void {
  const { catch: original } = Promise.prototype;
  let rounds = 0;
  vi.spyOn(Promise.prototype, 'catch').mockImplementation(function (this: Promise<unknown>, onRejected) {
    if (++rounds > ROUNDS) throw new Error('it waits in a loop');
    return original.call(this, onRejected) as Promise<never>;
  });
}

function open(client: PeerClient, replica: Replica, settle: () => Promise<void>): Channel {
  const nothing = (): void => {};
  return createChannel(client, {
    replica,
    introductions: createIntroductions(replica, { skew: nothing, warn: nothing }),
    keeper: { settle },
    notices: createNotices(),
    events: { finished: nothing, applied: nothing, failed: nothing, joined: nothing, left: nothing },
    random: () => 0,
  });
}

it('a push that waits for one that fails is made after it, when what was seen of the peer is noted', async () => {
  const replica = await parties.open('a', { slot: 1 });
  let calls = 0;
  const away = async (): Promise<never> => {
    calls++;
    throw new PeerUnreachableError('it is away');
  };
  const client: PeerClient = { name: 'b', url: 'http://b', handshake: away, changes: away, digest: away, inspect: away, resend: away };
  const channel = open(client, replica, async () => {});
  endLoops();
  const results = await Promise.allSettled([channel.push(), channel.push(), channel.push()]);
  for (const result of results) expect(result).toMatchObject({ status: 'rejected', reason: { code: 'PEER_UNREACHABLE' } });
  expect(calls).toBe(3);
  await channel.close();
});

it('what a push without a handshake leaves untold follows it, once', async () => {
  const replicas = await openReplicas('ab');
  const { replica, settle, sql } = replicas.at('a');
  const peer = clientTo(replicas.at('b'), []);
  const calls: string[] = [];
  const client: PeerClient = {
    ...peer,
    handshake: (request) => (calls.push('handshake'), peer.handshake(request)),
    changes: (request) => (calls.push('changes'), peer.changes(request)),
  };
  const channel = open(client, replica, settle);
  for (const key of 'xy') {
    await sql('INSERT INTO things (id) VALUES ($1)', [key]);
    await channel.push();
  }
  await expect.poll(() => calls, { timeout: 10_000, interval: 20 }).toEqual(['handshake', 'changes', 'changes', 'handshake']);
  await channel.close();
  await replicas.close();
});
