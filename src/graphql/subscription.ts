/**
 * A subscription's iterator, tied to an abort signal.
 *
 * `return()` on an async generator waits until the value it is suspended on arrives, which for a quiet log is never. Aborting
 * the signal first ends the source at once, so that a subscriber that left holds nothing.
 */

/**
 * @param start - Begins the source; it must end when the signal aborts.
 * @param closing - Ends the source too, when the server closes.
 * @returns the source, ended by `return()`, by `closing`, or by itself.
 */
export async function endable<T>(
  start: (signal: AbortSignal) => Promise<AsyncIterator<T>>,
  closing: AbortSignal,
): Promise<AsyncIterableIterator<T>> {
  const controller = new AbortController();
  const end = (): void => {
    closing.removeEventListener('abort', end);
    controller.abort();
  };
  closing.addEventListener('abort', end);
  if (closing.aborted) end();

  let source: AsyncIterator<T>;
  try {
    source = await start(controller.signal);
  } catch (error) {
    end();
    throw error;
  }

  const iterator: AsyncIterableIterator<T> = {
    async next() {
      try {
        const result = await source.next();
        if (result.done) end();
        return result;
      } catch (error) {
        end();
        throw error;
      }
    },
    async return() {
      end();
      await source.return?.();
      return { done: true, value: undefined };
    },
    [Symbol.asyncIterator]: () => iterator,
  };
  return iterator;
}
