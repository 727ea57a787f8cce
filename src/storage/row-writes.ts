/** Statements that write rows, and look whether each holds then what it is to hold: its version is stored without its values. */
import type { Fields } from '../replication/version.ts';
import { texts } from './arrays.ts';
import type { Transaction } from './database.ts';
import { matchesKey, type ModelTable } from './tables.ts';

/** What could be written, but not as it is meant: a foreign key would take a child along in silence, a trigger changes the values, a text is not as the type writes it. */
export class RowError extends Error {}

/** What a row is to hold; null: it is to go. */
export interface RowGoal {
  readonly key: string;
  readonly fields: Fields | null;
}

/** Rows to be written, and the statement that does it from the rows `x`. */
export interface Write {
  readonly table: ModelTable;
  readonly goals: readonly RowGoal[];
  readonly statement: (x: string) => string;
}

export function updateOf(table: ModelTable, goals: readonly RowGoal[]): Write {
  const set = table.columns.map((c, i) => `${c.column} = x.c${i}::${c.type}`).join(', ');
  return {
    table,
    goals: table.columns.length === 0 ? [] : goals,
    statement: (x) => `UPDATE ${table.table} t SET ${set} FROM ${x} x WHERE ${matchesKey('t', table.keyColumn, 'x.key')}`,
  };
}

export function insertOf(table: ModelTable, goals: readonly RowGoal[]): Write {
  const columns = [table.keyColumn, ...table.columns].map((c) => c.column).join(', ');
  const values = table.columns.map((c, i) => `, x.c${i}::${c.type}`).join('');
  return {
    table,
    goals,
    statement: (x) => `INSERT INTO ${table.table} AS t (${columns}) OVERRIDING SYSTEM VALUE SELECT x.key::${table.keyColumn.type}${values} FROM ${x} x`,
  };
}

/**
 * Writes rows, and looks whether each holds then what it is to hold: its version is stored without its values. Tables of a circle are written in one statement; within a table,
 * updates give up values before rows are inserted that may take them.
 */
export async function writeExactly(tx: Transaction, writes: readonly Write[]): Promise<void> {
  const own = writes.filter(({ goals }) => goals.length > 0);
  const tables = new Set(own.map(({ table }) => table));
  for (const together of tables.size > 1 ? [own] : own.map((write) => [write])) await writeTogether(tx, together);
}

/**
 * Makes rows where there are none.
 * @throws RowError, or the database's error; what was made is to be taken back then.
 */
export async function insertRows(tx: Transaction, table: ModelTable, rows: readonly RowGoal[]): Promise<void> {
  await writeTogether(tx, [insertOf(table, rows)]);
}

async function writeTogether(tx: Transaction, writes: readonly Write[]): Promise<void> {
  const { values, rows } = rowsOf(writes);
  const [found] = await tx.query(exactly(writes, rows, 'n, key'), values);
  if (found) throw new RowError(changedBy((writes[Number(found[0])] as Write).table, found[1] as string));
}

/** Writes rows without waiting for what comes of it: where one is refused, or is not as it was meant, all of the transaction is done again. */
export function hopeFor(tx: Transaction, writes: readonly Write[]): void {
  for (const write of writes) {
    const { values, rows } = rowsOf([write]);
    tx.hope(exactly([write], rows, 'replication.refuse(key)'), values);
  }
}

/** The statement that writes the rows of a JSON array, as `encodeRow` makes them, and returns what is not as it was meant. */
export function fromJson(write: Write): string {
  return exactly([write], [recordset(write.table)], 'n, key');
}

/** The rows of each of these writes, and the parameters that they are read from. */
function rowsOf(writes: readonly Write[]): { readonly values: readonly Buffer[]; readonly rows: readonly string[] } {
  const values: Buffer[] = [];
  const rows = writes.map(({ table: { columns }, goals }) => {
    const first = values.push(texts(goals.map(({ key }) => key)), ...columns.map(({ field: { name } }) => texts(goals.map(({ fields }) => fields?.[name] ?? null)))) - columns.length;
    return `unnest($${first}::text[]${columns.map((_, i) => `, $${first + i + 1}::text[]`).join('')}) AS x (key${columns.map((_, i) => `, c${i}`).join('')})`;
  });
  return { values, rows };
}

/** One statement for these writes, and for each the rows that it reads, every value as text: casts from text are exact. Of a row that is not as it was meant it returns `told`, made of the number of its write (`n`) and its key. */
function exactly(writes: readonly Write[], rows: readonly string[], told: string): string {
  const parts = writes.map(({ table, statement }, n) => {
    const written = [table.keyColumn, ...table.columns].map(({ column }) => `t.${column}::text COLLATE "C"`).join(', ');
    return `x${n} AS MATERIALIZED (SELECT * FROM ${rows[n]}), w${n} AS (${statement(`x${n}`)} RETURNING ${written})`;
  });
  // EXCEPT is hashed or sorted; a join of what has no statistics may be neither.
  const odd = writes.map((_, n) => `(SELECT ${n} AS n, key FROM (SELECT * FROM x${n} EXCEPT SELECT * FROM w${n}) AS odd LIMIT 1)`);
  return `WITH ${parts.join(', ')} SELECT ${told} FROM (${odd.join(' UNION ALL ')}) AS odd`;
}

export function changedBy({ table }: ModelTable, key: string): string {
  return `a trigger of ${table} changes the values, or they are not written as their types write them: Key ${key}. ${EXEMPT}`;
}

export const EXEMPT = `Let triggers pass where current_setting('replication.applying', true) is 'on'.`;

function recordset(table: ModelTable): string {
  return `json_to_recordset($1) AS x (key text${table.columns.map((_, i) => `, c${i} text`).join('')})`;
}

export function encodeRow({ columns }: ModelTable, { key, fields }: RowGoal): Record<string, string | null> {
  const row: Record<string, string | null> = { key };
  for (const [i, { field }] of columns.entries()) row[`c${i}`] = fields?.[field.name] ?? null;
  return row;
}
