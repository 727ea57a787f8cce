import fc from 'fast-check';
import { describe, expect, it } from 'vitest';

import { createGather, createShared } from '../../src/services/sharing.ts';

/** Something that moves on, read in a time of its own: each read shows what was there when it began. */
function createSource() {
  const answering: (() => void)[] = [];
  let now = 0;
  let reads = 0;
  return {
    moveOn: () => ++now,
    reads: () => reads,
    underWay: () => answering.length,
    read<T>(make: (now: number) => T): Promise<T> {
      reads++;
      const made = make(now);
      return new Promise((resolve) => answering.push(() => resolve(made)));
    },
    async answer(which: number): Promise<void> {
      answering.splice(which % Math.max(1, answering.length), 1)[0]?.();
      await new Promise((resolve) => setImmediate(resolve));
    },
  };
}

const steps = fc.array(fc.record({ act: fc.constantFrom('ask', 'ask', 'ask', 'move', 'answer'), key: fc.nat({ max: 4 }) }), { maxLength: 60 });

/** Plays steps and checks that every answer is for its key, and no older than its question. */
async function plays(script: readonly { act: string; key: number }[], source: ReturnType<typeof createSource>, ask: (key: number) => Promise<readonly [key: number, seen: number] | undefined>): Promise<void> {
  const answers: Promise<void>[] = [];
  let present = 0;
  for (const { act, key } of script) {
    if (act === 'move') present = source.moveOn();
    else if (act === 'answer') await source.answer(key);
    else {
      const since = present;
      answers.push(
        ask(key).then((answer) => {
          const [of, seen] = answer as readonly [number, number];
          expect([of, seen >= since]).toEqual([key, true]);
        }),
      );
    }
  }
  while (source.underWay() > 0) await source.answer(0);
  await Promise.all(answers);
}

describe('equal questions', () => {
  it('get answers of their own kind that are no older than they are', async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (script) => {
        const source = createSource();
        const shared = createShared<readonly [number, number]>();
        await plays(script, source, (key) => shared(String(key), () => source.read((now) => [key, now] as const)));
      }),
      { numRuns: 300 },
    );
  });

  it('are asked once more for all who ask while one is under way, and kinds do not wait for each other', async () => {
    const source = createSource();
    const shared = createShared<number>();
    const ask = (kind: string) => shared(kind, () => source.read((now) => now));
    const first = ask('a');
    const later = Array.from({ length: 50 }, () => ask('a'));
    void ask('b');
    expect(source.reads()).toBe(2);
    source.moveOn();
    await source.answer(0);
    expect([await first, source.reads()]).toEqual([0, 3]);
    await source.answer(1);
    expect(new Set(await Promise.all(later))).toEqual(new Set([1]));
  });

  it('fail with the question that they share, and the next is asked anew', async () => {
    const shared = createShared<number>();
    const fail = () => Promise.reject(new Error('the database is gone'));
    const answers = [shared('a', fail), shared('a', fail), shared('a', fail)];
    for (const answer of answers) await expect(answer).rejects.toThrow('the database is gone');
    expect(await shared('a', () => Promise.resolve(1))).toBe(1);
  });
});

describe('look-ups', () => {
  it('find what their key has, no older than they are', async () => {
    await fc.assert(
      fc.asyncProperty(steps, fc.integer({ min: 1, max: 3 }), async (script, most) => {
        const source = createSource();
        const find = createGather<number, readonly [number, number]>(most, (keys) => {
          expect(keys.length).toBeLessThanOrEqual(most);
          expect(new Set(keys).size).toBe(keys.length);
          return source.read((now) => new Map(keys.map((key) => [key, [key, now] as const])));
        });
        await plays(script, source, find);
      }),
      { numRuns: 300 },
    );
  });

  it('are two at a time, and then all that were waiting', async () => {
    const source = createSource();
    const asked: (readonly number[])[] = [];
    const find = createGather<number, number>(10, (keys) => {
      asked.push(keys);
      return source.read(() => new Map(keys.filter((key) => key !== 7).map((key) => [key, key])));
    });
    const found = Promise.all([1, 2, 3, 4, 3, 7].map(find));
    expect(asked).toEqual([[1], [2]]);
    while (source.underWay() > 0) await source.answer(0);
    expect(asked).toEqual([[1], [2], [3, 4, 7]]);
    expect(await found).toEqual([1, 2, 3, 4, 3, undefined]);
  });

  it('fail with the question that they share, and later ones are asked', async () => {
    let failing = true;
    const find = createGather<number, number>(10, (keys) => (failing ? Promise.reject(new Error('the database is gone')) : Promise.resolve(new Map(keys.map((key) => [key, key])))));
    for (const answer of [1, 2, 3, 4].map(find)) await expect(answer).rejects.toThrow('the database is gone');
    failing = false;
    expect(await find(3)).toBe(3);
  });
});
