import { describe, expect, it, vi } from 'vitest';

import { createPump, retryDelay, type Pump } from '../../src/services/pump.ts';

/** A push whose end the test decides. */
function createTarget(): { readonly push: () => Promise<void>; readonly begun: () => Promise<void>; readonly count: () => number; end(error?: Error): void } {
  let settle: { resolve: () => void; reject: (error: Error) => void } | null = null;
  let count = 0;
  return {
    push: () => {
      count++;
      return new Promise<void>((resolve, reject) => {
        settle = { resolve, reject };
      });
    },
    begun: () => vi.waitFor(() => expect(settle).not.toBeNull(), { interval: 1 }),
    count: () => count,
    end(error) {
      const ending = settle;
      settle = null;
      if (error) ending?.reject(error);
      else ending?.resolve();
    },
  };
}

async function withPump(test: (pump: Pump<string>, target: ReturnType<typeof createTarget>, failures: number[]) => Promise<void>): Promise<void> {
  const target = createTarget();
  const failures: number[] = [];
  const pump = createPump<string>({ push: target.push, onError: (_error, _count, ms) => failures.push(ms), random: () => 0 });
  try {
    await test(pump, target, failures);
  } finally {
    const closed = pump.close();
    target.end();
    await closed;
  }
}

describe('a pump', () => {
  it('pushes at the start, and once more for any number of wakes meanwhile', () =>
    withPump(async (pump, target) => {
      await target.begun();
      for (let i = 0; i < 10; i++) pump.wake();
      expect(target.count()).toBe(1);
      target.end();
      await target.begun();
      expect(target.count()).toBe(2);
    }));

  it('is woken in the moment after its last look as well', () =>
    withPump(async (pump, target) => {
      for (let depth = 0; depth < 12; depth++) {
        await target.begun();
        const before = target.count();
        target.end();
        for (let i = 0; i < depth; i++) await Promise.resolve();
        pump.wake();
        await target.begun();
        expect(target.count()).toBe(before + 1);
      }
    }));

  it('is not woken out of the delay after a failure, but by the peer', () =>
    withPump(async (pump, target, failures) => {
      await target.begun();
      target.end(new Error('away'));
      await vi.waitFor(() => expect(failures).toHaveLength(1), { interval: 1 });
      pump.wake();
      expect(target.count()).toBe(1);
      pump.peerIsThere();
      await target.begun();
      expect(target.count()).toBe(2);
    }));

  it('starts nothing after its end', async () => {
    const target = createTarget();
    const pump = createPump<string>({ push: target.push, onError: () => {}, random: () => 0 });
    await target.begun();
    const closed = pump.close();
    target.end(new Error('cut off'));
    await closed;
    pump.wake();
    pump.peerIsThere();
    expect(target.count()).toBe(1);
  });
});

it('delays double up to a bound, and half of each is chance', () => {
  expect([1, 2, 3].map((failures) => retryDelay(failures, 0))).toEqual([100, 200, 400]);
  expect([1, 2, 3].map((failures) => retryDelay(failures, 1))).toEqual([200, 400, 800]);
  expect(retryDelay(1_000, 1)).toBe(30_000);
});
