/**
 * Live replication: for each peer a loop that pushes whenever there is something to push.
 *
 * A change wakes it at once; changes that come while it pushes are pushed together afterwards. A peer that fails is tried again after a delay that doubles up to a bound, with jitter, so that the replicas
 * of a large installation do not all come back in step; when that peer is heard of, at once. A look from time to time finds what nobody told of.
 */

export interface Pump<News> {
  /** There is something to push. @param news - What, where that is known; it is for the very next push. */
  wake(news?: News | null): void;
  /** The peer was heard of: a delay after a failure is over. */
  peerIsThere(): void;
  /** Ends the loop; a push under way is the caller's to end. */
  close(): Promise<void>;
}

export interface PumpOptions<News> {
  /** @param look - Nobody told of a change: it is to be seen whether the peer is there. @param news - What has just changed, where that is known. */
  readonly push: (look: boolean, news: News | null) => Promise<unknown>;
  /** Told of each failure, the how manieth in a row it is, and in how many milliseconds it is tried again. */
  readonly onError: (error: unknown, failures: number, retryMs: number) => void;
  /** 0 to 1, for the jitter. */
  readonly random: () => number;
}

const FIRST_DELAY_MS = 200;
const LARGEST_DELAY_MS = 30_000;
/** Where all is well and nothing happens: as soon as this a peer that is gone is missed. */
const LOOK_MS = 5_000;

export function createPump<News>({ push, onError, random }: PumpOptions<News>): Pump<News> {
  let running: Promise<void> | null = null;
  let timer: NodeJS.Timeout | null = null;
  let due = false;
  let failures = 0;
  const closing = new AbortController();

  async function run(first: boolean, told: News | null): Promise<void> {
    let look = first;
    let news = told;
    do {
      due = false;
      try {
        await push(look, news);
        look = false;
        news = null;
        failures = 0;
      } catch (error) {
        failures++;
        if (closing.signal.aborted) return;
        const delay = retryDelay(failures, random());
        onError(error, failures, delay);
        sleep(delay);
        return;
      }
    } while (due && !closing.signal.aborted);
    sleep(LOOK_MS);
  }

  function start(look = false, news: News | null = null): void {
    if (closing.signal.aborted || running !== null) return;
    if (timer) clearTimeout(timer);
    timer = null;
    running = run(look, news).finally(() => {
      running = null;
      // Woken after the last look at `due`.
      if (due && failures === 0) start();
    });
  }

  function sleep(ms: number): void {
    if (closing.signal.aborted) return;
    timer = setTimeout(() => {
      timer = null;
      start(true);
    }, ms);
  }

  start(true);
  return {
    wake(news = null) {
      due = true;
      if (failures === 0) start(false, news);
    },
    peerIsThere() {
      if (failures === 0) return;
      failures = 0;
      due = true;
      start();
    },
    async close() {
      closing.abort();
      if (timer) clearTimeout(timer);
      await running;
    },
  };
}

/**
 * Milliseconds until the next try, after so many failures in a row: half of a doubling delay, and as much again by chance ("equal jitter").
 *
 * @param random - 0 to 1.
 */
export function retryDelay(failures: number, random: number): number {
  const delay = Math.min(LARGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** Math.min(failures - 1, 20));
  return delay / 2 + (delay / 2) * random;
}
