/** Replicas without their edges, over databases that a file's tests take in turns: making a database is the slow part. */
import type { Policy } from '../../src/replication/policy.ts';
import { openDatabase, type Database } from '../../src/storage/database.ts';
import { openReplica, type Replica } from '../../src/storage/replica.ts';
import type { ModelSource } from '../../src/storage/tables.ts';
import { createTestDatabase } from '../support/postgres.ts';

export const text = (name: string, nullable = false) => ({ name, type: 'String', nullable, list: false });

export const USER: ModelSource = {
  name: 'User',
  key: { name: 'id', type: 'Int', nullable: false, list: false },
  fields: [text('nom'), text('email'), text('telephone', true)],
  schema: null,
  table: 'users',
  columns: { id: 'id', nom: 'nom', email: 'email', telephone: 'telephone' },
};

export interface Setup {
  readonly slot: number;
  readonly stride?: number;
  readonly policy?: Policy;
  readonly models?: readonly ModelSource[];
}

export interface Parties {
  /** A replica as on its first day. */
  open(name: string, setup: Setup): Promise<Replica>;
  /** Gives the databases back; replicas opened before are not to be used any more. */
  giveBack(): void;
  close(): Promise<void>;
}

export function createParties(): Parties {
  const all: { readonly db: Database; close(): Promise<void> }[] = [];
  let used = 0;

  async function another(): Promise<Database> {
    const database = await createTestDatabase();
    const db = openDatabase(database.url, { size: 3, onError: () => {} });
    all.push({ db, close: () => db.close().then(database.close) });
    return db;
  }

  return {
    async open(name, { slot, stride = 10, policy = 'manual', models = [USER] }) {
      const db = all[used]?.db ?? (await another());
      used++;
      await db.query('DROP SCHEMA IF EXISTS replication CASCADE');
      await db.query('TRUNCATE users');
      return openReplica(db, { name, slot, stride, policy, models, report: () => {} });
    },
    giveBack: () => void (used = 0),
    async close() {
      await Promise.all(all.map((one) => one.close()));
    },
  };
}
