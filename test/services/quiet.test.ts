import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { createQuiet, createSeries, type Quiet } from '../../src/services/quiet.ts';

let quiet: Quiet;
let closing: AbortController;
beforeEach(() => {
  vi.useFakeTimers();
  quiet = createQuiet(100, 1_000);
  closing = new AbortController();
});
afterEach(() => {
  vi.useRealTimers();
});

/** Whether the moment has come, each time it is asked. */
function waiting(): () => boolean {
  let isOver = false;
  void quiet.moment(closing.signal).then(() => (isOver = true));
  return () => isOver;
}

const pass = (ms: number): Promise<unknown> => vi.advanceTimersByTimeAsync(ms);

describe('a quiet moment', () => {
  it('is there where nothing was under way for so long', async () => {
    const isOver = waiting();
    await pass(1);
    expect(isOver()).toBe(true);
  });

  it('comes some time after the last work, however many pieces there were', async () => {
    quiet.begin();
    const isOver = waiting();
    await pass(300);
    quiet.begin();
    quiet.end();
    await pass(150);
    expect(isOver()).toBe(false);
    quiet.end();
    await pass(99);
    quiet.begin();
    quiet.end();
    await pass(99);
    expect(isOver()).toBe(false);
    await pass(1);
    expect(isOver()).toBe(true);
  });

  it('is waited for as long as one piece of work takes', async () => {
    quiet.begin();
    const isOver = waiting();
    for (let n = 0; n < 9; n++) {
      await pass(100);
      quiet.end();
      quiet.begin();
    }
    await pass(5_000);
    expect(isOver()).toBe(false);
    quiet.end();
    await pass(0);
    expect(isOver()).toBe(true);
  });

  it('is there between two pieces of work when it has been waited for long enough', async () => {
    const works = setInterval(() => {
      quiet.begin();
      quiet.end();
    }, 50);
    quiet.begin();
    quiet.end();
    const isOver = waiting();
    await pass(999);
    expect(isOver()).toBe(false);
    await pass(1);
    expect(isOver()).toBe(true);
    clearInterval(works);
  });

  it('is not waited for any more by who is told to stop, or was', async () => {
    quiet.begin();
    const isOver = waiting();
    closing.abort();
    await pass(0);
    expect(isOver()).toBe(true);
    await quiet.moment(closing.signal);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('can be waited for again', async () => {
    quiet.begin();
    quiet.end();
    const first = waiting();
    await pass(100);
    quiet.begin();
    const second = waiting();
    await pass(500);
    expect([first(), second()]).toEqual([true, false]);
    quiet.end();
    await pass(100);
    expect(second()).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });
});

describe('work in parts', () => {
  let begin: ReturnType<typeof createSeries>;
  beforeEach(() => {
    begin = createSeries(quiet, 5_000);
  });

  it('goes on between two of them, and is over with the last', async () => {
    const isOver = waiting();
    for (let n = 0; n < 3; n++) {
      const end = begin();
      await pass(2_000);
      end(true);
      await pass(4_999);
    }
    expect(isOver()).toBe(false);
    begin()(false);
    await pass(0);
    expect(isOver()).toBe(true);
    expect(vi.getTimerCount()).toBe(0);
  });

  it('is over with the last, though that was there before the one in front of it had ended', async () => {
    const isOver = waiting();
    const [first, second, last] = [begin(), begin(), begin()];
    first(true);
    second(true);
    await pass(2_000);
    expect(isOver()).toBe(false);
    last(false);
    await pass(0);
    expect(isOver()).toBe(true);
  });

  it('is over where none comes for so long', async () => {
    const isOver = waiting();
    begin()(true);
    await pass(4_999);
    expect(isOver()).toBe(false);
    await pass(1);
    expect(isOver()).toBe(true);
  });
});
