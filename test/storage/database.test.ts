/** Connections that break, and statements that are prepared on them. */
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { createPlans, openDatabase, type Database, type DatabaseOptions, type Way } from '../../src/storage/database.ts';
import { createTestDatabase, type TestDatabase } from '../support/postgres.ts';

let database: TestDatabase;
let db: Database;
let other: Database;
beforeAll(async () => {
  database = await createTestDatabase({ empty: true });
  db = openDatabase(database.url, { size: 1, onError: () => {} });
  other = openDatabase(database.url, { size: 1, onError: () => {} });
});
afterAll(async () => {
  await db.close();
  await other.close();
  await database.close();
});

it('a connection that breaks between two queries of a transaction fails the transaction, and not the process', async () => {
  const broken = db.transaction(async (tx) => {
    const [backend] = await tx.query('SELECT pg_backend_pid()');
    await other.query('SELECT pg_terminate_backend($1, 10000)', [backend?.[0]]);
    // The connection learns of its end, with no query under way.
    await new Promise((resolve) => setImmediate(resolve));
    await other.query('SELECT 1');
    await tx.query('SELECT 1');
  });
  await expect(broken).rejects.toThrow(/terminat|not queryable/i);
  expect(await db.query('SELECT 1')).toEqual([['1']]);
});

describe('a statement that is hoped for', () => {
  const runs: boolean[] = [];
  const hoping = (sql: string, careful = 'INSERT INTO hoped VALUES (0)'): Promise<string> => {
    runs.length = 0;
    return db.transaction(async (tx) => {
      runs.push(tx.isHopeful);
      tx.post('INSERT INTO hoped VALUES (100)');
      if (tx.isHopeful) {
        tx.hope(sql);
        tx.post('INSERT INTO hoped VALUES (101)');
      } else {
        await tx.query(careful);
      }
      return tx.isHopeful ? 'hoped' : 'careful';
    }, { isHopeful: true });
  };
  const rows = async (): Promise<number[]> => (await db.query('SELECT n FROM hoped ORDER BY n')).map(([n]) => Number(n));

  beforeAll(() => db.query('CREATE TABLE hoped (n integer CHECK (n <> 7), CONSTRAINT once UNIQUE (n) DEFERRABLE INITIALLY DEFERRED)'));
  afterEach(() => db.query('DELETE FROM hoped'));

  it('is not waited for', async () => {
    expect(await hoping('INSERT INTO hoped VALUES (1)')).toBe('hoped');
    expect([runs, await rows()]).toEqual([[true], [1, 100, 101]]);
  });

  it.each([
    ['breaks a constraint', 'INSERT INTO hoped VALUES (7)'],
    ['breaks one that is checked at the end', 'INSERT INTO hoped VALUES (100)'],
    ['has a value that is none', `INSERT INTO hoped VALUES ('x'::text::integer)`],
  ])('and %s has the transaction run again without hope', async (_, sql) => {
    expect(await hoping(sql)).toBe('careful');
    expect([runs, await rows()]).toEqual([[true, false], [0, 100]]);
  });

  it('fails the transaction for any other reason, and with care for the same', async () => {
    await expect(hoping('INSERT INTO nowhere VALUES (1)')).rejects.toThrow('nowhere');
    expect(runs).toEqual([true]);
    await expect(hoping('INSERT INTO hoped VALUES (7)', 'INSERT INTO hoped VALUES (7)')).rejects.toThrow('check');
    expect([runs, await rows()]).toEqual([[true, false], []]);
  });
});

