/**
 * Sharing reads: what many ask for at a time is asked of the database once.
 *
 * No answer is older than its question: a read answers those alone who asked before it began. So who asks while one is under way shares the next, and a single reader never waits.
 */

/**
 * One question at a time of each kind; those who ask the same meanwhile share the next.
 *
 * @returns What asks: `kind` tells equal questions from others.
 */
export function createShared<T>(): (kind: string, ask: () => Promise<T>) => Promise<T> {
  interface Lane {
    readonly over: Promise<unknown>;
    next: Promise<T> | null;
  }
  const lanes = new Map<string, Lane>();

  function begin(kind: string, ask: () => Promise<T>): Promise<T> {
    const answer = ask();
    const lane: Lane = {
      next: null,
      over: answer
        .catch(() => {})
        .then(() => {
          if (lane.next === null) lanes.delete(kind);
        }),
    };
    lanes.set(kind, lane);
    return answer;
  }

  return (kind, ask) => {
    const lane = lanes.get(kind);
    if (lane === undefined) return begin(kind, ask);
    return (lane.next ??= lane.over.then(() => begin(kind, ask)));
  };
}

interface Asked<V> {
  readonly promise: Promise<V | undefined>;
  resolve(value: V | undefined): void;
  reject(error: unknown): void;
}

/**
 * Look-ups by key: two questions at a time, each of one key or of all that were asked for meanwhile.
 *
 * @param read - What there is of these keys, which are distinct and at most `most`.
 */
export function createGather<K, V>(most: number, read: (keys: readonly K[]) => Promise<ReadonlyMap<K, V>>): (key: K) => Promise<V | undefined> {
  const waiting = new Map<K, Asked<V>>();
  let underWay = 0;

  function begin(): void {
    const asked = [...waiting].slice(0, most);
    for (const [key] of asked) waiting.delete(key);
    underWay++;
    read(asked.map(([key]) => key))
      .then(
        (found) => asked.forEach(([key, { resolve }]) => resolve(found.get(key))),
        (error: unknown) => asked.forEach(([, { reject }]) => reject(error)),
      )
      .finally(() => {
        underWay--;
        if (waiting.size > 0) begin();
      });
  }

  return (key) => {
    let asked = waiting.get(key);
    if (asked === undefined) {
      asked = askable();
      waiting.set(key, asked);
    }
    if (underWay < AT_ONCE) begin();
    return asked.promise;
  };
}

/** While one is answered, the other is asked. */
const AT_ONCE = 2;

function askable<V>(): Asked<V> {
  let settle: Pick<Asked<V>, 'resolve' | 'reject'> | undefined;
  const promise = new Promise<V | undefined>((resolve, reject) => {
    settle = { resolve, reject };
  });
  return { promise, ...(settle as Pick<Asked<V>, 'resolve' | 'reject'>) };
}
