/**
 * Showing states in the models' tables.
 *
 * Merging never fails; showing can (a constraint, a missing parent, a type). A batch is shown as a whole; where that fails it is halved until the records that
 * cannot be shown stand alone, and those wait. Where there are many of them, the rest is tried row by row on the server: of 5,000 that all fail halving makes 126 s, that 6 s.
 */
import { uniqueValue, yieldValue } from '../replication/unique.ts';
import { sameFields, type Fields } from '../replication/version.ts';
import type { Change } from './changes.ts';
import { isRefusal, RetryTransaction, sqlState, type Transaction } from './database.ts';
import { findOrphans, joined, rowOf } from './families.ts';
import type { Replica } from './replica.ts';
import { changedBy, encodeRow, EXEMPT, fromJson, hopeFor, insertOf, RowError, updateOf, writeExactly, type RowGoal, type Write } from './row-writes.ts';
import { matchesKey, type ModelTable } from './tables.ts';

/** A table refuses a value that another of its rows has: who holds it has to be found out. Nothing was written. */
export class ClashError extends Error {
  /** All that was to be shown. */
  readonly changes: readonly Change[];

  constructor(changes: readonly Change[]) {
    super('a unique value is taken');
    this.changes = changes;
  }
}

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

/** How many may be found by halving; where there are more, each of the rest is tried alone, on the server. */
const MANY = 8;

/** What was shown, and what was not. */
export interface Shown {
  /** The changes given, and those of the children that had to leave with their parents. */
  readonly changes: readonly Change[];
  readonly unshown: ReadonlyMap<Change, Unshown>;
}

interface Goal extends RowGoal {
  readonly change: Change;
  readonly before: Change['before'];
}

/**
 * @param clash - A unique value that another row has is told, or whose it is has been settled: then values that move between rows are put aside first, and what clashes all the same waits.
 * @throws ClashError
 */
export async function materialise(tx: Transaction, replica: Replica, given: readonly Change[], clash: 'tell' | 'wait'): Promise<Shown> {
  const { changes, orphaned, partial } = await findOrphans(tx, replica, given);
  const tables = new Set(changes.map(({ before }) => before.table));
  const order = new Map([...replica.tables.keys()].map((name, n) => [name, n]));
  const place = ({ before }: Goal): number => order.get(before.table.name) ?? 0;
  const unordered = changes.map((change): Goal => ({ change, key: change.before.key, before: change.before, fields: orphaned.has(change) ? null : rowOf(change) }));
  const goals = tables.size < 2 ? unordered : unordered.toSorted((a, b) => place(a) - place(b));
  const refused = new Map<Goal, string>();
  const attempted: Attempt = { changes, refused, told: new Set(clash === 'wait' ? [] : [...tables].flatMap(({ unique }) => unique.map(({ name }) => name))) };
  let rest = goals.filter(({ before, fields }) => !sameFields(fields, before.row));
  if (tx.isHopeful && clash === 'tell' && tables.size === 1 && orphaned.size === 0 && rest.every(({ fields }) => fields !== null)) {
    hopeFor(tx, writesOf(rest));
    return { changes, unshown: new Map() };
  }
  const saved = attempted.told.size > 0 && rest.length > 0 ? tx.query('SAVEPOINT unquestioned') : null;
  // What failed may be shown once others are: a parent, a value given up.
  for (let left = Infinity; rest.length > 0 && rest.length < left; ) {
    left = rest.length;
    refused.clear();
    await Promise.all([saved, attempt(tx, rest, attempted)]);
    rest = [...refused.keys()];
  }
  const unshown = new Map<Change, Unshown>();
  for (const [change, why] of orphaned) unshown.set(change, { ...why, removed: true });
  for (const [{ change }, why] of refused) unshown.set(change, { reason: orphaned.get(change)?.reason ?? why, awaits: partial.has(change) ? AGAIN : null, removed: false });
  return { changes, unshown };
}

interface Attempt {
  readonly changes: readonly Change[];
  readonly refused: Map<Goal, string>;
  /** Constraints whose breach is told. */
  readonly told: ReadonlySet<string>;
}

