/**
 * Showing states in the models' tables.
 *
 * Merging never fails; showing can (a constraint, a missing parent, a type). A batch is shown as a whole; where that fails it is halved until the records that
 * cannot be shown stand alone, and those wait.
 */
import { sameFields, type Fields } from '../replication/version.ts';
import type { Change } from './changes.ts';
import { RetryTransaction, sqlState, type Transaction } from './database.ts';
import { findOrphans, joined, rowOf } from './families.ts';
import type { Replica } from './replica.ts';
import { matchesKey, type ModelTable } from './tables.ts';

/** What could be written, but not as it is meant: a foreign key would take a child along in silence, a trigger changes the values, a text is not as the type writes it. */
class RowError extends Error {}

/** Why a change is not shown. */
export interface Unshown {
  readonly reason: string;
  /** Names what it waits for, where that is known. */
  readonly awaits: string | null;
  /** False where the row was left as it was. */
  readonly removed: boolean;
}

/** What a deletion waits for with more children than are set aside at once: nothing but its next trial. */
export const AGAIN = 'again';

/** What was shown, and what was not. */
export interface Shown {
  /** The changes given, and those of the children that had to leave with their parents. */
  readonly changes: readonly Change[];
  readonly unshown: ReadonlyMap<Change, Unshown>;
}

/** A row and what it is to hold; null: it is to go. */
interface Goal {
  readonly change: Change;
  readonly before: Change['before'];
  readonly fields: Fields | null;
}

export async function materialise(tx: Transaction, replica: Replica, given: readonly Change[]): Promise<Shown> {
  const { changes, orphaned, partial } = await findOrphans(tx, replica, given);
  const goals = changes.map((change): Goal => ({ change, before: change.before, fields: orphaned.has(change) ? null : rowOf(change) }));
  const refused = new Map<Goal, string>();
  let rest = goals.filter(({ before, fields }) => !sameFields(fields, before.row));
  // What failed may be shown once others are: a parent, a value given up.
  for (let left = Infinity; rest.length > 0 && rest.length < left; ) {
    left = rest.length;
    refused.clear();
    await attempt(tx, rest, refused);
    rest = [...refused.keys()];
  }
  const unshown = new Map<Change, Unshown>();
  for (const [change, why] of orphaned) unshown.set(change, { ...why, removed: true });
  for (const [{ change }, why] of refused) unshown.set(change, { reason: orphaned.get(change)?.reason ?? why, awaits: partial.has(change) ? AGAIN : null, removed: false });
  return { changes, unshown };
}

async function attempt(tx: Transaction, goals: readonly Goal[], refused: Map<Goal, string>): Promise<void> {
  // What is checked late is checked before the transaction ends, when nothing could be set aside any more.
  await tx.query('SAVEPOINT rows; SET CONSTRAINTS ALL DEFERRED');
  try {
    await writeRows(tx, goals);
    await tx.query('SET CONSTRAINTS ALL IMMEDIATE; RELEASE SAVEPOINT rows');
  } catch (error) {
    // 23: integrity constraint; 22: data exception; P0001: raised by a trigger of the application's own.
    if (!(error instanceof RowError) && !/^(22|23|P0001)/.test(sqlState(error) ?? '')) throw error;
    await tx.query('ROLLBACK TO SAVEPOINT rows');
    const [only] = goals;
    if (goals.length === 1 && only !== undefined) {
      await refuseIfCreatedMeanwhile(tx, only);
      refused.set(only, reason(error));
      return;
    }
    const half = Math.ceil(goals.length / 2);
    await attempt(tx, goals.slice(0, half), refused);
    await attempt(tx, goals.slice(half), refused);
  }
}

/** A local writer created the same key after the record was read: everything is read again, with its write. */
async function refuseIfCreatedMeanwhile(tx: Transaction, { before }: Goal): Promise<void> {
  if (before.row !== null) return;
  const { table, keyColumn } = before.table;
  const [found] = await tx.query(`SELECT FROM ${table} t WHERE ${matchesKey('t', keyColumn, '$1::text')}`, [before.key]);
  if (found) throw new RetryTransaction(`a row with key ${before.key} was created meanwhile`);
}

async function writeRows(tx: Transaction, goals: readonly Goal[]): Promise<void> {
  const byTable = new Map<ModelTable, Goal[]>();
  for (const goal of goals) {
    const own = byTable.get(goal.before.table);
    if (own) own.push(goal);
    else byTable.set(goal.before.table, [goal]);
  }
  const deletions = [...byTable].toReversed().map(([table, own]) => [table, own.filter(({ fields }) => fields === null).map(({ before }) => before.key)] as const);
  // Children that are about to be pointed elsewhere have to be first; all others last, since deletions give up values that only one row may have.
  const late: (readonly [ModelTable, readonly string[]])[] = [];
  for (const [table, keys] of deletions) {
    const parents = new Set((await livingChildren(tx, table, keys)).map(([key]) => key));
    await deleteRows(tx, table, keys.filter((key) => !parents.has(key)));
    if (parents.size > 0) late.push([table, [...parents]]);
  }
  for (const [table, own] of byTable) {
    const living = own.filter(({ fields }) => fields !== null);
    await updateRows(tx, table, living.filter(({ before }) => before.row !== null));
    await insertRows(tx, table, living.filter(({ before }) => before.row === null));
  }
  for (const [table, keys] of late) {
    const [left] = await livingChildren(tx, table, keys);
    if (left) throw new RowError(`it is deleted, and a row of ${left[1]} that still belongs to it would go or change with it: ${left[2]}. Nothing else is known of that row, or it is set aside first.`);
    await deleteRows(tx, table, keys);
  }
}

