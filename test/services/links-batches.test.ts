/** Batches that are under way over a link, and what the peer answers to them. */
import { setTimeout as sleep } from 'node:timers/promises';

import { afterEach, describe, expect, it } from 'vitest';

import type { PeerRejectedError } from '../../src/peers/client.ts';
import type { OutgoingChanges } from '../../src/replication/protocol.ts';
import { SENT_RECORDS } from '../../src/storage/feed.ts';
import { expectSame } from '../support/compare.ts';
import { interceptOnce } from '../support/intercept.ts';
import { LostError } from '../support/memory-client.ts';
import { batches, handshakes, linkToB, open, replicas, type Send, write } from './link-to-b.ts';

afterEach(() => replicas.close());

describe('what the peer answers to a batch', () => {
  const count = 2 * SENT_RECORDS + 10;
  async function opposed(): Promise<void> {
    await open('ab');
    await replicas.at('a').sql(`INSERT INTO things SELECT n, '0', '0' FROM generate_series(1, ${count}) n`);
    await replicas.sync('a', 'b');
    await replicas.at('a').sql(`UPDATE things SET f1 = 'a'`);
    await replicas.at('b').sql(`UPDATE things SET f2 = 'b'`);
  }
  async function agree(): Promise<void> {
    await replicas.rest();
    await expectSame(replicas);
    for (const name of replicas.names) expect(await replicas.at(name).sql('SELECT count(*) FROM replication.conflict')).toEqual([{ count: String(count) }]);
  }

  it('is taken over while it has the next', async () => {
    await opposed();
    // Nobody takes anything over here until the second batch is there.
    let sent = (): void => {};
    const second = new Promise<void>((met, late) => {
      sent = met;
      setTimeout(() => late(new Error('the next batch was not sent before the last answer was taken over')), 20_000).unref();
    });
    const link = linkToB((request) => {
      if (batches === 2) sent();
      return request;
    });
    await replicas.at('a').settle();
    const held = interceptOnce(replicas.at('a').replica.db, 'replication.begin_change', () => second);
    expect(await link.push(false, false)).toMatchObject({ sent: count, applied: count, conflictsDetected: count });
    expect([held.done, batches]).toEqual([true, 3]);
    await agree();
  });

  it('and cannot be taken over is told, once the peer has answered to the next', async () => {
    await opposed();
    const link = linkToB();
    await replicas.at('a').settle();
    interceptOnce(replicas.at('a').replica.db, 'replication.begin_change', () => Promise.reject(new Error('the disk is full')));
    await expect(link.push(false, false)).rejects.toThrow('the disk is full');
    expect(batches).toBe(2);
    expect(await replicas.at('a').sql('SELECT count(*) FROM replication.conflict')).toEqual([{ count: '0' }]);
    await agree();
  });
});

describe('batches', () => {
  /** Of records that are changed, and so do not come by column. */
  async function changed(count: number): Promise<void> {
    await open('ab');
    await replicas.at('a').sql(`INSERT INTO things SELECT n, '0', '0' FROM generate_series(1, ${count}) n`);
    await replicas.at('a').settle();
    await replicas.at('a').sql(`UPDATE things SET f1 = '1'`);
    await replicas.at('a').settle();
  }
  const arrived = async (): Promise<number> => Number((await replicas.at('b').sql('SELECT count(*) FROM things'))[0]?.['count']);
  /** The most that are under way at once. */
  function counting(): { readonly send: Send; most: number } {
    let underWay = 0;
    const counted = {
      most: 0,
      send: async (request: OutgoingChanges, again: Parameters<Send>[1], onTaken?: () => void) => {
        counted.most = Math.max(counted.most, ++underWay);
        return again(request, onTaken).finally(() => underWay--);
      },
    };
    return counted;
  }

  it('are two under way where the peer has the first, in their order', async () => {
    await changed(4 * SENT_RECORDS - 1);
    // The first is held up where it is taken over, until the second would long have been there.
    const counted = counting();
    let second = (): void => {};
    const sent = new Promise<void>((met) => (second = met));
    const held = interceptOnce(replicas.at('b').replica.db, 'replication.begin_change', () => sent.then(() => sleep(300)));
    const link = linkToB(undefined, (request, again, onTaken) => {
      const answer = counted.send(request, again, onTaken);
      if (batches === 2) second();
      return answer;
    });
    expect(await link.push(false, false)).toMatchObject({ sent: 4 * SENT_RECORDS - 1, applied: 4 * SENT_RECORDS - 1 });
    expect([held.done, counted.most, batches, handshakes]).toEqual([true, 2, 4, 1]);
    await expectSame(replicas);
  });

  it('are sent while more is folded, which they say', async () => {
    await open('ab');
    const a = replicas.at('a');
    let first = (): void => {};
    const sent = new Promise<void>((met, late) => {
      first = met;
      setTimeout(() => late(new Error('what was folded was not sent while more was')), 20_000).unref();
    });
    const told: boolean[] = [];
    const asked = (request: OutgoingChanges): OutgoingChanges => {
      told.push(request.more);
      first();
      return request;
    };
    const link = linkToB(asked, undefined, async (folded) => {
      await write('x');
      folded();
      await sent;
      // Nothing new.
      folded();
      await write('y');
    });
    expect(await link.push(false, false)).toMatchObject({ sent: 2, applied: 2 });
    expect(told).toEqual([true, false]);
    expect(await a.sql('SELECT count(*) FROM replication.log')).toEqual([{ count: '0' }]);
    await expectSame(replicas);
    await expect(linkToB(undefined, undefined, () => Promise.reject(new Error('the disk is full'))).push(false, false)).rejects.toThrow('the disk is full');
  });

  it('come one by one to a peer that does not say that it has them', async () => {
    await changed(2 * SENT_RECORDS - 1);
    const counted = counting();
    expect(await linkToB(undefined, (request, again) => counted.send(request, again)).push(false, false)).toMatchObject({ sent: 2 * SENT_RECORDS - 1 });
    expect([counted.most, batches]).toEqual([1, 2]);
  });

  it('come one by one where two are more than the peer should hold', async () => {
    await open('ab');
    await replicas.at('a').sql('ALTER TABLE things ALTER f1 SET STORAGE EXTERNAL');
    await replicas.at('a').sql(`INSERT INTO things SELECT n, repeat('x', 3 * 1024 * 1024), NULL FROM generate_series(1, 5) n`);
    const counted = counting();
    expect(await linkToB(undefined, counted.send).push(false, false)).toMatchObject({ sent: 5 });
    expect([counted.most, batches]).toEqual([1, 3]);
  });

  it('behind one that is lost are refused, though they arrive', async () => {
    await changed(4 * SENT_RECORDS);
    const refused: unknown[] = [];
    const link = linkToB(undefined, (request, again, onTaken) => {
      if (batches === 2) {
        onTaken?.();
        return new Promise((_, lost) => setTimeout(() => lost(new LostError('the batch was lost')), 500));
      }
      const answer = again(request, onTaken);
      if (batches === 3) answer.catch((error: unknown) => refused.push((error as PeerRejectedError).code));
      return answer;
    });
    await expect(link.push(false, false)).rejects.toThrow('the batch was lost');
    expect([refused, batches, await arrived()]).toEqual([['CHECKPOINT_MISMATCH'], 3, SENT_RECORDS]);
    await replicas.rest();
    await expectSame(replicas);
  });
});