async function attempt(tx: Transaction, goals: readonly Goal[], attempted: Attempt): Promise<void> {
  const { refused, told } = attempted;
  // What is checked late is checked before the transaction ends, when nothing could be set aside any more.
  const saved = tx.query('SAVEPOINT rows; SET CONSTRAINTS ALL DEFERRED');
  try {
    await Promise.all([saved, writeRows(tx, goals, told.size === 0)]);
    await tx.query('SET CONSTRAINTS ALL IMMEDIATE; RELEASE SAVEPOINT rows');
  } catch (error) {
    if (!(error instanceof RowError) && !isRefusal(error)) throw error;
    if (sqlState(error) === '23505' && told.has((error as { constraint?: string }).constraint ?? '')) await tellClash(tx, attempted);
    await tx.query('ROLLBACK TO SAVEPOINT rows');
    const [only] = goals;
    if (goals.length === 1 && only !== undefined) {
      await refuseIfCreatedMeanwhile(tx, goals);
      refused.set(only, reason(error));
      return;
    }
    const writes = goals.filter(({ fields }) => fields !== null);
    if (refused.size >= MANY && writes.length > 0) {
      const deletions = goals.filter(({ fields }) => fields === null);
      if (deletions.length > 0) await attempt(tx, deletions, attempted);
      await attemptEach(tx, writes, attempted);
      return;
    }
    const half = Math.ceil(goals.length / 2);
    await attempt(tx, goals.slice(0, half), attempted);
    await attempt(tx, goals.slice(half), attempted);
  }
}

async function tellClash(tx: Transaction, { changes }: Attempt): Promise<never> {
  await tx.query('ROLLBACK TO SAVEPOINT unquestioned');
  throw new ClashError(changes);
}

/** Writes rows one by one, on the server. */
async function attemptEach(tx: Transaction, goals: readonly Goal[], attempted: Attempt): Promise<void> {
  const { refused, told } = attempted;
  const statements: string[] = [];
  const kinds = new Map<string, number>();
  const kindOf = (write: Write, kind: string): number => {
    const known = kinds.get(`${kind} ${write.table.name}`) ?? statements.push(fromJson(write));
    kinds.set(`${kind} ${write.table.name}`, known);
    return known;
  };
  const asked = goals.map(({ before: { table, row } }) => (row === null ? kindOf(insertOf(table, []), 'insert') : kindOf(updateOf(table, []), 'update')));
  const data = `[${goals.map((goal) => JSON.stringify(encodeRow(goal.before.table, goal))).join(',')}]`;
  const failed = await tx.query('SELECT n, state, message, detail FROM replication.try_each($1, $2, $3)', [statements, asked, data]);
  await refuseIfCreatedMeanwhile(tx, failed.map(([n]) => goals[Number(n)] as Goal));
  const clashes = failed.some(([, state, message]) => state === '23505' && [...told].some((name) => message?.includes(`"${name}"`)));
  if (clashes) await tellClash(tx, attempted);
  for (const [n, state, message, detail] of failed) {
    const goal = goals[Number(n)] as Goal;
    refused.set(goal, state === 'RQ001' ? changedBy(goal.before.table, goal.before.key) : reason({ message, detail }));
  }
}

/** A local writer created the same key after the record was read: everything is read again, with its write. */
async function refuseIfCreatedMeanwhile(tx: Transaction, goals: readonly Goal[]): Promise<void> {
  for (const tables of byCircle(goals)) {
    for (const [{ table, keyColumn }, own] of tables) {
      const keys = own.filter(({ before }) => before.row === null).map(({ before }) => before.key);
      if (keys.length === 0) continue;
      const [found] = await tx.query(`SELECT k.key FROM unnest($1::text[]) AS k (key) JOIN ${table} t ON ${matchesKey('t', keyColumn, 'k.key')} LIMIT 1`, [keys]);
      if (found) throw new RetryTransaction(`a row with key ${found[0]} was created meanwhile`);
    }
  }
}

async function writeRows(tx: Transaction, goals: readonly Goal[], park: boolean): Promise<void> {
  const circles = byCircle(goals);
  // Children that are about to be pointed elsewhere have to be first; otherwise deletions are, since they give up values that only one row may have.
  const late: Deletions[] = [];
  for (const tables of circles.toReversed()) {
    const deletions = [...tables].map(([table, own]) => [table, own.filter(({ fields }) => fields === null).map(({ before }) => before.key)] as const);
    if ((await livingChild(tx, deletions)) === null) await deleteRows(tx, deletions);
    else late.push(deletions);
  }
  for (const tables of circles) {
    if (park) for (const [table, own] of tables) await writeExactly(tx, [updateOf(table, parkedOf(table, own))]);
    await writeExactly(
      tx,
      [...tables].flatMap(([, own]) => writesOf(own.filter(({ fields }) => fields !== null))),
    );
  }
  for (const deletions of late) {
    const left = await livingChild(tx, deletions);
    if (left !== null) throw new RowError(`it is deleted, and a row of ${left} still belongs to it that would go or change with it. It waits until that row does not, or is set aside.`);
    await deleteRows(tx, deletions);
  }
}