/** Rows that others still belong to: [key, children's table, one child's values]. The parents' rows are locked: no child can come any more. */
async function livingChildren(tx: Transaction, model: ModelTable, keys: readonly string[]): Promise<[string, string, string][]> {
  if (keys.length === 0) return [];
  const found: [string, string, string][] = [];
  for (const reference of model.children) {
    const { child, columns } = reference;
    const other = child.table === model.table || child.model === model.name ? ` WHERE c.${model.keyColumn.column}::text <> ALL ($1)` : '';
    const names = columns.map((column) => column.child.column.slice(1, -1)).join(', ');
    const rows = await tx.query(
      `SELECT k.key, min(concat_ws(', ', ${columns.map((column) => `c.${column.child.column}::text`).join(', ')}))
         FROM unnest($1::text[]) AS k (key) JOIN ${model.table} t ON ${matchesKey('t', model.keyColumn, 'k.key')} JOIN ${child.table} c ON ${joined(reference)}${other} GROUP BY k.key`,
      [keys],
    );
    found.push(...rows.map(([key, values]): [string, string, string] => [key as string, child.table, `Key (${names})=(${values})`]));
  }
  return found;
}

async function deleteRows(tx: Transaction, model: ModelTable, keys: readonly string[]): Promise<void> {
  if (keys.length === 0) return;
  const gone = await tx.query(`DELETE FROM ${model.table} t USING unnest($1::text[]) AS k (key) WHERE ${matchesKey('t', model.keyColumn, 'k.key')} RETURNING 1`, [keys]);
  if (gone.length < keys.length) throw new RowError(`a trigger of ${model.table} keeps it from being deleted. ${EXEMPT}`);
}

async function updateRows(tx: Transaction, table: ModelTable, goals: readonly Goal[]): Promise<void> {
  if (goals.length === 0 || table.columns.length === 0) return;
  const set = table.columns.map((c, i) => `${c.column} = x.c${i}::${c.type}`).join(', ');
  await writeExactly(tx, table, goals, `UPDATE ${table.table} t SET ${set} FROM x WHERE ${matchesKey('t', table.keyColumn, 'x.key')}`);
}

async function insertRows(tx: Transaction, table: ModelTable, goals: readonly Goal[]): Promise<void> {
  if (goals.length === 0) return;
  const columns = [table.keyColumn, ...table.columns].map((c) => c.column).join(', ');
  const values = table.columns.map((c, i) => `, x.c${i}::${c.type}`).join('');
  await writeExactly(
    tx,
    table,
    goals,
    `INSERT INTO ${table.table} AS t (${columns}) OVERRIDING SYSTEM VALUE SELECT x.key::${table.keyColumn.type}${values} FROM x`,
  );
}

/** Runs a statement that writes the rows `x`, and looks whether each holds then what it is to hold: its version is stored without its values. */
async function writeExactly(tx: Transaction, table: ModelTable, goals: readonly Goal[], statement: string): Promise<void> {
  const texts = [table.keyColumn, ...table.columns].map(({ column }) => `t.${column}::text COLLATE "C"`).join(', ');
  // EXCEPT is hashed or sorted; a join of what has no statistics may be neither.
  const [odd] = await tx.query(
    `WITH x AS MATERIALIZED (SELECT * FROM ${recordset(table)}), w AS (${statement} RETURNING ${texts})
     SELECT key FROM (SELECT * FROM x EXCEPT SELECT * FROM w) AS odd LIMIT 1`,
    [encodeRows(table, goals)],
  );
  if (odd) throw new RowError(`a trigger of ${table.table} changes the values, or they are not written as their types write them: Key ${odd[0]}. ${EXEMPT}`);
}

const EXEMPT = `Let triggers pass where current_setting('replication.applying', true) is 'on'.`;

/** The rows of $1 with every value as text: casts from text are exact, those from JSON are not. */
function recordset(table: ModelTable): string {
  return `json_to_recordset($1) AS x (key text${table.columns.map((_, i) => `, c${i} text`).join('')})`;
}

function encodeRows(table: ModelTable, goals: readonly Goal[]): string {
  return JSON.stringify(
    goals.map(({ before, fields }) => {
      const row: Record<string, string | null> = { key: before.key };
      table.columns.forEach(({ field }, i) => {
        row[`c${i}`] = (fields as Fields)[field.name] ?? null;
      });
      return row;
    }),
  );
}

function reason(error: unknown): string {
  const { message, detail } = error as { message: string; detail?: string };
  return detail ? `${message}: ${detail}` : message;
}
