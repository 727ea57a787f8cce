/** Deletes resolved conflicts from the log once they have been kept as long as they are to be. */
import { setTimeout as sleep } from 'node:timers/promises';

import { purgeResolved } from '../storage/conflict-log.ts';
import type { Replica } from '../storage/replica.ts';

export interface Retention {
  /** Deletes all that is due; how many. */
  purge(signal?: AbortSignal): Promise<number>;
  /** Purges now and once a minute, until the function that it returns is called. */
  start(): () => Promise<void>;
}

const ROUND_MS = 60_000;
/** A transaction that deletes holds the state lock: others take their turn between two. */
const DELETED_AT_ONCE = 1_000;

/** @param seconds - How long a conflict is kept after it was resolved; Infinity: for ever. */
export function createRetention(replica: Replica, seconds: number, onError: (error: unknown) => void): Retention {
  async function purge(signal?: AbortSignal): Promise<number> {
    for (let deleted = 0; ; ) {
      const some = Number.isFinite(seconds) ? await purgeResolved(replica, seconds, DELETED_AT_ONCE) : 0;
      deleted += some;
      if (some === 0 || signal?.aborted) return deleted;
    }
  }

  return {
    purge,
    start() {
      const closing = new AbortController();
      const rounds = async (): Promise<void> => {
        while (Number.isFinite(seconds) && !closing.signal.aborted) {
          await purge(closing.signal).catch(onError);
          await sleep(ROUND_MS, undefined, { signal: closing.signal, ref: false }).catch(() => {});
        }
      };
      const running = rounds();
      return () => {
        closing.abort();
        return running;
      };
    },
  };
}
