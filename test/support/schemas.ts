/** Models for tests: none of them is the project's own. */
import type { ReplicatedField } from '../../src/replication/model.ts';
import type { ModelSource } from '../../src/storage/tables.ts';

export interface Schema {
  readonly ddl: string;
  readonly models: readonly ModelSource[];
}

/** A model from its fields, the key first, each with a type such as `Int`, `String?` or `Json[]`. */
export function model(name: string, table: string, fields: Readonly<Record<string, string>>): ModelSource {
  const [key, ...rest] = Object.entries(fields).map(
    ([field, type]): ReplicatedField => ({ name: field, type: type.replace(/\[\]|\?/g, ''), nullable: type.includes('?'), list: type.includes('[]') }),
  );
  return { name, key: key as ReplicatedField, fields: rest, schema: null, table, columns: {} };
}

/** The model of the histories: a text key and two fields. */
export const THINGS: Schema = {
  ddl: 'CREATE TABLE things (id text PRIMARY KEY, f1 text, f2 text)',
  models: [model('Thing', 'things', { id: 'String', f1: 'String?', f2: 'String?' })],
};

/** Keys that the database gives out, and a value that only one row may have. */
export const PEOPLE: Schema = {
  ddl: 'CREATE TABLE people (id serial PRIMARY KEY, email text UNIQUE, age integer CHECK (age >= 0))',
  models: [model('Person', 'people', { id: 'Int', email: 'String?', age: 'Int?' })],
};

/** A parent and its child. */
export const FAMILY: Schema = {
  ddl: `CREATE TABLE parents (id text PRIMARY KEY, name text);
        CREATE TABLE children (id text PRIMARY KEY, parent text NOT NULL REFERENCES parents (id) ON DELETE CASCADE, name text)`,
  models: [
    model('Child', 'children', { id: 'String', parent: 'String', name: 'String?' }),
    model('Parent', 'parents', { id: 'String', name: 'String?' }),
  ],
};

/** `THINGS` after a later version has added a field. */
export const THINGS_WITH_F3: Schema = {
  ddl: 'CREATE TABLE things (id text PRIMARY KEY, f1 text, f2 text, f3 text)',
  models: [model('Thing', 'things', { id: 'String', f1: 'String?', f2: 'String?', f3: 'String?' })],
};

/** The same, where it may not be null but has a default. */
export const THINGS_WITH_DEFAULT: Schema = {
  ddl: `CREATE TABLE things (id text PRIMARY KEY, f1 text, f2 text, f3 text NOT NULL DEFAULT 'd')`,
  models: [model('Thing', 'things', { id: 'String', f1: 'String?', f2: 'String?', f3: 'String' })],
};

/** An address that each has and only one may have, and a pair of values that is unique together. */
export const ACCOUNTS: Schema = {
  ddl: `CREATE TABLE accounts (id text PRIMARY KEY, email varchar(12) NOT NULL UNIQUE, name text, team text NOT NULL DEFAULT 't', seat integer, UNIQUE (team, seat))`,
  models: [model('Account', 'accounts', { id: 'String', email: 'String', name: 'String?', team: 'String', seat: 'Int?' })],
};
