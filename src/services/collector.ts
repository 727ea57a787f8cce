/**
 * Dropping tombstones from time to time: first the peers are asked what they have by now, then what all have is dropped, and what all have dropped is forgotten.
 *
 * Of several gateways over one database one at a time runs it; two at once would only do the same work twice.
 */
import { collect, type Collected } from '../storage/collect.ts';
import type { Replica } from '../storage/replica.ts';

export interface Collector {
  /** One round now; callers share one that is under way. */
  run(): Promise<void>;
  close(): Promise<void>;
}

export interface CollectorOptions {
  readonly replica: Replica;
  /** Seconds for which a deletion is kept at least. */
  readonly retention: number;
  /** Asks the peers that can be reached what they have. Never rejects. */
  readonly exchange: () => Promise<void>;
  readonly onCollected: (collected: Collected) => void;
  readonly onError: (error: unknown) => void;
  /** Between two rounds, in milliseconds; unless given a minute, or as long as deletions are kept where that is shorter. */
  readonly intervalMs?: number;
}

const INTERVAL_MS = 60_000;
const LEAST_INTERVAL_MS = 1_000;

export function createCollector({ replica, retention, exchange, onCollected, onError, intervalMs = intervalFor(retention) }: CollectorOptions): Collector {
  const closing = new AbortController();
  let running: Promise<void> | null = null;

  async function round(): Promise<void> {
    try {
      await exchange();
      if (closing.signal.aborted) return;
      const collected = await collect(replica, retention, closing.signal);
      if (collected.dropped + collected.forgotten > 0) onCollected(collected);
    } catch (error) {
      if (!closing.signal.aborted) onError(error);
    }
  }

  function run(): Promise<void> {
    running ??= round().finally(() => {
      running = null;
    });
    return running;
  }

  const timer = setInterval(() => void run(), intervalMs);
  return {
    run,
    async close() {
      closing.abort();
      clearInterval(timer);
      await running;
    },
  };
}

/** What is kept for seconds is not to be forgotten a minute late. */
function intervalFor(retention: number): number {
  return Math.max(LEAST_INTERVAL_MS, Math.min(INTERVAL_MS, retention * 1_000));
}
