/**
 * Connections and transactions.
 *
 * Every value is read as PostgreSQL's text: texts are exact for every type, and the core compares them. What the text of a date, a float or a byte string looks like is
 * fixed in each transaction, not by the connection, so that a pooler in transaction mode may stand between.
 */
import { createHash } from 'node:crypto';

import pg from 'pg';

export type Row = readonly (string | null)[];

/**
 * One transaction's connection. Statements run in the order in which they are asked for, each with a snapshot of its own; those that need nothing of each other's answers are best
 * asked for together (`Promise.all`), since they are sent together then: waiting for answers is most of what a small transaction takes.
 */
export interface Transaction {
  /** Rows as arrays of texts, in the order of the columns asked for. */
  query(sql: string, values?: readonly unknown[]): Promise<Row[]>;
  /**
   * A statement whose answer `work` does not need: COMMIT goes behind it without waiting for it. Where it fails, the transaction does, with its error. It is not for what a savepoint is to take back.
   *
   * @returns The answer, for use once the transaction is over; it need not be awaited.
   */
  post(sql: string, values?: readonly unknown[]): Promise<Row[]>;
  /**
   * As `post`, of a statement that hardly ever fails: where it does, nothing is known to have failed, and the transaction runs again, with `isHopeful` false, to find out with care. To be asked only where
   * `isHopeful` is true.
   */
  hope(sql: string, values?: readonly unknown[]): void;
  readonly isHopeful: boolean;
  /** Sends what was asked for so far at once, rather than with what is asked for next: the database is at work while that is made. */
  send(): void;
  /** Tells about how many rows there are now: statements that were planned for far fewer are planned anew. */
  sized(rows: number): void;
}

export interface Database {
  /** One statement outside of any transaction: for what does not read the models' values. */
  query(sql: string, values?: readonly unknown[]): Promise<Row[]>;
  /**
   * Runs `work` in a transaction, again from the start where the database asks for it (deadlock, serialisation failure, `RetryTransaction`), at most ten times.
   *
   * It is on the disk when this is over.
   */
  transaction<T>(work: (tx: Transaction) => Promise<T>, way?: Way): Promise<T>;
  close(): Promise<void>;
}

/** How a transaction goes. */
export interface Way {
  /** It may hope (see `Transaction.hope`). */
  readonly isHopeful?: boolean;
  /** It can be seen before it is on the disk, as a subscriber's transactions can in PostgreSQL's own replication. Its end is waited for all the same. */
  readonly isSeenEarly?: boolean;
}

/** Thrown inside a transaction to have it run again: something it relied on has changed meanwhile. */
export class RetryTransaction extends Error {}

/** What was hoped of a statement did not come true. */
class VainHope extends Error {}

const ATTEMPTS = 10;
/** Bytes of a parameter that is work for the database. */
const LARGE = 16 * 1024;
/** Deadlock, serialisation failure. */
const TRANSIENT = new Set(['40P01', '40001']);

/**
 * Each statement must see what was committed while the one before it waited for a lock, whatever the database's default is.
 *
 * Statements are planned once a connection (see `createPlans`), and so without their values: by indices, whatever the statistics say of a table that has just grown. Before PostgreSQL 18 what has no
 * index looks so dear then that it would be compiled first.
 */
const BEGIN = `BEGIN ISOLATION LEVEL READ COMMITTED; SET LOCAL TimeZone = 'UTC'; SET LOCAL DateStyle = 'ISO, MDY'; SET LOCAL IntervalStyle = 'postgres';
SET LOCAL extra_float_digits = 1; SET LOCAL bytea_output = 'hex'; SET LOCAL plan_cache_mode = force_generic_plan; SET LOCAL enable_seqscan = off; SET LOCAL jit = off`;

const NOT_WAITED_FOR = `; SET LOCAL synchronous_commit = off`;
/** A transaction of its own that writes something: it ends once all before it is on the disk, as far as the session waits for that. */
const FLUSH = `SELECT pg_logical_emit_message(true, 'replique', '')`;

export interface DatabaseOptions {
  /** Connections at most. */
  readonly size: number;
  /** Told when an idle connection breaks. */
  onError(error: Error): void;
  /** Shared by the databases of a process: what one learns of sizes and names holds for all. Of its own unless given. */
  readonly plans?: Plans;
  /** Whether statements outside of transactions are prepared, too: for a few short ones, each by a key, that many ask. */
  readonly prepares?: boolean;
}

