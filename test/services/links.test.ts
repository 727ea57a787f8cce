/** A link that goes on without another handshake, while either side is given another schema. */
import { setTimeout as sleep } from 'node:timers/promises';

import { afterEach, describe, expect, it, vi } from 'vitest';

import type { PeerClient, PeerRejectedError } from '../../src/peers/client.ts';
import type { ChangesResponse, OutgoingChanges } from '../../src/replication/protocol.ts';
import { createIntroductions } from '../../src/services/introductions.ts';
import { createLink, type Link } from '../../src/services/links.ts';
import { createNotices } from '../../src/services/notices.ts';
import { openDatabase } from '../../src/storage/database.ts';
import { readFeed, SENT_RECORDS, type Fresh } from '../../src/storage/feed.ts';
import { fold } from '../../src/storage/fold.ts';
import { openReplica, schemaOf } from '../../src/storage/replica.ts';
import { expectSame } from '../support/compare.ts';
import { interceptOnce } from '../support/intercept.ts';
import { clientTo, LostError } from '../support/memory-client.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { model, THINGS, THINGS_WITH_DEFAULT, type Schema } from '../support/schemas.ts';

let replicas: Replicas;
let handshakes = 0;
let batches = 0;
afterEach(() => replicas.close());

/** f2 as a number. */
const RETYPED: Schema = { ddl: '', models: [model('Thing', 'things', { id: 'String', f1: 'String?', f2: 'Int?' })] };
const RETYPE = 'ALTER TABLE things ALTER COLUMN f2 TYPE integer USING f2::integer';

/** `onTaken`: is told where the peer has a batch, so that the next may be sent. */
type Send = (request: OutgoingChanges, again: (request: OutgoingChanges, onTaken?: () => void) => Promise<ChangesResponse>, onTaken?: () => void) => Promise<ChangesResponse>;

/** From a to whoever is b when it is called. */
/**
 * @param send - How a batch is sent.
 * @param fold - What folding is; told by `folded` of a part.
 */
function linkToB(asked: (request: OutgoingChanges) => OutgoingChanges = (request) => request, send: Send = (request, again) => again(request), folding?: (folded: () => void) => Promise<void>): Link {
  const { replica, settle } = replicas.at('a');
  const b = (): PeerClient => clientTo(replicas.at('b'), []);
  handshakes = 0;
  batches = 0;
  const client: PeerClient = {
    name: 'b',
    url: 'memory:b',
    handshake: (request) => {
      handshakes++;
      return b().handshake(request);
    },
    changes: (request, _signal, onTaken) => {
      batches++;
      return send(asked(request), (sent, told) => b().changes(sent, undefined, told), onTaken);
    },
    digest: (request) => b().digest(request),
    inspect: (request) => b().inspect(request),
    resend: (request) => b().resend(request),
  };
  const introductions = createIntroductions(replica, { skew: () => {}, warn: () => {} });
  return createLink({ replica, client, introductions, keeper: { settle: folding ? (folded = () => {}) => folding(folded) : settle }, notices: createNotices() });
}

const capture = (key: string): Promise<unknown> => replicas.at('a').sql(`INSERT INTO things (id, f1, f2) VALUES ($1, '1', '2')`, [key]);
const write = async (key: string): Promise<void> => {
  await capture(key);
  await replicas.at('a').settle();
};

