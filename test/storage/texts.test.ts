/** The texts that the database makes of plain records are those of the records, and of others it makes none. */
import { afterEach, describe, expect, it } from 'vitest';

import { columnsFault, fromColumns, type WireColumns } from '../../src/replication/columns.ts';
import { toWire, type WireRecord, type WireVersion } from '../../src/replication/wire.ts';
import type { Transaction } from '../../src/storage/database.ts';
import { readRecords, settle } from '../../src/storage/records.ts';
import { BATCH_BYTES } from '../../src/storage/sizes.ts';
import type { ModelTable } from '../../src/storage/tables.ts';
import { readTexts } from '../../src/storage/texts.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { ACCOUNTS, model, THINGS_WITH_F3, type Schema } from '../support/schemas.ts';

let replicas: Replicas;
afterEach(() => replicas.close());

const sql = (text: string, name = 'a') => replicas.at(name).sql(text);
const open = async (names: string, schema?: Schema): Promise<void> => {
  replicas = await openReplicas(names, schema && { schema });
};

/** The keys that have texts, each of which says what is stored; all others are named. */
async function plainKeys(name = 'a'): Promise<string[]> {
  const { replica } = replicas.at(name);
  const [table] = [...replica.tables.values()] as [ModelTable];
  return replica.db.transaction(async (tx) => {
    const keys = (await tx.query('SELECT key FROM replication.record ORDER BY key')).map(([key]) => key as string);
    const { text, count, others, cut } = await readTexts(tx, table, { after: 0, end: 1_000_000, peerId: 'p.1', byColumn: false }, BATCH_BYTES, true);
    const texts = JSON.parse(`[${text}]`) as WireRecord[];
    const plain = texts.map(([, key]) => key);
    expect([count, cut, [...plain, ...others].toSorted()]).toEqual([plain.length, null, keys]);
    const records = await readRecords(tx, table, plain);
    await sameByColumn(tx, table, texts, others);
    expect(texts).toEqual(records.map((record) => [table.name, record.key, settle(record, replica).settled.map(toWire)]));
    return plain.toSorted();
  });
}

/** By column come those that were written once, and the rest as ever. */
async function sameByColumn(tx: Transaction, table: ModelTable, texts: readonly WireRecord[], others: readonly string[]): Promise<void> {
  const told = await readTexts(tx, table, { after: 0, end: 1_000_000, peerId: 'p.1', byColumn: true }, BATCH_BYTES, true);
  const columns = told.columns.map((text) => JSON.parse(text) as WireColumns);
  expect(columns.map(columnsFault)).toEqual(columns.map(() => null));
  const once = texts.filter(([, , [version]]) => {
    const { v, s, r } = version as WireVersion;
    return Object.keys(v).length === 1 && Object.keys(s).join() === '*' && !r && Object.values(v)[0] === s['*']?.[1];
  });
  const rest = texts.filter((record) => !once.includes(record));
  const byKey = (records: readonly WireRecord[]): WireRecord[] => records.toSorted(([, one], [, other]) => (one < other ? -1 : 1));
  expect(byKey(columns.flatMap((own) => fromColumns(own)))).toEqual(byKey(once));
  expect([JSON.parse(`[${told.text}]`), told.count, told.others.toSorted(), told.cut]).toEqual([rest, texts.length, others.toSorted(), null]);
}

