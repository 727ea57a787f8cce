import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { CALM, createKeeper, LIVE, type Keeper, type Pace } from '../../src/services/keeper.ts';
import { createNotices, type Notices } from '../../src/services/notices.ts';
import type { Fresh } from '../../src/storage/feed.ts';
import { BATCH_RECORDS, fold } from '../../src/storage/fold.ts';
import type { OwnWrite } from '../../src/storage/own-write.ts';
import type { Replica } from '../../src/storage/replica.ts';
import { createParties, type Parties } from './parties.ts';

let parties: Parties;
let replica: Replica;
let keeper: Keeper;
let errors: unknown[];
beforeAll(() => {
  parties = createParties();
});
afterAll(() => parties.close());
beforeEach(async () => {
  replica = await parties.open('a', { slot: 1 });
  errors = [];
  keeper = createKeeper(replica, createNotices(), CALM, (error) => errors.push(error));
});
afterEach(async () => {
  await keeper.close();
  parties.giveBack();
});

let written = 0;
const write = () => replica.db.query('INSERT INTO users (nom, email) VALUES ($1, $2)', ['N', `${++written}@x.org`]);
const logged = async (): Promise<number> => (await replica.db.query('SELECT FROM replication.log')).length;
const folded = async (): Promise<number> => (await replica.db.query('SELECT FROM replication.record')).length;

describe('the keeper', () => {
  it('folds all that is captured when it is asked to settle', async () => {
    await write();
    await write();
    await keeper.settle();
    expect([await logged(), await folded()]).toEqual([0, 2]);
    await keeper.settle();
    expect(await folded()).toBe(2);
  });

  it('tells whom it settles for when a part is folded and more is, and only then', async () => {
    let parts = 0;
    const settle = () => keeper.settle(() => void parts++);
    await write();
    await settle();
    expect(parts).toBe(0);
    await replica.db.query(`INSERT INTO users (nom, email) SELECT 'N', n || '@y.org' FROM generate_series(1, $1::integer) n`, [BATCH_RECORDS + 1]);
    await settle();
    expect([parts, await logged()]).toEqual([1, 0]);
  });

  it('folds what was written before each of many calls, which share runs', async () => {
    const original = replica.db.transaction;
    let transactions = 0;
    const counted = { ...replica, db: { ...replica.db, transaction: (work: Parameters<typeof original>[0]) => (transactions++, original(work)) } } as Replica;
    const shared = createKeeper(counted, createNotices(), CALM, (error) => errors.push(error));
    try {
      await Promise.all(
        Array.from({ length: 20 }, async () => {
          await write();
          const key = (await replica.db.query('SELECT max(id) FROM users'))[0]?.[0];
          await shared.settle();
          expect(await replica.db.query('SELECT FROM replication.record WHERE key = $1', [key])).toHaveLength(1);
        }),
      );
    } finally {
      await shared.close();
    }
    expect(await logged()).toBe(0);
    expect(transactions).toBeLessThan(20);
  });

  it('finds what others write, without being told', async () => {
    await write();
    await expect.poll(logged, { timeout: 15_000, interval: 20 }).toBe(0);
    expect(await folded()).toBe(1);
  });

  it('folds soon after it is woken, and goes on after that', async () => {
    for (let n = 1; n <= 3; n++) {
      await write();
      for (let i = 0; i < 10; i++) keeper.wake();
      await expect.poll(folded, { timeout: 15_000, interval: 5 }).toBe(n);
    }
  });

  it('tells of a failure and tries again', async () => {
    await replica.db.query('ALTER TABLE replication.log RENAME TO elsewhere');
    keeper.wake();
    await expect.poll(() => errors.length, { timeout: 15_000, interval: 10 }).toBeGreaterThan(0);
    await expect(keeper.settle()).rejects.toThrow('replication.log');
    await replica.db.query('ALTER TABLE replication.elsewhere RENAME TO log');
    await write();
    await expect.poll(folded, { timeout: 15_000, interval: 20 }).toBe(1);
  });

  it('does nothing more once it is closed', async () => {
    keeper.wake();
    const settling = keeper.settle();
    await keeper.close();
    await settling;
    keeper.wake();
    await write();
    await new Promise((resolve) => setTimeout(resolve, 100));
    expect(await logged()).toBe(1);
    expect(errors).toEqual([]);
  });
});

