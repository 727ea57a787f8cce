import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from 'vitest';

import { PeerUnreachableError, type PeerClient } from '../../src/peers/client.ts';
import { createChannel, type Channel } from '../../src/services/channel.ts';
import { createIntroductions } from '../../src/services/introductions.ts';
import { createNotices } from '../../src/services/notices.ts';
import type { Replica } from '../../src/storage/replica.ts';
import { clientTo } from '../support/memory-client.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
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

const nothing = (): void => {};

function open(client: PeerClient, replica: Replica, settle: () => Promise<void>, finished = nothing): Channel {
  return createChannel(client, {
    replica,
    introductions: createIntroductions(replica, { skew: nothing, warn: nothing }),
    keeper: { settle },
    notices: createNotices(),
    events: { finished, applied: nothing, failed: nothing, joined: nothing, left: nothing },
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

describe('a comparison', () => {
  let replicas: Replicas;
  let channel: Channel;
  let compared: Promise<void>;
  /** How many buckets the peer was asked for, each time; none where it was asked for all of its digests. */
  let asked: number[];
  /** What happens before the peer answers. */
  let answering: () => Promise<void>;
  /** Two pushes are over. */
  let pushed: Promise<void>;
  beforeEach(async () => {
    replicas = await openReplicas('ab');
    const { replica, settle, sql } = replicas.at('a');
    await sql(`INSERT INTO things (id) VALUES ('x')`);
    const peer = clientTo(replicas.at('b'), []);
    asked = [];
    answering = async () => {};
    let met = nothing;
    compared = new Promise((told) => (met = told));
    let pushes = 0;
    let over = nothing;
    pushed = new Promise((told) => (over = told));
    const client: PeerClient = {
      ...peer,
      async digest(request) {
        asked.push(request.buckets.length);
        await answering();
        met();
        return peer.digest(request);
      },
    };
    channel = open(client, replica, settle, () => {
      pushes++;
      if (pushes === 2) over();
    });
    // No moment passes but by the test.
    vi.useFakeTimers({ toFake: ['setTimeout', 'clearTimeout'] });
  });
  afterEach(async () => {
    vi.useRealTimers();
    await channel.close();
    await replicas.close();
  });

  it('follows a push that was asked for at once', async () => {
    await channel.push();
    await compared;
  });

  it('leaves what differs to a quiet moment where the next push is faster', async () => {
    let next: Promise<unknown> = Promise.resolve();
    const again = new Promise<void>((told) => {
      answering = async () => {
        if (asked.length > 1) return told();
        // Seen by one side alone.
        await replicas.at('b').sql(`INSERT INTO things (id) VALUES ('y')`);
        await replicas.at('b').settle();
        next = channel.push();
      };
    });
    await channel.push();
    await compared;
    await next;
    vi.useRealTimers();
    await again;
    expect(asked).toEqual([0, 0]);
  });

  it('waits for the end of a sync of the peer’s', async () => {
    channel.receive()(true);
    channel.compare();
    await vi.advanceTimersByTimeAsync(4_000);
    expect(asked).toEqual([]);
    channel.receive()(false);
    await vi.advanceTimersByTimeAsync(200);
    await compared;
  });

  it('waits for a quiet moment behind a push that came by itself', async () => {
    await replicas.at('a').settle();
    const end = channel.pump();
    channel.wake(null);
    // The first push looks whether the peer is there.
    await pushed;
    // Time enough for a comparison that does not wait.
    await replicas.at('a').sql('SELECT pg_sleep(0.3)');
    expect(asked).toEqual([]);
    await vi.advanceTimersByTimeAsync(10_000);
    await compared;
    await end();
  });
});
