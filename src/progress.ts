/** What a person is told while something takes its time: on stderr, so that stdout holds results alone. */

export interface Progress {
  say(message: string): void;
  end(): void;
}

/** What takes longer than this is told. */
const QUIET_MS = 1000;

/** Says what is being done only when that takes a while, and goes on saying so. */
export function createProgress(): Progress {
  const started = performance.now();
  let waiting: string[] = [];
  let last = '';
  const flush = () => {
    for (const message of waiting) process.stderr.write(`${message} …\n`);
    waiting = [];
  };
  const first = setTimeout(flush, QUIET_MS);
  const again = setInterval(() => {
    if (last !== '') process.stderr.write(`${last} … (${Math.round((performance.now() - started) / 1000)} s)\n`);
  }, 5000);
  return {
    say(message) {
      last = message;
      waiting.push(message);
      if (performance.now() - started > QUIET_MS) flush();
    },
    end() {
      clearTimeout(first);
      clearInterval(again);
    },
  };
}
