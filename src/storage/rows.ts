/**
 * Showing states in the models' tables.
 *
 * Merging never fails; showing can (a constraint, a missing parent, a type). A batch is shown as a whole; where that fails it is halved until the records that
 * cannot be shown stand alone, and those wait.
 */
import { sameFields, type Fields } from '../replication/version.ts';
import type { Change } from './changes.ts';
import { RetryTransaction, sqlState, type Transaction } from './database.ts';
import { matchesKey, showFields, type ModelTable } from './tables.ts';

/** What could be written, but not as it is meant: a foreign key would take a child along in silence, a trigger changes the values, a text is not as the type writes it. */
class RowError extends Error {}

/** Why each change that could not be shown waits. */
export async function materialise(tx: Transaction, changes: readonly Change[]): Promise<Map<Change, string>> {
  const waiting = new Map<Change, string>();
  let rest = changes.filter((change) => !isShown(change));
  // What failed may be shown once others are: a parent, a value given up.
  for (let before = Infinity; rest.length > 0 && rest.length < before; ) {
    before = rest.length;
    waiting.clear();
    await attempt(tx, rest, waiting);
    rest = [...waiting.keys()];
  }
  return waiting;
}

function isShown({ before, view }: Change): boolean {
  return sameFields(view.fields && showFields(before.table, view.fields), before.row);
}

async function attempt(tx: Transaction, changes: readonly Change[], waiting: Map<Change, string>): Promise<void> {
  // What is checked late is checked before the transaction ends, when nothing could be set aside any more.
  await tx.query('SAVEPOINT rows; SET CONSTRAINTS ALL DEFERRED');
  try {
    await writeRows(tx, changes);
    await tx.query('SET CONSTRAINTS ALL IMMEDIATE; RELEASE SAVEPOINT rows');
  } catch (error) {
    // 23: integrity constraint; 22: data exception; P0001: raised by a trigger of the application's own.
    if (!(error instanceof RowError) && !/^(22|23|P0001)/.test(sqlState(error) ?? '')) throw error;
    await tx.query('ROLLBACK TO SAVEPOINT rows');
    const [only] = changes;
    if (changes.length === 1 && only !== undefined) {
      await refuseIfCreatedMeanwhile(tx, only);
      waiting.set(only, reason(error));
      return;
    }
    const half = Math.ceil(changes.length / 2);
    await attempt(tx, changes.slice(0, half), waiting);
    await attempt(tx, changes.slice(half), waiting);
  }
}

/** A local writer created the same key after the record was read: everything is read again, with its write. */
async function refuseIfCreatedMeanwhile(tx: Transaction, { before }: Change): Promise<void> {
  if (before.row !== null) return;
  const { table, keyColumn } = before.table;
  const [found] = await tx.query(`SELECT FROM ${table} t WHERE ${matchesKey('t', keyColumn, '$1::text')}`, [before.key]);
  if (found) throw new RetryTransaction(`a row with key ${before.key} was created meanwhile`);
}

async function writeRows(tx: Transaction, changes: readonly Change[]): Promise<void> {
  const byTable = new Map<ModelTable, Change[]>();
  for (const change of changes) {
    const own = byTable.get(change.before.table);
    if (own) own.push(change);
    else byTable.set(change.before.table, [change]);
  }
  for (const [table, own] of [...byTable].toReversed()) {
    await deleteRows(tx, table, own.filter(({ view }) => view.fields === null));
  }
  for (const [table, own] of byTable) {
    const living = own.filter(({ view }) => view.fields !== null);
    await updateRows(tx, table, living.filter(({ before }) => before.row !== null));
    await insertRows(tx, table, living.filter(({ before }) => before.row === null));
  }
}

