/** Following a table that grows: what is new is read from it page by page, whenever something happened. Nothing is queued, so a slow reader costs no memory and misses nothing. */
import type { Notices } from './notices.ts';

const PAGE = 100;

/**
 * Everything after `from`, and then what comes, until the signal aborts or the reader returns.
 *
 * @param read - What comes after a place, in order, at most so many: [place, item].
 */
export function follow<T>(
  notices: Notices,
  from: string,
  read: (after: string, limit: number) => Promise<[place: string, item: T][]>,
  signal?: AbortSignal,
): AsyncIterableIterator<T> {
  let after = from;
  let page: [string, T][] = [];
  let ended = false;
  let wake: (() => void) | null = null;
  // True where something happened since the last look; the first look is always due.
  let due = true;

  const forget = notices.onConflicts(() => {
    due = true;
    wake?.();
  });
  const end = (): void => {
    ended = true;
    forget();
    signal?.removeEventListener('abort', end);
    wake?.();
  };
  if (signal?.aborted) end();
  else signal?.addEventListener('abort', end);

  return {
    async next() {
      for (;;) {
        if (ended) return { done: true, value: undefined };
        const found = page.shift();
        if (found !== undefined) {
          [after] = found;
          return { done: false, value: found[1] };
        }
        if (due) {
          due = false;
          page = await read(after, PAGE);
          // A page of large items is short.
          if (page.length > 0) due = true;
        } else {
          await new Promise<void>((resolve) => {
            wake = resolve;
          });
          wake = null;
        }
      }
    },
    async return() {
      end();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]() {
      return this;
    },
  };
}