/** Of a minute between two looks, unless something else is said. */
async function keeping(pace: Partial<Pace>, work: (paced: Keeper, notices: Notices) => Promise<void>, kept = replica): Promise<void> {
  await keeper.close();
  const notices = createNotices();
  const paced = createKeeper(kept, notices, { ...LIVE, lookMs: 60_000, ...pace }, (error) => errors.push(error));
  try {
    await work(paced, notices);
  } finally {
    await paced.close();
  }
}

describe('a write that is made through it', () => {
  const creating = (): OwnWrite<string> => {
    const email = `${++written}@x.org`;
    return {
      db: replica.db,
      make: async (over = replica.db) => (await over.query(`INSERT INTO users (nom, email) VALUES ('N', $1) RETURNING id`, [email]))[0]?.[0] as string,
      nameOf: (id) => ['User', id],
    };
  };

  it('is in the feed when it is over, and told of, where it is alone', () =>
    keeping({}, async (paced, notices) => {
      const told: (Fresh | null)[] = [];
      notices.onChanged((fresh) => told.push(fresh));
      for (let n = 1; n <= 3; n++) {
        await paced.write(creating());
        expect([await logged(), await folded(), told.length, told.at(-1)?.after]).toEqual([0, n, n, n - 1]);
      }
    }));

  it('is folded all the same where others are made at the same time', () =>
    keeping({}, async (paced) => {
      await Promise.all(Array.from({ length: 20 }, () => paced.write(creating())));
      await expect.poll(folded, { timeout: 15_000, interval: 5 }).toBe(20);
      expect(await logged()).toBe(0);
    }));

  it('is acknowledged before it is folded where changes do not travel by themselves', () =>
    keeping({ ...CALM, gatherMs: 60_000, lookMs: 60_000 }, async (paced) => {
      await paced.write(creating());
      expect([await logged(), await folded()]).toEqual([1, 0]);
      await paced.settle();
      expect([await logged(), await folded()]).toEqual([0, 1]);
    }));

  it('tells what it failed of', () =>
    keeping({}, async (paced) => {
      const refused = { ...creating(), make: async (over = replica.db) => over.query('SELECT 1 / 0').then(() => '') };
      await expect(paced.write(refused)).rejects.toMatchObject({ code: '22012' });
      await paced.write(creating());
      expect([await logged(), await folded()]).toEqual([0, 1]);
    }));
});

