import { getEventListeners } from 'node:events';

import fc from 'fast-check';
import { describe, expect, it, vi } from 'vitest';

import { createFollow } from '../../src/services/follow.ts';
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

/** Until all that can go on has done so. */
const settled = () => new Promise((resolve) => setImmediate(resolve));

describe('following a log', () => {
  it('gives all after a place, each once and in order, however it grows meanwhile', async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(fc.tuple(fc.integer({ min: 0, max: 250 }), fc.integer({ min: 0, max: 30 })), { maxLength: 12 }), fc.integer({ min: 0, max: 50 }), async (steps, from) => {
        const log = createLog();
        log.add(from);
        const items = createFollow(log.notices, log.read)(String(from));
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
    const items = createFollow(log.notices, log.read)('0');
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
    const items = createFollow(log.notices, log.read)('0', controller.signal);
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
    const items = createFollow(log.notices, log.read)('0', AbortSignal.abort());
    expect(await items.next()).toEqual({ done: true, value: undefined });
    expect(log.listeners()).toBe(0);
  });

  it('hands on what the log fails with', async () => {
    const log = createLog();
    const items = createFollow(log.notices, () => Promise.reject(new Error('the database is gone')))('0');
    await expect(items.next()).rejects.toThrow('the database is gone');
  });
});

describe('many that follow one log', () => {
  it('each get all after their own place, once and in order, whoever comes, goes or is slow', async () => {
    const step = fc.record({ grow: fc.nat({ max: 120 }), which: fc.nat({ max: 5 }), take: fc.nat({ max: 130 }), act: fc.constantFrom('read', 'read', 'read', 'begin', 'end') });
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 30 }), async (steps) => {
        const log = createLog();
        const follow = createFollow(log.notices, log.read);
        let total = 0;
        const createReader = (from: number) => {
          const items = follow(String(from));
          const seen: number[] = [];
          let reading = Promise.resolve();
          let ended = false;
          return {
            seen,
            end: async () => {
              ended = true;
              await items.return?.();
            },
            /** As many more as there are by now, at most `count`. */
            read(count: number): Promise<void> {
              reading = reading.then(async () => {
                for (let left = Math.min(count, total - from - seen.length); left > 0; left--) {
                  const next = await items.next();
                  if (next.done) return;
                  seen.push(next.value);
                }
              });
              return reading;
            },
            expected: () => Array.from({ length: ended ? seen.length : total - from }, (_, i) => from + i + 1),
          };
        };
        const readers: ReturnType<typeof createReader>[] = [];
        for (const { grow, which, take, act } of steps) {
          total += grow;
          log.add(grow);
          if (act === 'begin') readers.push(createReader(Math.max(0, total - take)));
          else if (act === 'end') await readers[which]?.end();
          else void readers[which]?.read(take);
          // Some go on while others wait for a page.
          if (take % 3 === 0) await Promise.resolve();
        }
        for (const reader of readers) {
          await reader.read(Infinity);
          expect(reader.seen).toEqual(reader.expected());
          await reader.end();
        }
        expect(log.listeners()).toBe(0);
      }),
      { numRuns: 200 },
    );
  });

  it('share the reads: a page for what happened, and one that shows that no more is there', async () => {
    const log = createLog();
    const follow = createFollow(log.notices, log.read);
    const readers = Array.from({ length: 50 }, () => follow('0'));
    let waiting = readers.map((reader) => reader.next());
    await settled();
    for (const told of [1, 2, 3]) {
      const before = log.reads();
      log.add(1);
      expect((await Promise.all(waiting)).map(({ value }) => value as number)).toEqual(Array(50).fill(told));
      waiting = readers.map((reader) => reader.next());
      await settled();
      expect(log.reads() - before).toBe(2);
    }
  });

  /** Reads that show what the entries hold now, which may change without a notice. */
  const holding = (log: ReturnType<typeof createLog>, text: () => string) => async (after: string, limit: number) => (await log.read(after, limit)).map(([place]) => [place, text()] as const);

  it('see what was there when they began, not what another was shown before', async () => {
    const log = createLog();
    let text = 'before';
    const follow = createFollow(log.notices, holding(log, () => text));
    log.add(1);
    expect((await follow('0').next()).value).toBe('before');
    text = 'after';
    expect((await follow('0').next()).value).toBe('after');
  });

  it('keep pages for each other for a second: the slow read what is there by then', async () => {
    vi.useFakeTimers();
    try {
      const log = createLog();
      let text = 'before';
      const follow = createFollow(log.notices, holding(log, () => text));
      log.add(1_000);
      const [quick, slow] = [follow('0'), follow('0')];
      for (let i = 0; i < 1_000; i++) await quick.next();
      for (let i = 0; i < 700; i++) await slow.next();
      expect(vi.getTimerCount()).toBe(4);
      text = 'after';
      await vi.advanceTimersByTimeAsync(1_000);
      expect(vi.getTimerCount()).toBe(0);
      expect((await slow.next()).value).toBe('after');
    } finally {
      vi.useRealTimers();
    }
  });

  it('ask anew after a read that failed', async () => {
    const log = createLog();
    let failing = true;
    const follow = createFollow(log.notices, (after, limit) => (failing ? Promise.reject(new Error('the database is gone')) : log.read(after, limit)));
    log.add(1);
    const [one, other] = [follow('0'), follow('0')];
    await expect(one.next()).rejects.toThrow('the database is gone');
    failing = false;
    expect((await other.next()).value).toBe(1);
  });
});
