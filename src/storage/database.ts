/**
 * Connections and transactions.
 *
 * Every value is read as PostgreSQL's text: texts are exact for every type, and the core compares them. What the text of a date, a float or a byte string looks like is
 * fixed in each transaction, not by the connection, so that a pooler in transaction mode may stand between.
 */
import pg from 'pg';

export type Row = readonly (string | null)[];

/** One transaction's connection. */
export interface Transaction {
  /** Rows as arrays of texts, in the order of the columns asked for. */
  query(sql: string, values?: readonly unknown[]): Promise<Row[]>;
}

export interface Database {
  /** One statement outside of any transaction: for what does not read the models' values. */
  query(sql: string, values?: readonly unknown[]): Promise<Row[]>;
  /**
   * Runs `work` in a transaction, again from the start where the database asks for it (deadlock, serialisation failure, `RetryTransaction`), at most ten times.
   */
  transaction<T>(work: (tx: Transaction) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/** Thrown inside a transaction to have it run again: something it relied on has changed meanwhile. */
export class RetryTransaction extends Error {}

const ATTEMPTS = 10;
/** Deadlock, serialisation failure. */
const TRANSIENT = new Set(['40P01', '40001']);

/** Each statement must see what was committed while the one before it waited for a lock, whatever the database's default is. */
const BEGIN = `BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL IntervalStyle = 'postgres';
SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'`;

/**
 * @param url - A PostgreSQL connection string.
 * @param options - `size`: connections at most; `onError`: told when an idle connection breaks.
 */
export function openDatabase(url: string, options: { readonly size: number; onError(error: Error): void }): Database {
  const pool = new pg.Pool({
    connectionString: url,
    max: options.size,
    types: { getTypeParser: () => (value: string) => value } as pg.CustomTypesConfig,
  });
  pool.on('error', options.onError);

  return {
    query: (sql, values) => run(pool, sql, values),

    async transaction(work) {
      for (let attempt = 1; ; attempt++) {
        try {
          return await inTransaction(pool, work);
        } catch (error) {
          const again = error instanceof RetryTransaction || TRANSIENT.has(sqlState(error) ?? '');
          if (!again || attempt === ATTEMPTS) throw error;
        }
      }
    },

    close: () => pool.end(),
  };
}

/** Runs `work` over a connection of its own, with values parsed as usual: for what needs a session. */
export async function withSession<T>(url: string, work: (client: pg.Client) => Promise<T>): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  // A connection that breaks fails the query under way; without a listener it would end the process as well.
  client.on('error', () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}

/** The SQLSTATE of an error of the database; undefined for any other error. */
export function sqlState(error: unknown): string | undefined {
  return error instanceof pg.DatabaseError ? error.code : undefined;
}

/** A name as SQL writes it. */
export function quote(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`;
}

/** A text as SQL writes it. */
export function literal(text: string): string {
  return pg.escapeLiteral(text);
}

async function inTransaction<T>(pool: pg.Pool, work: (tx: Transaction) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  // Between two queries a connection that breaks has no query to fail: without a listener it would end the process. The next query, or COMMIT, fails instead.
  const onBreak = (error: Error): void => void (broken = error);
  client.on('error', onBreak);
  try {
    await client.query(BEGIN);
    const result = await work({ query: (sql, values) => run(client, sql, values) });
    await client.query('COMMIT');
    return result;
  } catch (error) {
    try {
      await client.query('ROLLBACK');
    } catch (rollback) {
      broken = rollback as Error;
    }
    throw error;
  } finally {
    client.off('error', onBreak);
    client.release(broken);
  }
}

async function run(client: pg.Pool | pg.PoolClient, sql: string, values: readonly unknown[] = []): Promise<Row[]> {
  const { rows } = await client.query<(string | null)[]>({ text: sql, values: [...values], rowMode: 'array' });
  return rows;
}