/** @param url - A PostgreSQL connection string. */
export function openDatabase(url: string, options: DatabaseOptions): Database {
  const pool = new pg.Pool({
    connectionString: url,
    max: options.size,
    // A statement is sent before the one before it is answered (see `Transaction`).
    pipeline: true,
    types: { getTypeParser: () => (value: string) => value } as pg.CustomTypesConfig,
  });
  pool.on('error', options.onError);
  const { plans = createPlans(), prepares = false } = options;

  return {
    async query(sql, values) {
      if (!prepares) return run(pool, sql, values);
      const prepared = (): Promise<Row[]> => withClient(pool, plans, (client) => run(client, sql, values, plans.nameOf(client, sql)));
      try {
        return await prepared();
      } catch (error) {
        // A name fails before anything is done.
        if (!plans.failed(error)) throw error;
        return prepared();
      }
    },

    async transaction(work, way = {}) {
      let { isHopeful = false } = way;
      for (let attempt = 1; ; attempt++) {
        try {
          return await inTransaction(pool, plans, work, { ...way, isHopeful });
        } catch (error) {
          if (error instanceof VainHope) isHopeful = false;
          const again = error instanceof VainHope || error instanceof RetryTransaction || TRANSIENT.has(sqlState(error) ?? '') || plans.failed(error);
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

function hopeless(error: unknown): unknown {
  return isRefusal(error) ? new VainHope() : error;
}

/** True of what the data of a statement made the database refuse: a constraint (23), a value (22), a trigger of the application's own (P0001), rows that came out other than they were meant (RQ001). */
export function isRefusal(error: unknown): boolean {
  return /^(22|23|P0001|RQ001)/.test(sqlState(error) ?? '');
}

/** A name as SQL writes it. */
export function quote(identifier: string): string {
  return `"${identifier.replaceAll('"', '""')}"`;
}

/** A text as SQL writes it. */
export function literal(text: string): string {
  return pg.escapeLiteral(text);
}

/** Hands a connection out; `broke` is told where it can be used no more. */
async function withClient<T>(pool: pg.Pool, plans: Plans, work: (client: pg.PoolClient, broke: (error: Error) => void) => Promise<T>): Promise<T> {
  const client = await pool.connect();
  let broken: Error | undefined;
  // Between two queries a connection that breaks has no query to fail: without a listener it would end the process. The next query, or COMMIT, fails instead.
  const broke = (error: Error): void => void (broken = error);
  client.on('error', broke);
  try {
    return await work(client, broke);
  } finally {
    client.off('error', broke);
    client.release(broken ?? plans.areOutgrown(client));
  }
}

function inTransaction<T>(pool: pg.Pool, plans: Plans, work: (tx: Transaction) => Promise<T>, { isHopeful = false, isSeenEarly = false }: Way): Promise<T> {
  return withClient(pool, plans, async (client, broke) => {
    const { stream } = client.connection;
    let held = false;
    const send = (): void => {
      if (!held) return;
      held = false;
      stream.uncork();
    };
    /** Has all that is asked for until what runs now has run go in one write: each write wakes the database, which costs more than most statements. */
    const hold = (): void => {
      if (held) return;
      held = true;
      stream.cork();
      process.nextTick(send);
    };
    hold();
    // It goes with the first statement. It fails only where the connection does, and so does that statement then.
    const begun = client.query(isSeenEarly ? BEGIN + NOT_WAITED_FOR : BEGIN);
    begun.catch(() => {});
    let over = false;
    const posted: Promise<unknown>[] = [];
    /** What made all behind it fail. */
    let failure: unknown;
    let hoped = false;
    const post = (answer: Promise<unknown>, failed = (error: unknown): unknown => error): void => void posted.push(answer.catch((error: unknown) => void (failure ??= failed(error))));
    const ask = async (sql: string, values: readonly unknown[] | undefined): Promise<Row[]> => {
      // Of several statements under way one may have failed, and what waited for another go on.
      if (over) throw new Error('the transaction is over');
      hold();
      const answer = run(client, sql, values, plans.nameOf(client, sql));
      // The database begins with it while what comes next is made here.
      if (values?.some((value) => value instanceof Uint8Array && value.length > LARGE)) send();
      const [rows] = await Promise.all([answer, begun]);
      return rows;
    };
    try {
      const result = await work({
        query: ask,
        post(sql, values) {
          const answer = ask(sql, values);
          post(answer);
          return answer;
        },
        isHopeful,
        hope(sql, values) {
          // What fails for another reason does so again, or is run again anyway.
          hoped = true;
          post(ask(sql, values), hopeless);
        },
        send,
        sized: plans.sized,
      });
      over = true;
      // After a failure it is a ROLLBACK.
      hold();
      const committed = client.query('COMMIT').catch((error: unknown) => {
        // What is checked late is checked now.
        throw hoped ? hopeless(error) : error;
      });
      await Promise.all([begun, ...posted, committed, isSeenEarly ? client.query(FLUSH) : null]);
      if (failure !== undefined) throw failure;
      return result;
    } catch (error) {
      over = true;
      await Promise.all(posted);
      try {
        await client.query('ROLLBACK');
      } catch (rollback) {
        broke(rollback as Error);
      }
      throw failure ?? error;
    }
  });
}

async function run(client: pg.Pool | pg.PoolClient, sql: string, values: readonly unknown[] = [], name?: string): Promise<Row[]> {
  const { rows } = await client.query<(string | null)[]>({ text: sql, values: [...values], rowMode: 'array', ...(name !== undefined && { name }) });
  return rows;
}

/** What is known of statements that are prepared. */
export interface Plans {
  /** The name under which a statement is prepared for a connection; undefined where it has none. */
  nameOf(client: pg.PoolClient, sql: string): string | undefined;
  /** Whether this is the failure of a name, so that the transaction is to be run again. */
  failed(error: unknown): boolean;
  /** As of a transaction. */
  sized(rows: number): void;
  /** Whether a connection plans for much less than there is by now, so that its plans are left alone until it is replaced. */
  areOutgrown(client: pg.PoolClient): boolean;
}

/** Far more than the statements there are; each connection keeps the plans of those it has seen. */
const NAMES = 1_000;
/** Statements that can be prepared. */
const PREPARABLE = /^\s*(SELECT|INSERT|UPDATE|DELETE|WITH)\b[^;]*$/;
/** Rows among which it matters little by which index one is found; beyond twice as many what was planned for fewer is planned anew. */
const FEW = 500;
/** How many times as many rows there may be as were planned for. */
const GROWTH = 8;

/**
 * Keeps the plans of statements: a connection parses and plans each once, which is most of what a small one takes.
 *
 * A statement's name is made of its text, so that it means the same to all who share a connection. A pooler that gives each transaction another connection, and does not prepare there what it was
 * asked to elsewhere, is noticed by its error: then nothing has a name any more.
 *
 * Of an empty table any index looks as good as another, and the database keeps a plan until it has new statistics of it: too late for what grows by thousands a second. So a connection is
 * replaced when there is much more than when it was first used, and what is left of its transaction goes without names. Not at every doubling: a new connection is a process that knows nothing yet,
 * and behind the first thousand records how many there are decides no more by what one is found.
 */
export function createPlans(): Plans {
  const names = new Map<string, string>();
  const sizes = new WeakMap<pg.PoolClient, number>();
  let size = 0;
  let generation = 0;
  let none = false;
  const areOutgrown: Plans['areOutgrown'] = (client) => {
    const first = sizes.get(client) ?? size;
    sizes.set(client, first);
    return size > (first < FEW ? 2 * FEW : GROWTH * first);
  };
  return {
    areOutgrown,
    nameOf(client, sql) {
      if (none || areOutgrown(client)) return undefined;
      const known = names.get(sql);
      if (known !== undefined || names.size === NAMES || !PREPARABLE.test(sql)) return known;
      const name = `replique_${generation}_${createHash('sha256').update(sql).digest('base64url').slice(0, 24)}`;
      names.set(sql, name);
      return name;
    },
    failed(error) {
      const state = sqlState(error);
      // There is no such statement, or one already.
      if (state === '26000' || state === '42P05') {
        none = true;
        return true;
      }
      // A column has another type now: what was prepared for it fails from here on.
      if (state !== '0A000' || !(error as Error).message.includes('cached plan')) return false;
      names.clear();
      generation++;
      return true;
    },
    sized(rows) {
      size = Math.max(size, rows);
    },
  };
}
