/**
 * Showing states in the models' tables.
 *
 * Merging never fails; showing can (a constraint, a missing parent, a type). A batch is shown as a whole; where that fails it is halved until the records that
 * cannot be shown stand alone, and those wait.
 */
import { sameFields, type Fields } from '../replication/version.ts';
import type { Change } from './changes.ts';
import { RetryTransaction, sqlState, type Transaction } from './database.ts';
import { matchesKey, type ModelTable } from './tables.ts';

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
  return sameFields(view.fields, before.row);
}

async function attempt(tx: Transaction, changes: readonly Change[], waiting: Map<Change, string>): Promise<void> {
  await tx.query('SAVEPOINT rows');
  try {
    await writeRows(tx, changes);
    await tx.query('RELEASE SAVEPOINT rows');
  } catch (error) {
    const state = sqlState(error);
    // 23: integrity constraint; 22: data exception; P0001: raised by a trigger of the application's own.
    if (state === undefined || !/^(22|23|P0001)/.test(state)) throw error;
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

async function deleteRows(tx: Transaction, { table, keyColumn }: ModelTable, changes: readonly Change[]): Promise<void> {
  if (changes.length === 0) return;
  await tx.query(`DELETE FROM ${table} t USING unnest($1::text[]) AS k (key) WHERE ${matchesKey('t', keyColumn, 'k.key')}`, [
    changes.map(({ before }) => before.key),
  ]);
}

async function updateRows(tx: Transaction, table: ModelTable, changes: readonly Change[]): Promise<void> {
  if (changes.length === 0 || table.columns.length === 0) return;
  const set = table.columns.map((c, i) => `${c.column} = x.c${i}::${c.type}`).join(', ');
  await tx.query(
    `UPDATE ${table.table} t SET ${set} FROM ${recordset(table)} WHERE ${matchesKey('t', table.keyColumn, 'x.key')}`,
    [encodeRows(table, changes)],
  );
}

async function insertRows(tx: Transaction, table: ModelTable, changes: readonly Change[]): Promise<void> {
  if (changes.length === 0) return;
  const columns = [table.keyColumn, ...table.columns].map((c) => c.column).join(', ');
  const values = table.columns.map((c, i) => `, x.c${i}::${c.type}`).join('');
  await tx.query(
    `INSERT INTO ${table.table} (${columns}) OVERRIDING SYSTEM VALUE SELECT x.key::${table.keyColumn.type}${values} FROM ${recordset(table)}`,
    [encodeRows(table, changes)],
  );
}

/** The rows of $1 with every value as text: casts from text are exact, those from JSON are not. */
function recordset(table: ModelTable): string {
  return `json_to_recordset($1) AS x (key text${table.columns.map((_, i) => `, c${i} text`).join('')})`;
}

function encodeRows(table: ModelTable, changes: readonly Change[]): string {
  return JSON.stringify(
    changes.map(({ before, view }) => {
      const fields = view.fields as Fields;
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
