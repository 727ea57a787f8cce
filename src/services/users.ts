/** Users: the door for writes to the model, whoever calls. What is written is captured by the database, as it is for any writer. */
import { z } from 'zod';

import { Prisma, type PrismaClient } from '../generated/prisma/client.ts';
import { sqlState, type Database } from '../storage/database.ts';
import type { RecordName } from '../storage/sizes.ts';
import { ServiceError } from './errors.ts';
import { createUserInput, pageSize, parse, updateUserInput, userId } from './input.ts';
import type { Keeper } from './keeper.ts';
import type { RecordLook, RecordVersion, VersionVector } from './records.ts';
import type { Queryable, UserRow, UserRows } from './user-rows.ts';

export type { UserRow } from './user-rows.ts';

/** A user whose values and version are of one look: nobody who gives the version back can have missed a write that it has seen. */
export interface VersionedUser extends UserRow {
  /** Null where replication knows nothing of it. */
  readonly known: RecordVersion | null;
}

export interface Users {
  /** In order of id, after the id `after`; `first` is 1 to 1000, 100 where it is not given. */
  list(page: { first?: unknown; after?: unknown }): Promise<UserRow[]>;
  get(id: unknown): Promise<UserRow | null>;
  /** The same users as they are now, with their versions. One that is gone stays as it was, of no version. */
  versioned(users: readonly UserRow[]): Promise<VersionedUser[]>;
  /** @throws ServiceError BAD_USER_INPUT, UNIQUE_VIOLATION. */
  create(input: unknown): Promise<UserRow>;
  /** @throws ServiceError BAD_USER_INPUT, NOT_FOUND, UNIQUE_VIOLATION, VERSION_MISMATCH. */
  update(id: unknown, input: unknown, expectedVersion?: unknown): Promise<UserRow>;
  /** Gives back the user as it was. @throws ServiceError BAD_USER_INPUT, NOT_FOUND. */
  delete(id: unknown): Promise<VersionedUser>;
}

export interface UsersOptions {
  /** For what takes several statements. */
  readonly prisma: PrismaClient;
  readonly rows: UserRows;
  /** For a write that is folded in its own transaction. */
  readonly db: Pick<Database, 'transaction'>;
  readonly keeper: Pick<Keeper, 'wake' | 'write'>;
  /** What is committed of users, one answer a key. */
  readonly look: (keys: readonly string[]) => Promise<RecordLook[]>;
}

/** A batch of a peer's may hold the row for seconds; Prisma's own 2 s and 5 s would fail what any other write waits for. */
const PATIENCE = { maxWait: 60_000, timeout: 60_000 };

/** The SQLSTATE of a value that an index refuses, and the index that refuses a key. */
const UNIQUE_VIOLATION = '23505';
const KEY_INDEX = 'users_pkey';

const versionVector = z.record(z.string().max(32), z.string().regex(/^\d{1,16}$/));

