/**
 * Which gateway of a replica leads. Several processes may serve one database; what is to be done once and not by each (sending what is new, comparing, collecting) is done by the one that leads.
 *
 * The others wait for the lead, and have it as soon as the leader's session with the database ends. A leader that is stopped without dying lets its lease go stale; then its session is ended for it. Whoever
 * loses the session (the database was restarted, or somebody took over) stands down at once and tries again. Two that lead for a moment send twice what is taken once.
 */
import { setTimeout as sleep } from 'node:timers/promises';

import type { Seat } from '../storage/leadership.ts';
import { retryDelay } from './pump.ts';

export interface Leadership {
  readonly leading: boolean;
  /**
   * Has `start` called whenever this gateway comes to lead (at once where it does), and what it returned when it leads no more.
   *
   * @returns A function that takes the task away, ended.
   */
  onLead(start: () => () => Promise<void> | void): () => Promise<void>;
  close(): Promise<void>;
}

export interface LeadershipOptions {
  /** Opens a session of its own. */
  readonly open: () => Promise<Seat>;
  /** Awaited before the tasks begin. */
  readonly onLeading?: (how: { /** Nobody led when this process started. */ readonly first: boolean }) => Promise<void>;
  readonly onError: (message: string, error?: unknown) => void;
  /** 0 to 1, for the delays before the session is tried again. */
  readonly random: () => number;
}

/** A lease is renewed this often, and stale after so long. */
const RENEW_MS = 2_000;
export const STALE_SECONDS = 10;
/** Failures after which the delay grows no more (3 s or so): nobody may be leading. */
const SLOWEST = 5;

const POOLED =
  'its session with the database was changed for another: a pooler in transaction mode stands between, and cannot carry the lead. Set SESSION_DATABASE_URL to an address that goes around it.';

/**
 * Takes the lead where nobody has it, and otherwise waits for it until closed.
 *
 * @throws the error of the first session where it cannot be opened.
 */
export async function createLeadership({ open, onLeading, onError, random }: LeadershipOptions): Promise<Leadership> {
  const closing = new AbortController();
  const tasks = new Set<Task>();
  let leading = false;
  let session: Seat | null = null;

  async function lead(seat: Seat, first: boolean): Promise<void> {
    await onLeading?.({ first });
    if (closing.signal.aborted) return;
    leading = true;
    for (const task of tasks) task.start();
    void renewing(seat);
  }

  /** What is under way ends beside: none of it does harm, and it may hang on a peer. */
  function standDown(): Promise<unknown> {
    leading = false;
    return Promise.allSettled([...tasks].map((task) => task.stop()));
  }

  async function renewing(seat: Seat): Promise<void> {
    const over = new AbortController();
    void seat.ended.then(() => over.abort());
    while (await pause(RENEW_MS, over.signal)) {
      const renewed = await seat.renew().catch(() => null);
      if (renewed === true) continue;
      if (renewed === false) onError(POOLED);
      await seat.close().catch(() => {});
      return;
    }
  }

  /** Until the lead is this session's, and then until it has ended. */
  async function hold(seat: Seat, held: boolean): Promise<void> {
    if (!held) {
      while (!(await seat.awaitLead())) {
        if (await seat.depose(STALE_SECONDS)) onError('the gateway that leads this replica was not heard of any more, and its session with the database was ended; another takes over');
      }
      await lead(seat, false);
    }
    await seat.ended;
  }

  async function run(first: Seat, held: boolean): Promise<void> {
    let seat: Seat | null = first;
    let failures = 0;
    while (!closing.signal.aborted) {
      try {
        seat ??= await open();
        session = seat;
        if (!closing.signal.aborted) {
          await hold(seat, held);
          failures = 0;
          if (!closing.signal.aborted) onError('the session with the database that carries the lead has ended; it is opened again');
        }
      } catch (error) {
        failures++;
        if (!closing.signal.aborted && failures === SLOWEST) onError('the session with the database that carries the lead cannot be had; it is tried again', error);
      }
      held = false;
      void standDown();
      await seat?.close().catch(() => {});
      seat = null;
      await pause(retryDelay(Math.min(failures + 1, SLOWEST), random()), closing.signal);
    }
  }

  const seat = await open();
  session = seat;
  const first = await seat.tryLead();
  try {
    if (first) await lead(seat, true);
  } catch (error) {
    await seat.close().catch(() => {});
    throw error;
  }
  const running = run(seat, first);

  return {
    get leading() {
      return leading;
    },

    onLead(start) {
      const task = createTask(start);
      tasks.add(task);
      if (leading) task.start();
      return async () => {
        tasks.delete(task);
        await task.stop();
      };
    },

    async close() {
      closing.abort();
      await standDown();
      await session?.close().catch(() => {});
      await running;
    },
  };
}

interface Task {
  start(): void;
  stop(): Promise<void>;
}

function createTask(begin: () => () => Promise<void> | void): Task {
  let end: (() => Promise<void> | void) | null = null;
  /** A task begins again only after it has ended. */
  let ending: Promise<void> | null = null;
  let wanted = false;
  const start = (): void => {
    wanted = true;
    if (ending === null) end ??= begin();
  };
  return {
    start,
    async stop() {
      wanted = false;
      if (end !== null) {
        const stopping = end;
        end = null;
        ending = Promise.resolve(stopping()).finally(() => {
          ending = null;
          if (wanted) start();
        });
      }
      await ending;
    },
  };
}

/** @returns whether the time has passed, and nothing has ended it. */
function pause(ms: number, signal: AbortSignal): Promise<boolean> {
  return sleep(ms, true, { signal }).catch(() => false);
}