/** By table, the keys of rows that go. */
type Deletions = readonly (readonly [ModelTable, readonly string[]])[];

/** What makes or changes these rows of one table: values are given up before others take them. */
function writesOf(goals: readonly Goal[]): Write[] {
  const [first] = goals;
  if (first === undefined) return [];
  const { table } = first.before;
  return [updateOf(table, goals.filter(({ before }) => before.row !== null)), insertOf(table, goals.filter(({ before }) => before.row === null))].filter(({ goals: own }) => own.length > 0);
}

/** Tables that refer to each other in a circle are written together; all others each alone, parents first. */
function byCircle(goals: readonly Goal[]): ReadonlyMap<ModelTable, Goal[]>[] {
  const circles = new Map<string, Map<ModelTable, Goal[]>>();
  for (const goal of goals) {
    const { table } = goal.before;
    const tables = circles.get(table.circle) ?? new Map<ModelTable, Goal[]>();
    circles.set(table.circle, tables);
    const own = tables.get(table);
    if (own) own.push(goal);
    else tables.set(table, [goal]);
  }
  return [...circles.values()];
}

/** A row, in words, that belongs to rows that go and does not go with them; null where there is none. The parents' rows are locked: no child can come any more. */
async function livingChild(tx: Transaction, deletions: Deletions): Promise<string | null> {
  for (const [model, keys] of deletions) {
    for (const reference of keys.length === 0 ? [] : model.children) {
      const { child, columns } = reference;
      const going = deletions.find(([{ name }]) => name === child.model);
      const others = going === undefined ? '' : ` WHERE c.${going[0].keyColumn.column}::text NOT IN (SELECT unnest($2::text[]))`;
      const values = columns.map((column) => `c.${column.child.column}::text`).join(', ');
      const [found] = await tx.query(
        `SELECT concat_ws(', ', ${values}) FROM unnest($1::text[]) AS k (key) JOIN ${model.table} t ON ${matchesKey('t', model.keyColumn, 'k.key')}
           JOIN ${child.table} c ON ${joined(reference)}${others} LIMIT 1`,
        [keys, ...(going === undefined ? [] : [going[1]])],
      );
      if (found) return `${child.table}, Key (${columns.map((column) => column.child.column.slice(1, -1)).join(', ')})=(${found[0]}),`;
    }
  }
  return null;
}

async function deleteRows(tx: Transaction, deletions: Deletions): Promise<void> {
  const own = deletions.filter(([, keys]) => keys.length > 0);
  if (own.length === 0) return;
  const deleted = own.map(
    ([{ table, keyColumn }], n) => `d${n} AS (DELETE FROM ${table} t USING unnest($${n + 1}::text[]) AS k (key) WHERE ${matchesKey('t', keyColumn, 'k.key')} RETURNING 1)`,
  );
  const counts = own.map((_, n) => `(SELECT count(*) FROM d${n})`);
  const [gone] = await tx.query(`WITH ${deleted.join(', ')} SELECT ${counts.join(', ')}`, own.map(([, keys]) => keys));
  const kept = own.find(([, keys], n) => Number(gone?.[n]) < keys.length);
  if (kept) throw new RowError(`a trigger of ${kept[0].table} keeps it from being deleted. ${EXEMPT}`);
}

/** Rows without the unique values that are to change: a statement cannot swap them where each row is checked as it is written. */
function parkedOf(table: ModelTable, goals: readonly Goal[]): Goal[] {
  return goals.flatMap((goal): Goal[] => {
    const { row, key } = goal.before;
    if (row === null || goal.fields === null) return [];
    const moving = table.unique.filter((unique) => uniqueValue(unique, row) !== uniqueValue(unique, goal.fields));
    const fields = moving.reduce<Fields>((left, unique) => yieldValue(unique, key, left) ?? left, row);
    return moving.length > 0 ? [{ ...goal, fields }] : [];
  });
}

function reason(error: unknown): string {
  const { message, detail } = error as { message: string; detail?: string | null };
  return detail ? `${message}: ${detail}` : message;
}
