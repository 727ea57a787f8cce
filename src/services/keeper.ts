/**
 * Keeping the log short: folds captured writes in the background, and tries again to show what waits.
 *
 * A write through this process wakes it; writes of others (psql, another gateway), and changes and conflicts that another gateway took in, are found by a look each second, which costs three small reads. Where changes travel at once, it is five a second, and more while others write.
 */
import { retryWaiting } from '../storage/present.ts';
import { lastConflict } from '../storage/conflicts.ts';
import { feedEnd } from '../storage/feed.ts';
import { fold } from '../storage/fold.ts';
import { writeFolded, type OwnWrite } from '../storage/own-write.ts';
import type { Replica } from '../storage/replica.ts';
import type { RecordName } from '../storage/sizes.ts';
import type { Notices } from './notices.ts';

export interface Keeper {
  /** A write was made here, to this record where that is known: fold it soon. */
  wake(written?: RecordName): void;
  /** Makes a write, and sees to its being folded: in its own transaction where it is alone and travels at once. @throws What the write throws. */
  write<T>(write: OwnWrite<T>): Promise<T>;
  /** Folds all that is captured by now. Several callers share one run. @param onPart - Told when part of it is folded, and more is. */
  settle(onPart?: () => void): Promise<void>;
  close(): Promise<void>;
}

/** How soon a write is taken in. */
export interface Pace {
  /** Between two looks for writes of others, in milliseconds; no write through this process waits longer. */
  readonly lookMs: number;
  /** The same once others have written: each look at the log that finds nothing doubles it, up to `lookMs`. */
  readonly soonMs: number;
  /** Writes that come this close together are folded together. */
  readonly gatherMs: number;
  /** How many times as long as a run took is rested after it, while write follows write: runs are then fewer and larger, which costs less for each write, and leaves the writers more of the machine. */
  readonly rest: number;
  /** The same after a run that many writes were told to: who writes that much is better served by fewer runs than by early ones. */
  readonly restOfMany: number;
  /** How many times as long as a look took that folded what others wrote, writes of others are left alone after it, up to `MOST_REST_MS`: a record that is written again and again is folded once then. */
  readonly restOfLook: number;
  /** A write that is alone is folded in its own transaction. It is acknowledged later for that, by a millisecond or two, and there sooner. */
  readonly withWrite: boolean;
}

/** Where changes travel only when told, nobody waits for the fold. */
export const CALM: Pace = { lookMs: 1_000, soonMs: 1_000, gatherMs: 20, rest: 20, restOfMany: 20, restOfLook: 20, withWrite: false };
/** Where they travel at once. */
export const LIVE: Pace = { lookMs: 200, soonMs: 10, gatherMs: 0, rest: 1, restOfMany: 4, restOfLook: 0, withWrite: true };

const MOST_REST_MS = 5_000;

/** So many records, told of by name, are folded by themselves: few are done with one question, and of many all is taken that there is. */
const FEW = 16;

/** What waits is tried again after changes, and at least this often. */
const RETRY_MS = 10_000;
const RETRY_RECORDS = 200;