export function createUsers({ prisma, rows, db, keeper, look }: UsersOptions): Users {
  /** @param name - The user, where it is known before. */
  async function writeOne<T extends UserRow | null>(make: (over?: Queryable) => Promise<T>, name?: RecordName): Promise<T> {
    try {
      return await keeper.write({ db, ...(name && { name }), make, nameOf: (user) => user && nameOf(user.id) });
    } catch (error) {
      throw asServiceError(error);
    }
  }

  /** A write by several statements. */
  async function written<T extends UserRow>(make: () => Promise<T>): Promise<T> {
    try {
      const result = await make();
      keeper.wake(nameOf(result.id));
      return result;
    } catch (error) {
      throw asServiceError(error);
    }
  }

  /** Writes to a user whose version is known: its row stays locked until the end, so that the version cannot move on between the look and the write. */
  function withVersion<T>(id: number, write: (version: RecordVersion | null, tx: Prisma.TransactionClient) => Promise<T>): Promise<T> {
    return prisma.$transaction(async (tx) => {
      const locked = await tx.$queryRaw<unknown[]>`SELECT 1 FROM users WHERE id = ${id} FOR UPDATE`;
      if (locked.length === 0) throw notFound(id);
      const [found] = await look([String(id)]);
      return write(found?.known ?? null, tx);
    }, PATIENCE);
  }

  return {
    list({ first, after }) {
      const take = first === undefined || first === null ? 100 : parse(pageSize, first, 'first');
      return rows.page(after === undefined || after === null ? null : parse(userId, after, 'after'), take);
    },

    async get(id) {
      return rows.get(parse(userId, id, 'id'));
    },

    async versioned(users) {
      const looks = await look(users.map(({ id }) => String(id)));
      return users.map((user, index) => {
        const { values = null, known = null } = looks[index] ?? {};
        return values === null ? { ...user, known: null } : { ...toRow(values), known };
      });
    },

    async create(input) {
      const data = parse(createUserInput, input, 'user');
      const values = { ...data, telephone: data.telephone ?? null, createdAt: new Date() };
      return writeOne((over) => rows.insert(values, over));
    },

    async update(id, input, expectedVersion) {
      const key = parse(userId, id, 'id');
      const data = defined(parse(updateUserInput, input, 'user'));
      if (expectedVersion === undefined || expectedVersion === null) {
        const user = await writeOne((over) => rows.update(key, data, over), nameOf(key));
        if (user === null) throw notFound(key);
        return user;
      }
      const expected = parse(versionVector, expectedVersion, 'expectedVersion');
      return written(() =>
        withVersion(key, (present, tx) => {
          if (present === null || !sameVersion(present.version, expected)) {
            const version = JSON.stringify(present?.version ?? null);
            throw new ServiceError('VERSION_MISMATCH', `user ${key} has moved on: its version is ${version}. Read it again and decide anew.`);
          }
          return tx.user.update({ where: { id: key }, data });
        }),
      );
    },

    async delete(id) {
      const key = parse(userId, id, 'id');
      return written(() =>
        withVersion(key, async (known, tx) => ({ ...(await tx.user.delete({ where: { id: key } })), known })),
      );
    },
  };
}

/** The values of a look as Prisma would give them. */
function toRow(values: Readonly<Record<string, unknown>>): UserRow {
  const { id, nom, email, telephone, createdAt } = values as unknown as Omit<UserRow, 'createdAt'> & { readonly createdAt: string };
  return { id, nom, email, telephone, createdAt: new Date(createdAt) };
}

function nameOf(id: number): RecordName {
  return ['User', String(id)];
}

function notFound(id: number): ServiceError {
  return new ServiceError('NOT_FOUND', `there is no user ${id}.`);
}

function asServiceError(error: unknown): unknown {
  if (sqlState(error) !== UNIQUE_VIOLATION && !(error instanceof Prisma.PrismaClientKnownRequestError && error.code === 'P2002')) return error;
  if ((error as { readonly constraint?: string }).constraint === KEY_INDEX) {
    const why = 'the id that came next is another user’s: somebody has written users with ids of their own. Try again, for the id after it; a replica that starts anew goes on behind the largest.';
    return new ServiceError('UNIQUE_VIOLATION', why, [{ field: 'id', message: 'is taken' }]);
  }
  return new ServiceError('UNIQUE_VIOLATION', 'another user has this email. Give another one.', [{ field: 'email', message: 'is taken' }]);
}

function defined<T extends object>(input: T): { [K in keyof T]: Exclude<T[K], undefined> } {
  return Object.fromEntries(Object.entries(input).filter(([, value]) => value !== undefined)) as { [K in keyof T]: Exclude<T[K], undefined> };
}

function sameVersion(a: VersionVector, b: VersionVector): boolean {
  const names = Object.keys(a);
  return names.length === Object.keys(b).length && names.every((name) => Object.hasOwn(b, name) && a[name] === b[name]);
}
