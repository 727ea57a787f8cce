/** Waiting for a moment without work: what can wait is then in nobody's way, and finds less that is half done. */

export interface Quiet {
  /** A piece of work begins. */
  begin(): void;
  /** It is over. */
  end(): void;
  /** Some is under way. */
  isBusy(): boolean;
  /** Over after such a moment, or between two pieces of work when `latestMs` have passed, or at once where the signal has been given. One at a time waits. */
  moment(signal: AbortSignal): Promise<void>;
}

/** @param quietMs - How long nothing must have been under way. @param latestMs - How long is waited for that at most. */
export function createQuiet(quietMs: number, latestMs: number): Quiet {
  let works = 0;
  let endedAt = -Infinity;
  let stirred = (): void => {};
  return {
    begin() {
      works++;
      stirred();
    },
    end() {
      works--;
      endedAt = performance.now();
      stirred();
    },
    isBusy: () => works > 0,
    moment(signal) {
      if (signal.aborted) return Promise.resolve();
      return new Promise((resolve) => {
        let timer: NodeJS.Timeout | undefined;
        let isLate = false;
        const over = (): void => {
          clearTimeout(timer);
          clearTimeout(latest);
          signal.removeEventListener('abort', over);
          stirred = () => {};
          resolve();
        };
        const latest = setTimeout(() => {
          isLate = true;
          stirred();
        }, latestMs).unref();
        signal.addEventListener('abort', over);
        stirred = () => {
          clearTimeout(timer);
          if (works > 0) return;
          if (isLate) over();
          else timer = setTimeout(over, endedAt + quietMs - performance.now()).unref();
        };
        stirred();
      });
    },
  };
}

/**
 * Work that somebody else does in parts, one behind the other or a few at once: it goes on between two of them, until one is the last, or none has come for so long.
 *
 * @returns what begins a part, and gives what ends it: `more`: others follow.
 */
export function createSeries(quiet: Pick<Quiet, 'begin' | 'end'>, patienceMs: number): () => (more: boolean) => void {
  let promised: NodeJS.Timeout | null = null;
  const come = (): void => {
    if (promised === null) return;
    clearTimeout(promised);
    promised = null;
    quiet.end();
  };
  return () => {
    quiet.begin();
    come();
    return (more) => {
      // Of several parts at once one promise is enough, and behind the last there is none.
      come();
      if (more) promised = setTimeout(come, patienceMs).unref();
      else quiet.end();
    };
  };
}
