/**
 * The users' table as the hot paths use it: a statement each, straight over `pg`. The same through Prisma takes a replica's process about twice the time; a test
 * compares what both answer.
 */
import type { Database, Row } from '../storage/database.ts';
import { createGather, createShared } from './sharing.ts';

/** What a statement goes over. */
export type Queryable = Pick<Database, 'query'>;

/** A user as the table holds it. */
export interface UserRow {
  readonly id: number;
  readonly nom: string;
  readonly email: string;
  readonly telephone: string | null;
  readonly createdAt: Date;
}

/** What may be written to a user; fields that are left out, or undefined, are not. */
export type UserValues = { readonly [K in 'nom' | 'email' | 'telephone']?: UserRow[K] | undefined };

export interface UserRows {
  /** At most `first`, in order of id, of those after the id `after`; null: from the start. */
  page(after: number | null, first: number): Promise<UserRow[]>;
  get(id: number): Promise<UserRow | null>;
  /** @param over - What the statement goes over. */
  insert(values: Omit<UserRow, 'id'>, over?: Queryable): Promise<UserRow>;
  /** @returns the user as it is then; null where there is none. */
  update(id: number, values: UserValues, over?: Queryable): Promise<UserRow | null>;
}

/** An instant as a number, since the text of one depends on the session. */
const COLUMNS = 'id, nom, email, telephone, extract(epoch FROM created_at) * 1000';
const FIELDS = ['nom', 'email', 'telephone'] as const;
/** Before every key that a column of this type holds. */
const START = -2_147_483_649;
/** That one statement reads by their keys: rows may be of any size. */
const USERS_AT_ONCE = 20;

/** @param db - Where statements run one by one, each a transaction of its own. */
export function createUserRows(db: Queryable): UserRows {
  const sharedPage = createShared<UserRow[]>();
  const find = createGather<number, UserRow>(USERS_AT_ONCE, async (ids) => {
    const rows = await db.query(`SELECT ${COLUMNS} FROM users WHERE id = ANY ($1::integer[])`, [ids]);
    return new Map(rows.map((row) => [Number(row[0]), toUser(row)]));
  });

  return {
    page(after, first) {
      return sharedPage(`${after} ${first}`, async () =>
        (await db.query(`SELECT ${COLUMNS} FROM users WHERE id > $1::bigint ORDER BY id LIMIT $2`, [after ?? START, first])).map(toUser),
      );
    },

    async get(id) {
      return (await find(id)) ?? null;
    },

    async insert({ nom, email, telephone, createdAt }, over = db) {
      const sql = `INSERT INTO users (nom, email, telephone, created_at) VALUES ($1, $2, $3, $4) RETURNING ${COLUMNS}`;
      const [row] = await over.query(sql, [nom, email, telephone, createdAt.toISOString()]);
      return toUser(row as Row);
    },

    async update(id, values, over = db) {
      const given = FIELDS.filter((field) => values[field] !== undefined);
      const set = given.map((field, i) => `${field} = $${i + 2}`).join(', ');
      return one(await over.query(`UPDATE users SET ${set} WHERE id = $1 RETURNING ${COLUMNS}`, [id, ...given.map((field) => values[field])]));
    },
  };
}

function one([row]: readonly Row[]): UserRow | null {
  return row === undefined ? null : toUser(row);
}

function toUser([id, nom, email, telephone, created]: Row): UserRow {
  return { id: Number(id), nom: nom as string, email: email as string, telephone: telephone as string | null, createdAt: new Date(Number(created)) };
}