describe('statements of a transaction', () => {
  const names = () => db.query('SELECT name FROM pg_prepared_statements ORDER BY name');
  const ask = (of: Database, sql: string) => of.transaction((tx) => tx.query(sql));

  it('that are asked for together run in order, each after what the one before it has waited for', async () => {
    await db.query('CREATE TABLE counted (n integer)');
    const rows = await db.transaction((tx) =>
      Promise.all([tx.query('INSERT INTO counted VALUES (1)'), tx.query('SELECT count(*) FROM counted'), tx.query('INSERT INTO counted VALUES (2)'), tx.query('SELECT count(*) FROM counted')]),
    );
    expect(rows).toEqual([[], [['1']], [], [['2']]]);
  });

  it('of which one fails are all taken back, and nothing more is asked in their name', async () => {
    let late: Promise<unknown> = Promise.resolve();
    const failed = db.transaction(async (tx) => {
      const goesOn = async () => {
        await tx.query('INSERT INTO counted VALUES (3)');
        await other.query('SELECT pg_sleep(0.1)');
        await tx.query('INSERT INTO counted VALUES (4)');
      };
      late = goesOn();
      late.catch(() => {});
      await Promise.all([tx.query('SELECT 1 / 0'), late]);
    });
    await expect(failed).rejects.toThrow('division by zero');
    await expect(late).rejects.toThrow('the transaction is over');
    expect(await db.query('SELECT n FROM counted ORDER BY n')).toEqual([['1'], ['2']]);
  });

  it('whose answers nobody waits for are committed with the others, and answered then', async () => {
    const answer = await db.transaction(async (tx) => {
      tx.post('INSERT INTO counted VALUES (5)');
      return { rows: tx.post('SELECT max(n) FROM counted') };
    });
    expect(await answer.rows).toEqual([['5']]);
    expect(await db.query('SELECT n FROM counted ORDER BY n')).toEqual([['1'], ['2'], ['5']]);
  });

  it.each(['is the last', 'has others behind it, which fail for it'])('of which one fails that nobody waits for are taken back, and that one is told: it %s', async (which) => {
    const failed = db.transaction(async (tx) => {
      await tx.query('INSERT INTO counted VALUES (6)');
      tx.post('SELECT 1 / 0');
      if (which !== 'is the last') await tx.query('INSERT INTO counted VALUES (7)');
    });
    await expect(failed).rejects.toThrow('division by zero');
    expect(await db.query('SELECT n FROM counted WHERE n > 5')).toEqual([]);
  });

  it('are run again where one fails in passing that nobody waits for', async () => {
    let attempts = 0;
    await db.transaction(async (tx) => {
      attempts++;
      tx.post(`DO $$ BEGIN IF ${attempts} = 1 THEN RAISE EXCEPTION USING ERRCODE = 'deadlock_detected'; END IF; END $$`);
    });
    expect(attempts).toBe(2);
  });

  it('are prepared, and prepared anew where a column has got another type', async () => {
    await db.query('CREATE TABLE changing (value integer)');
    await db.query('INSERT INTO changing VALUES (7)');
    const before = await names();
    const sql = 'SELECT value, value FROM changing';
    expect(await ask(db, sql)).toEqual([['7', '7']]);
    expect((await names()).length).toBe(before.length + 1);
    await db.query('ALTER TABLE changing ALTER value TYPE text');
    expect(await ask(db, sql)).toEqual([['7', '7']]);
    expect((await names()).length).toBe(before.length + 2);
  });

  it('are planned by indices, however small a table was then', async () => {
    await db.query('CREATE TABLE growing (id integer PRIMARY KEY)');
    await db.query('INSERT INTO growing VALUES (1)');
    await db.query('ANALYZE growing');
    const plan = await ask(db, 'EXPLAIN SELECT FROM growing WHERE id = 1');
    expect(plan[0]?.[0]).toMatch(/^Index/);
  });

  it.each([[0, 1_000], [499, 1_000], [10_000, 80_000]])('that were planned for %i rows are planned anew once there are more than %i, and not before', async (few, most) => {
    const growing = openDatabase(database.url, { size: 1, onError: () => {} });
    const backend = (rows: number) =>
      growing.transaction(async (tx) => {
        tx.sized(rows);
        return (await tx.query('SELECT pg_backend_pid()'))[0]?.[0];
      });
    try {
      const first = await backend(few);
      expect(await backend(most)).toBe(first);
      expect(await backend(most + 1)).toBe(first);
      const second = await backend(most + 2);
      expect(second).not.toBe(first);
      expect(await backend(5)).toBe(second);
      expect(await backend(8 * (most + 2))).toBe(second);
    } finally {
      await growing.close();
    }
  });

  it('are not used any more in the transaction that is told of it', async () => {
    const growing = openDatabase(database.url, { size: 1, onError: () => {} });
    const sql = `SELECT 'planned for a few'`;
    const uses = (rows: number) =>
      growing.transaction(async (tx) => {
        tx.sized(rows);
        await tx.query(sql);
        return (await tx.query('SELECT sum(generic_plans) FROM pg_prepared_statements WHERE statement = $1', [sql]))[0]?.[0];
      });
    try {
      expect([await uses(0), await uses(1_000), await uses(1_001)]).toEqual(['1', '2', '2']);
    } finally {
      await growing.close();
    }
  });

  it.each([
    ['has no such statement', () => [`DEALLOCATE ALL`]],
    ['has it already', ([name]: readonly string[]) => [`PREPARE "${name}" AS SELECT 'another'`]],
  ])('are asked for without a name where a pooler gives them a connection that %s', async (_, prepare) => {
    const sql = `SELECT 'asked' AS by_name, '${prepare.toString().length}'`;
    const before = new Set((await names()).map(([name]) => name));
    const behindPooler = openDatabase(database.url, { size: 1, onError: () => {} });
    try {
      await ask(db, sql);
      const [name] = (await names()).flatMap(([each]) => (before.has(each ?? null) ? [] : [each as string]));
      for (const statement of prepare([name as string])) {
        if (!statement.startsWith('PREPARE')) await ask(behindPooler, sql);
        await behindPooler.query(statement);
      }
      expect((await ask(behindPooler, sql))[0]?.[0]).toBe('asked');
      expect((await ask(behindPooler, sql))[0]?.[0]).toBe('asked');
    } finally {
      await behindPooler.close();
    }
  });
});

