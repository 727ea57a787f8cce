/**
 * Keeping the log short: folds captured writes in the background, and tries again to show what waits.
 *
 * A write through this process wakes it; writes of others (psql, another gateway), and changes and conflicts that another gateway took in, are found by a look each second, which costs three small reads.
 */
import { retryWaiting } from '../storage/present.ts';
import { lastConflict } from '../storage/conflicts.ts';
import { feedEnd, fold } from '../storage/feed.ts';
import type { Replica } from '../storage/replica.ts';
import type { Notices } from './notices.ts';

export interface Keeper {
  /** A write was made here: fold it soon. */
  wake(): void;
  /** Folds all that is captured by now. Several callers share one run. */
  settle(): Promise<void>;
  close(): Promise<void>;
}

/** How soon a write is taken in. */
export interface Pace {
  /** Between two looks for writes of others, in milliseconds. */
  readonly lookMs: number;
  /** Writes that come this close together are folded together. */
  readonly gatherMs: number;
}

/** Where changes travel only when told, nobody waits for the fold. */
export const CALM: Pace = { lookMs: 1_000, gatherMs: 20 };
/** Where they travel at once. */
export const LIVE: Pace = { lookMs: 200, gatherMs: 0 };

/** What waits is tried again after changes, and at least this often. */
const RETRY_MS = 10_000;
const RETRY_RECORDS = 200;

export function createKeeper(replica: Replica, notices: Notices, pace: Pace, onError: (error: unknown) => void): Keeper {
  let running: Promise<void> | null = null;
  let next: Promise<void> | null = null;
  let timer: NodeJS.Timeout | null = null;
  let closed = false;
  let retryAt = 0;
  let lastSeen: string | null = null;
  let lastEnd: number | null = null;

  async function run(): Promise<void> {
    const folded = await fold(replica, notices.conflicts);
    if (folded > 0) {
      // Read before it is told: what is in it is found by whoever looks now, and what comes later by the next look.
      lastEnd = await feedEnd(replica);
      notices.changed();
    }
    if (folded > 0 || Date.now() >= retryAt) {
      retryAt = Date.now() + RETRY_MS;
      await retryWaiting(replica, RETRY_RECORDS, notices.conflicts);
    }
  }

  /** One run after the one under way, which may have begun before the caller's write. */
  function settle(): Promise<void> {
    if (running === null) {
      running = run().finally(() => {
        running = null;
      });
      return running;
    }
    next ??= running
      .catch(() => {})
      .then(() => {
        next = null;
        return settle();
      });
    return next;
  }

  /** Another gateway may have folded, or taken a peer's changes: whoever sends them is to look as well. */
  async function lookAtFeed(): Promise<void> {
    const end = await feedEnd(replica);
    if (end !== lastEnd) notices.changed();
    lastEnd = end;
  }

  /** Another process of this replica may have written to the conflict log: whoever follows it here is to look as well. */
  async function lookAtConflicts(): Promise<void> {
    const { id, resolvedSeq } = await lastConflict(replica.db);
    const now = `${id} ${resolvedSeq}`;
    // The first look tells of it too: somebody may have begun to follow before it.
    if (now !== lastSeen) notices.conflictsElsewhere();
    lastSeen = now;
  }

  function schedule(delay: number): void {
    if (timer) clearTimeout(timer);
    if (closed) return;
    timer = setTimeout(() => {
      timer = null;
      settle()
        .then(lookAtFeed)
        .then(lookAtConflicts)
        .catch(onError)
        .finally(() => timer ?? schedule(pace.lookMs));
    }, delay);
  }

  schedule(pace.lookMs);
  // What a peer sent may be what others wait for: they are tried at the next look.
  const forget = notices.onChanged(() => {
    retryAt = 0;
  });
  let gathering = false;
  return {
    wake() {
      if (gathering) return;
      gathering = true;
      setTimeout(() => {
        gathering = false;
        schedule(0);
      }, pace.gatherMs).unref();
    },
    settle,
    async close() {
      closed = true;
      forget();
      if (timer) clearTimeout(timer);
      await (next ?? running)?.catch(() => {});
    },
  };
}
