/**
 * Following a table that grows: what is new is read from it page by page, whenever something happened. Nothing is queued, so a slow reader costs no memory and misses nothing.
 *
 * However many follow, each page is read once for all who look at the same place for what happened at the same time.
 */
import type { Notices } from './notices.ts';

/** What comes after a place, in order, at most so many: [place, item]. */
export type ReadPage<T> = (after: string, limit: number) => Promise<readonly (readonly [place: string, item: T])[]>;

/** Everything after `from`, and then what comes, until the signal aborts or the reader returns. */
export type Follow<T> = (from: string, signal?: AbortSignal) => AsyncIterableIterator<T>;

interface Page<T> {
  /** What had happened when it was asked for: it shows all of that. */
  readonly moment: number;
  readonly items: ReturnType<ReadPage<T>>;
  readonly forget: NodeJS.Timeout;
}

const PAGE = 100;
/** Pages that are kept for others who look, and how long: readers that keep up ask for a page within milliseconds of each other. */
const KEPT_PAGES = 4;
const KEPT_MS = 1_000;

/** @param read - Asked once for all readers at the same place; they are handed the same items. */
export function createFollow<T>(notices: Notices, read: ReadPage<T>): Follow<T> {
  const pages = new Map<string, Page<T>>();
  const wakers = new Set<() => void>();
  let stopListening: (() => void) | null = null;
  /** Counts what makes a look due: each notice, and each reader that begins. */
  let moment = 0;

  function drop(after: string): void {
    clearTimeout(pages.get(after)?.forget);
    pages.delete(after);
  }

  /** The page after a place, as it was at this moment or later. */
  function pageAfter(after: string, since: number): ReturnType<ReadPage<T>> {
    const known = pages.get(after);
    if (known !== undefined && known.moment >= since) return known.items;
    drop(after);
    const items = read(after, PAGE);
    const page = { moment, items, forget: setTimeout(() => drop(after), KEPT_MS).unref() };
    pages.set(after, page);
    // Who comes after a failure asks anew.
    items.catch(() => pages.get(after) === page && drop(after));
    for (const oldest of pages.keys()) {
      if (pages.size <= KEPT_PAGES) break;
      drop(oldest);
    }
    return items;
  }

  function listen(waker: () => void): void {
    wakers.add(waker);
    stopListening ??= notices.onConflicts(() => {
      moment++;
      for (const wake of wakers) wake();
    });
  }

  function leave(waker: () => void): void {
    wakers.delete(waker);
    if (wakers.size > 0) return;
    stopListening?.();
    stopListening = null;
  }

  return (from, signal) => {
    let after = from;
    let page: Awaited<ReturnType<ReadPage<T>>> = [];
    let used = 0;
    let ended = false;
    let wake: (() => void) | null = null;
    // Since when a look is due; null where nothing has happened since the last. The first is always due, and sees what is there by now.
    let due: number | null = ++moment;

    const waker = (): void => {
      due = moment;
      wake?.();
    };
    const end = (): void => {
      ended = true;
      page = [];
      leave(waker);
      signal?.removeEventListener('abort', end);
      wake?.();
    };
    listen(waker);
    if (signal?.aborted) end();
    else signal?.addEventListener('abort', end);

    return {
      async next() {
        for (;;) {
          if (ended) return { done: true, value: undefined };
          const found = page[used];
          if (found !== undefined) {
            used++;
            [after] = found;
            return { done: false, value: found[1] };
          }
          if (due !== null) {
            const since = due;
            due = null;
            used = 0;
            page = await pageAfter(after, since);
            // There may be more: a page of large items is short.
            if (page.length > 0) due ??= since;
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
  };
}
