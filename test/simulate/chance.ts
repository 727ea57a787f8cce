/** Chance from a seed: the same numbers on every machine (Bob Jenkins's small fast generator, as improved by Chris Doty-Humphrey: sfc32). */

export interface Chance {
  /** An integer from 0 up to, not including, `n`. */
  readonly below: (n: number) => number;
  /** True once in `n` times. */
  readonly once: (n: number) => boolean;
  readonly of: <T>(list: readonly T[]) => T;
}

export function createChance(seed: number): Chance {
  let [a, b, c, counter] = [seed | 0, Math.floor(seed / 0x100000000) | 0, 0x9e3779b9 | 0, 1];
  function next(): number {
    const sum = (((a + b) | 0) + counter) | 0;
    counter = (counter + 1) | 0;
    a = b ^ (b >>> 9);
    b = (c + (c << 3)) | 0;
    c = (((c << 21) | (c >>> 11)) + sum) | 0;
    return sum >>> 0;
  }
  for (let i = 0; i < 12; i++) next();
  const below = (n: number): number => next() % n;
  return { below, once: (n) => below(n) === 0, of: (list) => list[below(list.length)] as (typeof list)[number] };
}