describe('a plain record', () => {
  it('is one that was made, changed, resolved or came from a peer', async () => {
    await open('ab');
    await sql(`INSERT INTO things VALUES ('made', '"\\é', NULL), ('changed', '1', '1'), ('a"key', '{', '}'), ('both', '1', '1')`);
    await sql(`INSERT INTO things VALUES ('came', '1', '1')`, 'b');
    await replicas.rest();
    await sql(`UPDATE things SET f1 = '2' WHERE id = 'changed'; UPDATE things SET f1 = 'a' WHERE id = 'both'`);
    await sql(`UPDATE things SET f2 = 'b' WHERE id = 'both'`, 'b');
    await replicas.rest();
    expect(await plainKeys()).toEqual(['a"key', 'came', 'changed', 'made']);
    expect(await plainKeys('b')).toEqual(['a"key', 'came', 'changed', 'made']);
  });

  it('is one that builds on a resolution, whatever its values and wherever its fields lie', async () => {
    const named: Schema = {
      ddl: 'CREATE TABLE named (id text PRIMARY KEY, r text, f text)',
      models: [model('Named', 'named', { id: 'String', r: 'String?', f: 'String?' })],
    };
    await open('a', named);
    await sql(`INSERT INTO named VALUES ('1', ']}]', ']},"r":["'), ('2', NULL, 'x'), ('3', 'x', NULL), ('whole', ']},"r":["x"]}]', '{')`);
    await replicas.at('a').settle();
    await sql(`UPDATE named SET r = 'y' WHERE id = '2'`);
    await replicas.at('a').settle();
    const marked = (end: string, rest: string) => `replace(versions::text, '${end}', '${rest},"r":["latest","b.1",5]}]')::json`;
    await sql(`UPDATE replication.record SET versions = ${marked('}}]', '}')} WHERE key <> 'whole'`);
    await sql(`UPDATE replication.record SET versions = ${marked('}}]', '},"f":{"r":"]},\\"r\\":[\\"x","f":null}')} WHERE key = 'whole'`);
    expect(await plainKeys()).toEqual(['1', '2', '3']);
  });

  it('is none that is deleted, has a write that is not folded yet, or no row', async () => {
    await open('a');
    await sql(`INSERT INTO things VALUES ('1', 'x', 'x'), ('2', 'x', 'x'), ('3', 'x', 'x')`);
    await replicas.at('a').settle();
    await sql(`DELETE FROM things WHERE id = '1'`);
    await replicas.at('a').settle();
    await sql(`UPDATE things SET f1 = 'y' WHERE id = '2'`);
    expect(await plainKeys()).toEqual(['3']);
  });

  it('is none that shows another value than its own', async () => {
    await open('ab', ACCOUNTS);
    await sql(`INSERT INTO accounts (id, email) VALUES ('1', 'one')`);
    await sql(`INSERT INTO accounts (id, email) VALUES ('2', 'one')`, 'b');
    await replicas.rest();
    expect([await plainKeys('a'), await plainKeys('b')]).toEqual([['1'], ['1']]);
  });

  it('is none whose fields are of another version of the schema', async () => {
    await open('a', THINGS_WITH_F3);
    await sql(`INSERT INTO things VALUES ('old', 'x', 'x')`);
    await replicas.at('a').settle();
    await sql(`UPDATE replication.generation SET generation = 12; UPDATE replication.field SET since = 12 WHERE name = 'f3'`);
    // Learnt of with a record that is read.
    await sql(`INSERT INTO things VALUES ('new', 'x', 'x'), ('mid', 'x', 'x')`);
    await replicas.at('a').settle();
    expect(await plainKeys()).toEqual(['mid', 'new']);
    await sql(`UPDATE replication.record SET versions = replace(versions::text, '"g":12', '"g":2')::json WHERE key = 'mid'`);
    expect(await plainKeys()).toEqual(['new']);
    await sql('UPDATE replication.generation SET generation = 13');
    expect(await plainKeys()).toEqual([]);
    // A change that brought no field.
    await sql(`INSERT INTO things VALUES ('later', 'x', 'x')`);
    await replicas.at('a').settle();
    expect(await plainKeys()).toEqual(['later', 'new']);
  });

  it('is one of a model with fields named as the parts of a version, and of one with more than a function takes', async () => {
    const names = ['f', 'g', 'x', 'v', 's', ...Array.from({ length: 120 }, (_, i) => `n${i}`)];
    const wide: Schema = {
      ddl: `CREATE TABLE wide (id integer PRIMARY KEY, ${names.map((name) => `${name} text`).join(', ')})`,
      models: [model('Wide', 'wide', { id: 'Int', ...Object.fromEntries(names.map((name) => [name, 'String?'])) })],
    };
    await open('a', wide);
    await sql(`INSERT INTO wide (id, f, n7) VALUES (1, 'x', 'y'), (2, NULL, NULL)`);
    await replicas.at('a').settle();
    await sql(`UPDATE wide SET f = 'z', g = '1', x = '{' WHERE id = 1`);
    await replicas.at('a').settle();
    expect(await plainKeys()).toEqual(['1', '2']);
  });
});