export function createKeeper(replica: Replica, notices: Notices, pace: Pace, onError: (error: unknown) => void): Keeper {
  const parts = new Set<() => void>();
  let running: Promise<number> | null = null;
  let next: Promise<number> | null = null;
  let closed = false;
  let retryAt = 0;
  let lastSeen: string | null = null;
  let lastEnd: number | null = null;

  /** @returns how many records were folded. */
  async function run(told: readonly RecordName[] | null): Promise<number> {
    const { records: folded, end, fresh, due } = await fold(
      replica,
      (conflicts, more) => {
        notices.conflicts(conflicts);
        if (!more) return;
        // There is something to send while the rest is folded.
        notices.changed();
        for (const tell of parts) tell();
      },
      told,
    );
    if (folded > 0) {
      // What is up to it is found by whoever looks now, and what comes later by the next look.
      lastEnd = end;
      notices.changed(fresh);
    }
    if (folded > 0 || Date.now() >= retryAt) {
      retryAt = Date.now() + RETRY_MS;
      await retryWaiting(replica, RETRY_RECORDS, notices.conflicts, due);
    }
    return folded;
  }

  /** One run after the one under way, which may have begun before the caller's write. @param told - Somebody told of writes, to these records. */
  function settle(told: readonly RecordName[] | null = null): Promise<number> {
    if (running === null) {
      running = run(told).finally(() => {
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

  let timer: NodeJS.Timeout | null = null;
  let soon: NodeJS.Immediate | null = null;
  let working: Promise<void> | null = null;
  let woken = false;
  /** How many have told of a write since the last run began. */
  let writes = 0;
  /** The records told of; null where one had no name, or they are many. */
  let written: Map<string, RecordName> | null = new Map();
  /** When it is looked at what other gateways did. */
  let lookAt = performance.now() + pace.lookMs;
  /** When the log is looked at for writes of others, however much is told until then, and how long after the last time. */
  let othersAt = lookAt;
  let gap = pace.lookMs;
  /** Until when writes of others are left alone. */
  let leftUntil = 0;
  let restedAt = 0;

  async function work(): Promise<void> {
    const began = performance.now();
    const isForOthers = !woken || began >= othersAt;
    const few = isForOthers ? null : written;
    const isLeft = !woken && began < leftUntil;
    const isMany = writes > FEW;
    writes = 0;
    const told = woken ? [...(few?.values() ?? [])] : null;
    woken = false;
    written = new Map();
    let looked = true;
    try {
      const folded = isLeft ? 0 : await settle(told);
      if (isForOthers && !isLeft) gap = told === null && folded > 0 ? pace.soonMs : 2 * gap;
      // Where there was nothing of what was told, another gateway may have been faster.
      looked = (told !== null && folded === 0) || performance.now() >= lookAt;
      if (!looked || closed) return;
      await lookAtFeed();
      await lookAtConflicts();
    } finally {
      const now = performance.now();
      if (looked) lookAt = now + pace.lookMs;
      if (isForOthers && !isLeft) {
        leftUntil = now + Math.min(MOST_REST_MS, pace.restOfLook * (now - began));
        othersAt = Math.max(leftUntil, now + Math.min(pace.lookMs, Math.max(gap, pace.restOfMany * (now - began))));
      }
      restedAt = now + (isMany ? pace.restOfMany : pace.rest) * (now - began);
    }
  }

  function begin(): void {
    working = work()
      .catch(onError)
      .finally(() => {
        working = null;
        schedule();
      });
  }

  function schedule(): void {
    if (timer !== null) clearTimeout(timer);
    if (soon !== null) clearImmediate(soon);
    // Who works goes on with what has come meanwhile.
    if (closed || working !== null) return;
    const now = performance.now();
    const delay = Math.min(lookAt - now, othersAt - now, woken ? Math.max(pace.gatherMs, restedAt - now) : Infinity);
    // A timer waits for a millisecond at least.
    if (delay > 0) timer = setTimeout(begin, delay);
    else soon = setImmediate(begin);
  }

  function wake(name?: RecordName): void {
    writes++;
    if (name !== undefined) written?.set(name.join(' '), name);
    if (name === undefined || (written?.size ?? 0) > FEW) written = null;
    if (woken) return;
    woken = true;
    schedule();
  }

  /** Writes under way. */
  let writing = 0;

  async function writeAlone<T>(write: OwnWrite<T>): Promise<{ readonly result: T; readonly isFolded: boolean }> {
    const { written: result, folded } = await writeFolded(replica, write);
    if (folded === null) return { result, isFolded: false };
    lastEnd = folded.end;
    notices.changed(folded.fresh);
    return { result, isFolded: true };
  }

  schedule();
  // What a peer sent may be what others wait for: they are tried at the next look.
  const forget = notices.onChanged(() => {
    retryAt = 0;
  });
  return {
    wake,
    async write(write) {
      const isAlone = pace.withWrite && writing === 0 && working === null && running === null && !woken && !closed;
      writing++;
      try {
        const { result, isFolded } = isAlone ? await writeAlone(write) : { result: await write.make(), isFolded: false };
        const name = write.nameOf(result);
        if (!isFolded && name !== null) wake(name);
        return result;
      } finally {
        writing--;
      }
    },
    async settle(onPart = () => {}) {
      parts.add(onPart);
      try {
        await settle();
      } finally {
        parts.delete(onPart);
      }
    },
    async close() {
      closed = true;
      forget();
      schedule();
      await (next ?? running)?.catch(() => {});
      await working;
    },
  };
}