describe('a link that has shaken hands', () => {
  it('sends what was just folded without reading it, where it has sent all before that', async () => {
    replicas = await openReplicas('ab');
    const link = linkToB();
    await write('x');
    await link.push(false, true);
    const { replica } = replicas.at('a');
    const read = vi.spyOn(replica.db, 'transaction');
    const folded = async (key: string): Promise<Fresh | null> => {
      await capture(key);
      const { fresh } = await fold(replica, () => {}, [['Thing', key]]);
      read.mockClear();
      return fresh;
    };
    const first = await folded('y');
    expect(await link.push(false, true, first)).toMatchObject({ sent: 1, applied: 1 });
    expect(read).not.toHaveBeenCalled();
    // Of what stands in between it knows nothing.
    await write('z');
    expect(await link.push(false, true, await folded('u'))).toMatchObject({ sent: 2, applied: 2 });
    expect(await link.push(false, true, first)).toMatchObject({ sent: 0 });
    await expectSame(replicas);
    expect(handshakes).toBe(1);
  });

  it('takes it of no other peer that all of a change came from it', async () => {
    replicas = await openReplicas('ab');
    const link = linkToB();
    await write('x');
    await link.push(false, true);
    const { replica } = replicas.at('a');
    const { standing } = await readFeed(replica, 1, '');
    const none = { after: 1, batch: { end: 2, count: 0, records: '', columns: '', next: 1, more: false, standing } };
    await write('y');
    expect(await link.push(false, true, { ...none, peer: 'b.elsewhen' })).toMatchObject({ sent: 1, applied: 1 });
    await write('z');
    const peer = `b.${(await replicas.at('b').sql('SELECT replication.incarnation() AS i'))[0]?.['i']}`;
    expect(await link.push(false, true, { ...none, after: 2, batch: { ...none.batch, end: 3 }, peer })).toMatchObject({ sent: 0 });
    await write('u');
    expect(await link.push(false, true)).toMatchObject({ sent: 1 });
  });

  it('goes on without another handshake', async () => {
    replicas = await openReplicas('ab');
    const link = linkToB();
    for (const key of 'xyz') {
      await write(key);
      expect(await link.push(false, true)).toMatchObject({ sent: 1, applied: 1 });
    }
    await replicas.reopen('b');
    await write('u');
    expect(await link.push(false, true)).toMatchObject({ sent: 1, applied: 1 });
    expect(handshakes).toBe(1);
  });

  it('sends what is folded; one that has not, folds first', async () => {
    replicas = await openReplicas('ab');
    const link = linkToB();
    await link.push(false, true);
    await capture('x');
    expect(await link.push(false, true)).toMatchObject({ sent: 0 });
    expect(await link.push(false, false)).toMatchObject({ sent: 1, applied: 1 });
  });

  it('goes on where it is asked to send, too, but asks the peer where there is nothing to send', async () => {
    replicas = await openReplicas('ab');
    const link = linkToB();
    for (const key of 'xy') {
      await capture(key);
      expect(await link.push(false, false)).toMatchObject({ sent: 1, applied: 1 });
    }
    expect([handshakes, link.hasNews()]).toEqual([1, true]);
    expect(await link.push(false, false)).toMatchObject({ sent: 0 });
    expect([handshakes, link.hasNews()]).toEqual([2, false]);
  });

  it('shakes hands again where this replica has forgotten deletions: else nothing of what the peer answers would be taken', async () => {
    replicas = await openReplicas('ab');
    const [a, b] = [replicas.at('a'), replicas.at('b')];
    const link = linkToB();
    await write('x');
    await link.push(false, false);
    await a.sql('UPDATE replication.collection SET generation = generation + 1');
    await a.sql(`UPDATE things SET f1 = 'a'`);
    await b.sql(`UPDATE things SET f1 = 'b'`);
    expect(await link.push(false, false)).toMatchObject({ sent: 1, conflictsDetected: 1 });
    expect(handshakes).toBe(2);
    await expectSame(replicas);
  });

  it('shakes hands again where the peer was given another schema, and sends nothing where that does not fit', async () => {
    replicas = await openReplicas('ab');
    const link = linkToB();
    await write('x');
    await link.push(false, true);
    await replicas.upgrade('b', RETYPED, RETYPE);
    await write('y');
    await expect(link.push(false, true)).rejects.toThrow(/its field Thing\.f2 is Int, here it is String/);
    expect(await replicas.at('b').sql('SELECT id FROM things')).toEqual([{ id: 'x' }]);
    await replicas.upgrade('b', THINGS, 'ALTER TABLE things ALTER COLUMN f2 TYPE text');
    expect(await link.push(false, true)).toMatchObject({ sent: 1, applied: 1 });
  });

  it('may meet another process of the peer, which has not looked since a third one brought a field', async () => {
    replicas = await openReplicas('ab');
    let schema: string | null = null;
    const link = linkToB((request) => ({ ...request, ...(schema !== null && { schema }) }));
    await write('x');
    await link.push(false, true);
    await replicas.at('b').sql(`ALTER TABLE things ADD COLUMN f3 text NOT NULL DEFAULT 'd'`);
    const db = openDatabase(replicas.at('b').url, { size: 1, onError: () => {} });
    try {
      schema = schemaOf(await openReplica(db, { name: 'b', slot: 2, stride: 10, policy: 'manual', models: THINGS_WITH_DEFAULT.models, report: () => {} }));
      await write('y');
      expect(await link.push(false, true)).toMatchObject({ sent: 1, applied: 1 });
      expect(handshakes).toBe(1);
    } finally {
      await db.close();
    }
  });

  it('shakes hands again where this replica has taken up a field that another process brought', async () => {
    replicas = await openReplicas('ab');
    const link = linkToB();
    await write('x');
    await link.push(false, true);
    // Another process of a: it must be written, and b does not know it.
    await replicas.at('a').sql(`ALTER TABLE things ADD COLUMN f3 text NOT NULL DEFAULT lower('X')`);
    const db = openDatabase(replicas.at('a').url, { size: 1, onError: () => {} });
    try {
      await openReplica(db, { name: 'a', slot: 1, stride: 10, policy: 'manual', models: THINGS_WITH_DEFAULT.models, report: () => {} });
      await write('y');
      await expect(link.push(false, true)).rejects.toThrow(/it lacks field Thing\.f3, which must be written here/);
      expect(await replicas.at('b').sql('SELECT id FROM things')).toEqual([{ id: 'x' }]);
    } finally {
      await db.close();
    }
  });
});

describe('what the peer answers to a batch', () => {
  const count = 2 * SENT_RECORDS + 10;
  async function opposed(): Promise<void> {
    replicas = await openReplicas('ab');
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
    replicas = await openReplicas('ab');
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
    replicas = await openReplicas('ab');
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
    replicas = await openReplicas('ab');
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

it('passes over what the peer has, however long that is, and sends nothing for it', async () => {
  replicas = await openReplicas('ab');
  await replicas.at('b').sql(`INSERT INTO things (id) SELECT n::text FROM generate_series(1, 10001) n`);
  await replicas.sync('b', 'a');
  await write('z');
  expect(await linkToB().push(false, false)).toMatchObject({ sent: 1, applied: 1 });
  expect(batches).toBe(1);
});
