import { describe, expect, it, vi } from 'vitest';

import { createLeadership, type Leadership } from '../../src/services/leadership.ts';
import type { Seat } from '../../src/storage/leadership.ts';

/** A database with one lock, to which sessions can be broken. */
function createLock() {
  let holder: Session | null = null;
  let down = false;
  const waiting: (() => void)[] = [];
  interface Session extends Seat {
    break(): void;
  }
  const sessions: Session[] = [];

  async function open(): Promise<Seat> {
    if (down) throw new Error('the database is down');
    let end = (): void => {};
    const state = { over: false };
    const ended = new Promise<void>((resolve) => (end = resolve));
    const take = (): boolean => {
      if (holder !== null || state.over) return false;
      holder = session;
      return true;
    };
    const session: Session = {
      ended,
      tryLead: async () => take(),
      async awaitLead() {
        while (!state.over) {
          if (take()) return true;
          await new Promise<void>((resolve) => waiting.push(resolve));
        }
        throw new Error('the session has ended');
      },
      renew: async () => holder === session,
      depose: async () => false,
      break() {
        state.over = true;
        if (holder === session) holder = null;
        end();
        for (const wake of waiting.splice(0)) wake();
      },
      close: async () => session.break(),
    };
    sessions.push(session);
    return session;
  }
  return { open, sessions, setDown: (is: boolean) => void (down = is) };
}

const gateways: Leadership[] = [];
async function start(open: () => Promise<Seat>, onLeading?: (how: { first: boolean }) => Promise<void>): Promise<Leadership> {
  const gateway = await createLeadership({ open, onError: () => {}, random: () => 0, ...(onLeading && { onLeading }) });
  gateways.push(gateway);
  return gateway;
}
async function closeAll(): Promise<void> {
  await Promise.all(gateways.splice(0).map((gateway) => gateway.close()));
}

/** Counts how often it runs now. */
function createWork() {
  const work = { running: 0, begun: 0 };
  return { work, start: () => (work.running++, work.begun++, () => void work.running--) };
}

describe('of several gateways', () => {
  it('one leads, and the next when it closes; tasks run on that one alone', async () => {
    const lock = createLock();
    const firsts: boolean[] = [];
    const all = [];
    for (let i = 0; i < 3; i++) all.push(await start(lock.open, async ({ first }) => void firsts.push(first)));
    const works = all.map((gateway) => {
      const { work, start: begin } = createWork();
      gateway.onLead(begin);
      return work;
    });
    expect(works.map(({ running }) => running)).toEqual([1, 0, 0]);
    await all[0]?.close();
    await vi.waitFor(() => expect(works.map(({ running }) => running)).toEqual([0, 1, 0]));
    await all[1]?.close();
    await vi.waitFor(() => expect(works.map(({ running }) => running)).toEqual([0, 0, 1]));
    // Only the one that found nobody when it started.
    expect(firsts).toEqual([true, false, false]);
    await closeAll();
  });

  it('one whose session breaks stands down at once, and waits for its turn again', async () => {
    const lock = createLock();
    const [one, other] = [await start(lock.open), await start(lock.open)];
    const work = createWork();
    one.onLead(work.start);
    lock.sessions[0]?.break();
    await vi.waitFor(() => expect([one.leading, other.leading, work.work.running]).toEqual([false, true, 0]));
    await vi.waitFor(() => expect(lock.sessions).toHaveLength(3));
    lock.sessions[1]?.break();
    await vi.waitFor(() => expect([one.leading, other.leading, work.work.running]).toEqual([true, false, 1]));
    await closeAll();
    expect(work.work).toEqual({ running: 0, begun: 2 });
  });
});

it('a database that is away is tried until it is back', async () => {
  const lock = createLock();
  const gateway = await start(lock.open);
  lock.setDown(true);
  lock.sessions[0]?.break();
  await vi.waitFor(() => expect(gateway.leading).toBe(false));
  lock.setDown(false);
  await vi.waitFor(() => expect(gateway.leading).toBe(true), { timeout: 20_000 });
  await closeAll();
});

it('a task that was taken away begins no more, and one begins again only after it has ended', async () => {
  const lock = createLock();
  const gateway = await start(lock.open);
  const { work, start: begin } = createWork();
  const away = gateway.onLead(begin);
  let finish = (): void => {};
  let slow = 0;
  gateway.onLead(() => {
    slow++;
    return () => new Promise<void>((resolve) => (finish = resolve));
  });
  await away();
  expect(work).toEqual({ running: 0, begun: 1 });
  lock.sessions[0]?.break();
  await vi.waitFor(() => expect([lock.sessions.length, gateway.leading]).toEqual([2, true]));
  expect([work.begun, slow]).toEqual([1, 1]);
  finish();
  await vi.waitFor(() => expect(slow).toBe(2));
  const closing = closeAll();
  finish();
  await closing;
});

it('a session that cannot be had at the start fails the start', async () => {
  const lock = createLock();
  lock.setDown(true);
  await expect(start(lock.open)).rejects.toThrow('the database is down');
});