describe('statements outside of transactions', () => {
  const counted = `SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT ''alone%'`;
  const opened: Database[] = [];
  const open = (options: Partial<DatabaseOptions>): Database => {
    const one = openDatabase(database.url, { size: 1, onError: () => {}, ...options });
    opened.push(one);
    return one;
  };
  afterEach(() => Promise.all(opened.splice(0).map((one) => one.close())));

  it.each([true, false])('are prepared where that is wanted: %s', async (prepares) => {
    const alone = open({ prepares });
    for (let i = 0; i < 3; i++) expect(await alone.query(`SELECT 'alone' || $1::text`, [i])).toEqual([[`alone${i}`]]);
    expect(await alone.query(counted)).toEqual([[prepares ? '1' : '0']]);
  });

  it('are planned anew once another database of the process tells of much more', async () => {
    const plans = createPlans();
    const [alone, beside] = [open({ prepares: true, plans }), open({ plans })];
    const backend = async () => (await alone.query('SELECT pg_backend_pid()'))[0]?.[0];
    const first = await backend();
    expect(await backend()).toBe(first);
    await beside.transaction(async (tx) => tx.sized(1_000_000));
    // The one that is handed out is replaced when it comes back.
    await backend();
    expect(await backend()).not.toBe(first);
  });

  it.each(['DEALLOCATE ALL', 'PREPARE'])('are asked for without a name where a pooler gives them another connection (%s)', async (how) => {
    const alone = open({ prepares: true });
    const sql = `SELECT 'alone behind ${how}', $1::text`;
    if (how === 'PREPARE') {
      const plain = open({});
      const [name] = await plain.transaction(async (tx) => {
        await tx.query(sql, ['x']);
        return (await tx.query('SELECT name FROM pg_prepared_statements WHERE statement = $1', [sql]))[0] as readonly string[];
      });
      await alone.query(`PREPARE "${name}" AS SELECT 'another'`);
    } else {
      await alone.query(sql, ['x']);
      await alone.query('DEALLOCATE ALL');
    }
    for (let i = 0; i < 2; i++) expect(await alone.query(sql, ['x'])).toEqual([[`alone behind ${how}`, 'x']]);
    // Nothing has a name any more.
    expect(await alone.query(`SELECT count(*) FROM pg_prepared_statements WHERE statement LIKE 'SELECT count(*)%'`)).toEqual([['0']]);
  });

  it('fail as they did without a name', async () => {
    const alone = open({ prepares: true });
    for (let i = 0; i < 2; i++) await expect(alone.query('SELECT 1 / $1::integer', [0])).rejects.toThrow('division by zero');
    expect(await alone.query('SELECT 1')).toEqual([['1']]);
  });
});

describe('a transaction that can be seen before it is on the disk', () => {
  let waiting: Database;
  const flushed = async (place: string): Promise<boolean> => (await db.query('SELECT pg_current_wal_flush_lsn() >= $1::pg_lsn', [place]))[0]?.[0] === 't';
  const write = (way: Way): Promise<string> =>
    waiting.transaction(async (tx) => {
      await tx.query('INSERT INTO early VALUES (1)');
      return (await tx.query('SELECT pg_current_wal_insert_lsn()'))[0]?.[0] as string;
    }, way);
  beforeAll(async () => {
    await db.query('CREATE TABLE early (n integer)');
    // The server of the tests waits for no disk.
    const url = new URL(database.url);
    url.searchParams.set('options', '-c synchronous_commit=on');
    waiting = openDatabase(url.href, { size: 1, onError: () => {} });
  });
  afterEach(() => db.query('DELETE FROM early'));
  afterAll(() => waiting.close());

  it('is over when it is on the disk', async () => {
    for (let n = 0; n < 5; n++) expect(await flushed(await write({ isSeenEarly: true }))).toBe(true);
    expect(await db.query('SELECT count(*) FROM early')).toEqual([['5']]);
  });

  it('fails as any other', async () => {
    const failing = waiting.transaction(async (tx) => {
      await tx.query('INSERT INTO early VALUES (1)');
      throw new Error('no');
    }, { isSeenEarly: true });
    await expect(failing).rejects.toThrow('no');
    await expect(waiting.transaction(async (tx) => void tx.post('SELECT 1 / 0'), { isSeenEarly: true })).rejects.toMatchObject({ code: '22012' });
    expect(await db.query('SELECT count(*) FROM early')).toEqual([['0']]);
    expect(await waiting.query('SHOW synchronous_commit')).toEqual([['on']]);
  });
});