async function deleteRows(tx: Transaction, model: ModelTable, changes: readonly Change[]): Promise<void> {
  if (changes.length === 0) return;
  const keys = changes.map(({ before }) => before.key);
  const deleted = `${model.table} t JOIN unnest($1::text[]) AS k (key) ON ${matchesKey('t', model.keyColumn, 'k.key')}`;
  for (const { child, on, key } of model.cascades) {
    // The row is locked: no child can come any more.
    const within = child === model.table ? `WHERE c.${key}::text <> ALL ($1)` : '';
    const [found] = await tx.query(`SELECT c.${key}::text FROM ${deleted} JOIN ${child} c ON ${on} ${within} LIMIT 1`, [keys]);
    if (found) throw new RowError(`it is deleted, and a row of ${child} that still belongs to it would go with it: Key (${key})=(${found[0]}).`);
  }
  const gone = await tx.query(`DELETE FROM ${model.table} t USING unnest($1::text[]) AS k (key) WHERE ${matchesKey('t', model.keyColumn, 'k.key')} RETURNING 1`, [keys]);
  if (gone.length < keys.length) throw new RowError(`a trigger of ${model.table} keeps it from being deleted. ${EXEMPT}`);
}

async function updateRows(tx: Transaction, table: ModelTable, changes: readonly Change[]): Promise<void> {
  if (changes.length === 0 || table.columns.length === 0) return;
  const set = table.columns.map((c, i) => `${c.column} = x.c${i}::${c.type}`).join(', ');
  await writeExactly(tx, table, changes, `UPDATE ${table.table} t SET ${set} FROM x WHERE ${matchesKey('t', table.keyColumn, 'x.key')}`);
}

async function insertRows(tx: Transaction, table: ModelTable, changes: readonly Change[]): Promise<void> {
  if (changes.length === 0) return;
  const columns = [table.keyColumn, ...table.columns].map((c) => c.column).join(', ');
  const values = table.columns.map((c, i) => `, x.c${i}::${c.type}`).join('');
  await writeExactly(
    tx,
    table,
    changes,
    `INSERT INTO ${table.table} AS t (${columns}) OVERRIDING SYSTEM VALUE SELECT x.key::${table.keyColumn.type}${values} FROM x`,
  );
}

/** Runs a statement that writes the rows `x`, and looks whether each holds then what it is to hold: its version is stored without its values. */
async function writeExactly(tx: Transaction, table: ModelTable, changes: readonly Change[], statement: string): Promise<void> {
  const texts = [table.keyColumn, ...table.columns].map(({ column }) => `t.${column}::text COLLATE "C"`).join(', ');
  // EXCEPT is hashed or sorted; a join of what has no statistics may be neither.
  const [odd] = await tx.query(
    `WITH x AS MATERIALIZED (SELECT * FROM ${recordset(table)}), w AS (${statement} RETURNING ${texts})
     SELECT key FROM (SELECT * FROM x EXCEPT SELECT * FROM w) AS odd LIMIT 1`,
    [encodeRows(table, changes)],
  );
  if (odd) throw new RowError(`a trigger of ${table.table} changes the values, or they are not written as their types write them: Key ${odd[0]}. ${EXEMPT}`);
}

const EXEMPT = `Let triggers pass where current_setting('replication.applying', true) is 'on'.`;

/** The rows of $1 with every value as text: casts from text are exact, those from JSON are not. */
function recordset(table: ModelTable): string {
  return `json_to_recordset($1) AS x (key text${table.columns.map((_, i) => `, c${i} text`).join('')})`;
}

function encodeRows(table: ModelTable, changes: readonly Change[]): string {
  return JSON.stringify(
    changes.map(({ before, view }) => {
      const fields = showFields(table, view.fields as Fields);
      const row: Record<string, string | null> = { key: before.key };
      table.columns.forEach(({ field }, i) => {
        row[`c${i}`] = fields[field.name] ?? null;
      });
      return row;
    }),
  );
}

function reason(error: unknown): string {
  const { message, detail } = error as { message: string; detail?: string };
  return detail ? `${message}: ${detail}` : message;
}
