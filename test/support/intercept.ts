/** Standing between a replica and its database: to count what it asks, or to do something in between. */
import type { Database, Row, Transaction } from '../../src/storage/database.ts';

/** Has each of a replica's statements pass through `around`, which is to run it by `next`. Of several statements in one there are no rows. */
export function intercept(db: Database, around: (text: string, next: () => Promise<Row[] | undefined>) => Promise<Row[] | undefined>): void {
  const { query, transaction } = db;
  const between = (ask: Transaction['query']): Transaction['query'] => async (text, values) => (await around(text, () => ask(text, values))) as Row[];
  Object.assign(db, {
    query: between(query),
    transaction: <T>(work: (tx: Transaction) => Promise<T>) =>
      transaction(async (tx) => {
        const ask = inOrder(between(tx.query));
        const posted: Promise<unknown>[] = [];
        const post: Transaction['post'] = (text, values) => {
          const answer = ask(text, values);
          answer.catch(() => {});
          posted.push(answer);
          return answer;
        };
        try {
          return await work({ ...tx, query: ask, post });
        } finally {
          // COMMIT does not overtake them, and what all behind it fails for is told.
          await Promise.all(posted);
        }
      }),
  });
}

/** What is asked for together is still asked in order, one after the other: what is done before a statement is not overtaken by those behind it. */
function inOrder(ask: Transaction['query']): Transaction['query'] {
  let last: Promise<unknown> = Promise.resolve();
  return (text, values) => {
    const answer = last.then(() => ask(text, values));
    last = answer.catch(() => {});
    return answer;
  };
}

/** Does something once, right before the first statement that holds this text. */
export function interceptOnce(db: Database, held: string, act: () => Promise<unknown>): { readonly done: boolean } {
  const seen = { done: false };
  intercept(db, async (text, next) => {
    if (!seen.done && text.includes(held)) {
      seen.done = true;
      await act();
    }
    return next();
  });
  return seen;
}
