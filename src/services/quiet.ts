/** Waiting for a moment without work: what can wait is then in nobody's way, and finds less that is half done. */

export interface Quiet {
  /** A piece of work begins. */
  begin(): void;
  /** It is over. */
  end(): void;
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
