import { getEventListeners } from 'node:events';

import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { follow } from '../../src/services/follow.ts';
import { createNotices, type Notices } from '../../src/services/notices.ts';

const NEWS = { detected: [{ id: '1', model: 'M', key: 'k', kind: 'UPDATE_UPDATE' }], resolved: [] } as const;

/** A log that grows, the notices of it, and how many listen to them. */
function createLog(): { add: (count: number) => void; notices: Notices; listeners: () => number; reads: () => number; read: (after: string, limit: number) => Promise<[string, number][]> } {
  const { conflicts, onConflicts, ...others } = createNotices();
  let last = 0;
  let listening = 0;
  let reads = 0;
  return {
    add(count) {
      last += count;
      conflicts(NEWS);
    },
    notices: {
      ...others,
      conflicts,
      onConflicts(listener) {
        const forget = onConflicts(listener);
        listening++;
        let once = true;
        return () => {
          if (once) listening--;
          once = false;
          forget();
        };
      },
    },
    listeners: () => listening,
    reads: () => reads,
    async read(after, limit) {
      reads++;
      const present = last;
      // As a database does, it answers later, with what was there when it was asked.
      await Promise.resolve();
      const from = Number(after) + 1;
      return Array.from({ length: Math.min(limit, Math.max(0, present - from + 1)) }, (_, i) => [String(from + i), from + i]);
    },
  };
}

describe('following a log', () => {
  it('gives all after a place, each once and in order, however it grows meanwhile', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(fc.integer({ min: 0, max: 250 }), fc.integer({ min: 0, max: 30 })), { maxLength: 12 }), fc.integer({ min: 0, max: 50 }), async (steps, from) => {
        const log = createLog();
        log.add(from);
        const items = follow(log.notices, String(from), log.read);
        const seen: number[] = [];
        let total = 0;
        for (const [grow, take] of steps) {
          total += grow;
          log.add(grow);
          for (let i = 0; i < take && seen.length < total; i++) seen.push((await items.next()).value as number);
        }
        while (seen.length < total) seen.push((await items.next()).value as number);
        expect(seen).toEqual(Array.from({ length: total }, (_, i) => from + i + 1));
        await items.return?.();
        expect(log.listeners()).toBe(0);
      }),
      { numRuns: 100 },
    );
  });

  it('does not miss what comes while it is reading, and waits without asking', async () => {
    const log = createLog();
    const items = follow(log.notices, '0', log.read);
    const next = items.next();
    log.add(1);
    expect((await next).value).toBe(1);
    const later = items.next();
    await Promise.resolve();
    const asked = log.reads();
    await new Promise((resolve) => setImmediate(resolve));
    expect(log.reads() - asked).toBeLessThanOrEqual(1);
    log.add(1);
    expect((await later).value).toBe(2);
  });

  it.each(['return', 'abort'] as const)('ends a reader that waits, by %s, and leaves nothing behind', async (how) => {
    const log = createLog();
    const controller = new AbortController();
    const items = follow(log.notices, '0', log.read, controller.signal);
    const waiting = items.next();
    await new Promise((resolve) => setImmediate(resolve));
    if (how === 'return') await items.return?.();
    else controller.abort();
    expect(await waiting).toEqual({ done: true, value: undefined });
    expect(await items.next()).toEqual({ done: true, value: undefined });
    expect([log.listeners(), getEventListeners(controller.signal, 'abort').length]).toEqual([0, 0]);
  });

  it('of a signal that has aborted is over at once', async () => {
    const log = createLog();
    log.add(5);
    const items = follow(log.notices, '0', log.read, AbortSignal.abort());
    expect(await items.next()).toEqual({ done: true, value: undefined });
    expect(log.listeners()).toBe(0);
  });

  it('hands on what the log fails with', async () => {
    const log = createLog();
    const items = follow(log.notices, '0', () => Promise.reject(new Error('the database is gone')));
    await expect(items.next()).rejects.toThrow('the database is gone');
  });
});