describe('the pace', () => {
  /** How often it is looked at what others did. */
  function countingLooks(): { looks: number; readonly replica: Replica } {
    const query: Replica['db']['query'] = (sql, values) => {
      if (sql.includes('max(resolved_seq)')) counted.looks++;
      return replica.db.query(sql, values);
    };
    const counted = { looks: 0, replica: { ...replica, db: { ...replica.db, query } } };
    return counted;
  }

  it('of one that is live: a write is taken in as soon as it is told of, and so is the next', () =>
    keeping({}, async (paced) => {
      for (let n = 1; n <= 5; n++) {
        await write();
        paced.wake();
        await expect.poll(folded, { timeout: 15_000, interval: 5 }).toBe(n);
      }
    }));

  it('of what is told by name does not keep others waiting beyond the next look, however much is told', () =>
    keeping({ lookMs: 500 }, async (paced) => {
      const insert = async (): Promise<string> => (await replica.db.query(`INSERT INTO users (nom, email) VALUES ('N', $1) RETURNING id`, [`${++written}@x.org`]))[0]?.[0] as string;
      const [other, own] = [await insert(), await insert()];
      const isFolded = async (key: string): Promise<boolean> => (await replica.db.query('SELECT FROM replication.record WHERE key = $1', [key])).length > 0;
      paced.wake(['User', own]);
      await expect.poll(() => isFolded(own), { timeout: 15_000, interval: 5 }).toBe(true);
      const over = new AbortController();
      const telling = (async () => {
        for (let n = 0; !over.signal.aborted; n++) {
          await replica.db.query('UPDATE users SET nom = $2 WHERE id = $1', [own, String(n)]);
          paced.wake(['User', own]);
        }
      })();
      try {
        await expect.poll(() => isFolded(other), { timeout: 15_000, interval: 20 }).toBe(true);
      } finally {
        over.abort();
        await telling;
      }
    }));

  it('of many that are told by name folds all there is', () =>
    keeping({ rest: 0 }, async (paced) => {
      for (let n = 1; n <= 20; n++) await write();
      for (let n = 1; n <= 20; n++) paced.wake(['User', String(n)]);
      await expect.poll(folded, { timeout: 15_000, interval: 5 }).toBe(20);
      await write();
      paced.wake(['User', 'none']);
      paced.wake();
      await expect.poll(folded, { timeout: 15_000, interval: 5 }).toBe(21);
    }));

  it('rests between the runs that writes ask for, and folds all of them by the next look', () =>
    keeping({ lookMs: 5_000, rest: 1_000_000 }, async (paced) => {
      await write();
      paced.wake();
      await expect.poll(folded, { timeout: 3_000, interval: 5 }).toBe(1);
      for (let n = 0; n < 5; n++) {
        await write();
        paced.wake();
      }
      await new Promise((resolve) => setTimeout(resolve, 300));
      expect(await folded()).toBe(1);
      await expect.poll(folded, { timeout: 15_000, interval: 20 }).toBe(6);
    }));

  it('rests longer after a run that many writes were told to', () =>
    keeping({ lookMs: 5_000, rest: 0, restOfMany: 1_000_000 }, async (paced) => {
      await write();
      for (let n = 0; n < 10; n++) paced.wake();
      await expect.poll(folded, { timeout: 3_000, interval: 5 }).toBe(1);
      await write();
      for (let n = 0; n < 20; n++) paced.wake();
      await expect.poll(folded, { timeout: 3_000, interval: 5 }).toBe(2);
      await write();
      paced.wake();
      await new Promise((resolve) => setTimeout(resolve, 300));
      expect(await folded()).toBe(2);
      await expect.poll(folded, { timeout: 15_000, interval: 20 }).toBe(3);
    }));

  it('does not look at what others did after each of its own folds', async () => {
    const counted = countingLooks();
    await keeping(
      {},
      async (paced) => {
        for (let n = 1; n <= 3; n++) {
          await write();
          paced.wake();
          await expect.poll(folded, { timeout: 15_000, interval: 5 }).toBe(n);
        }
      },
      counted.replica,
    );
    expect(counted.looks).toBe(0);
  });

  it('looks for writes of others again soon after it has found some', async () => {
    const counted = countingLooks();
    let foundBetween = 0;
    await keeping(
      { lookMs: 3_000, soonMs: 5 },
      async () => {
        for (let n = 1; n <= 10; n++) {
          const before = counted.looks;
          await write();
          await expect.poll(folded, { timeout: 20_000, interval: 5 }).toBe(n);
          // A look that is made in any case tells of itself after it has folded.
          await new Promise((resolve) => setTimeout(resolve, 20));
          if (counted.looks === before) foundBetween++;
        }
      },
      counted.replica,
    );
    expect(foundBetween).toBeGreaterThan(0);
  });

  it('leaves writes of others alone after a look that folded some, but for who asks for them, and goes on looking at all else', async () => {
    const counted = countingLooks();
    await keeping(
      { ...CALM, lookMs: 50, restOfLook: 1_000_000 },
      async (paced) => {
        await write();
        await expect.poll(folded, { timeout: 15_000, interval: 5 }).toBe(1);
        await write();
        const before = counted.looks;
        await expect.poll(() => counted.looks, { timeout: 15_000, interval: 5 }).toBeGreaterThan(before + 5);
        expect(await folded()).toBe(1);
        await paced.settle();
        expect(await folded()).toBe(2);
        await write();
        await expect.poll(folded, { timeout: 15_000, interval: 20 }).toBe(3);
      },
      counted.replica,
    );
  });

  it('tells at once of a write that another gateway was faster to fold', () =>
    keeping({}, async (paced, notices) => {
      await write();
      await fold(replica, () => {});
      const told = new Promise<void>((resolve) => notices.onChanged(() => resolve()));
      paced.wake();
      await told;
    }));
});

it('tells those who follow of conflicts that another process logged, before its first look as after it', async () => {
  const notices = createNotices();
  let told: () => void = () => {};
  notices.onConflicts(() => told());
  const watching = createKeeper(replica, notices, CALM, (error) => errors.push(error));
  try {
    for (const key of ['first', 'second']) {
      const heard = new Promise<void>((resolve) => {
        told = resolve;
      });
      await replica.db.query(
        `INSERT INTO replication.conflict (model, key, kind, status, fields, sides, detected_at) VALUES ('M', $1, 'UPDATE_UPDATE', 'PENDING', '{}', '[]', 1)`,
        [key],
      );
      await heard;
    }
  } finally {
    await watching.close();
  }
});
