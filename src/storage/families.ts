/**
 * Which records may not be shown because of their parents.
 *
 * A record whose parent is not shown is not shown either, on any replica, whatever the order in which the two arrived and whatever the foreign key would do on deletion: otherwise
 * replicas of equal states would show unequal tables, or a cascade would take along in silence what somebody wrote. So before rows are written, the children of what leaves its
 * table are looked up and leave it too, theirs after them, with their states as they are; they wait until the parent is back or they are pointed elsewhere.
 */
import { createHash } from 'node:crypto';

import { sameFields, type Fields } from '../replication/version.ts';
import type { Change } from './changes.ts';
import { sqlState, type Transaction } from './database.ts';
import { originOf, readLocked, viewOf } from './records.ts';
import type { Replica } from './replica.ts';
import { matchesKey, showFields, type ForeignKey, type ModelTable } from './tables.ts';

/** A change that is not shown for want of a parent. */
export interface Orphaned {
  readonly reason: string;
  /** Names the missing parent; `tokensOf` gives the same for the parent's own record. */
  readonly awaits: string;
}

export interface Families {
  /** The changes given, and those of the children that have to leave with their parents. */
  readonly changes: readonly Change[];
  readonly orphaned: ReadonlyMap<Change, Orphaned>;
  /** The changes with more children than could be set aside at once: they are to be tried again. */
  readonly partial: ReadonlySet<Change>;
}

/** Children that one transaction sets aside at most; a deletion that has more waits, and is tried again, until all are. */
const CHILDREN_AT_ONCE = 5000;

/** Finds, of changes about to be shown, those that lack a parent, and the children in the tables that will lack theirs. */
export async function findOrphans(tx: Transaction, replica: Replica, given: readonly Change[]): Promise<Families> {
  if (given.every(({ before: { table } }) => table.parents.length === 0 && table.children.length === 0)) return { changes: given, orphaned: new Map(), partial: new Set() };
  const changes = new Map(given.map((change) => [recordId(change), change]));
  const orphaned = new Map<Change, Orphaned>();
  let suspects = given.filter((change) => isLiving(change) && !isShown(change));
  const asked = new Set<Change>();
  const partial = new Set<Change>();
  for (;;) {
    const leaving = [...changes.values()].filter((change) => !asked.has(change) && leaves(change, orphaned));
    for (const change of leaving) asked.add(change);
    const touched = await childrenOf(tx, replica, leaving, changes, partial);
    suspects = [...new Set([...suspects, ...touched])].filter((change) => !orphaned.has(change));
    const lacking = await lackParents(tx, suspects, changes, orphaned);
    if (lacking.size === 0) return { changes: [...changes.values()], orphaned, partial };
    for (const [change, why] of lacking) orphaned.set(change, why);
  }
}

/** What the children of these records wait for while they are not shown. */
export function tokensOf(change: Change): string[] {
  const { table, key } = change.before;
  if (table.children.length === 0 || !isLiving(change)) return [];
  const values = valuesOf(table, key, rowOf(change));
  return table.children.flatMap((reference) => {
    const tuple = reference.columns.map(({ parent }) => (parent.field === null ? null : (values[parent.field] ?? null)));
    return tuple.includes(null) ? [] : [tokenOf(reference, tuple)];
  });
}

function isLiving({ view }: Change): boolean {
  return view.fields !== null;
}

/** The row that shows a change; null: there is to be none. */
export function rowOf({ before: { table }, view }: Change): Fields | null {
  return view.fields && showFields(table, view.fields);
}

/** True where the row already holds what is to be shown. */
function isShown(change: Change): boolean {
  return sameFields(rowOf(change), change.before.row);
}

/** True where the row that others may refer to goes, or gives up a value that they refer to. */
function leaves(change: Change, orphaned: ReadonlyMap<Change, Orphaned>): boolean {
  const { before, view } = change;
  if (before.row === null || before.table.children.length === 0) return false;
  if (view.fields === null || orphaned.has(change)) return true;
  const [now, then] = [valuesOf(before.table, before.key, before.row), valuesOf(before.table, before.key, rowOf(change))];
  return before.table.children.some(({ columns }) => columns.some(({ parent: { field } }) => field !== null && now[field] !== then[field]));
}

/** The living children in the tables of rows that leave; those that are not among the changes yet become changes, their captured writes folded in. */
async function childrenOf(
  tx: Transaction,
  replica: Replica,
  leaving: readonly Change[],
  changes: Map<string, Change>,
  partial: Set<Change>,
): Promise<Change[]> {
  const found: Change[] = [];
  for (const [parent, own] of byTable(leaving)) {
    const keys = own.map(({ before }) => before.key);
    for (const reference of parent.children) {
      const table = reference.child.model === null ? undefined : replica.tables.get(reference.child.model);
      // Nothing is known of its rows: the deletion waits for them.
      if (table === undefined) continue;
      const rows = await tx.query(
        `SELECT DISTINCT c.${table.keyColumn.column}::text FROM unnest($1::text[]) AS k (key) JOIN ${parent.table} t ON ${matchesKey('t', parent.keyColumn, 'k.key')}
           JOIN ${table.table} c ON ${joined(reference)} LIMIT ${CHILDREN_AT_ONCE}`,
        [keys],
      );
      const unknown: string[] = [];
      const known = changes.size;
      for (const [key] of rows) {
        const change = changes.get(`${table.name} ${key}`);
        if (change === undefined) unknown.push(key as string);
        else if (isLiving(change)) found.push(change);
      }
      for (const before of await readLocked(tx, replica, table, unknown)) {
        // A row that replication knows nothing of keeps its parent; one that went while its lock was waited for needs none.
        if (before.settled.length === 0 || before.row === null) continue;
        const change: Change = { before, state: before.settled, origin: originOf(before), view: viewOf(replica, before, before.settled) };
        changes.set(recordId(change), change);
        if (isLiving(change)) found.push(change);
      }
      if (rows.length === CHILDREN_AT_ONCE && changes.size > known) for (const change of own) partial.add(change);
    }
  }
  return found;
}

/** Those of `suspects` with a parent that will neither be in its table nor is among the changes about to be shown. */
async function lackParents(
  tx: Transaction,
  suspects: readonly Change[],
  changes: ReadonlyMap<string, Change>,
  orphaned: ReadonlyMap<Change, Orphaned>,
): Promise<Map<Change, Orphaned>> {
  const lacking = new Map<Change, Orphaned>();
  for (const [table, own] of byTable(suspects)) {
    for (const reference of table.parents) {
      if (reference.columns.some(({ child }) => child.field === null)) continue;
      const referring = own
        .map((change) => {
          const values = valuesOf(table, change.before.key, rowOf(change));
          return { change, tuple: reference.columns.map(({ child }) => values[child.field as string] ?? null) };
        })
        .filter(({ change, tuple }) => !tuple.includes(null) && !lacking.has(change));
      if (referring.length === 0) continue;
      const parents = [...changes.values()].filter(({ before }) => before.table.name === reference.parent.model);
      const coming = parents.filter((change) => isLiving(change) && !orphaned.has(change)).map((change) => {
        const values = valuesOf(change.before.table, change.before.key, rowOf(change));
        return reference.columns.map(({ parent }) => (parent.field === null ? null : (values[parent.field] ?? null)));
      });
      for (const n of await unmatched(tx, reference, referring.map(({ tuple }) => tuple), coming, parents)) {
        const { change, tuple } = referring[n] as (typeof referring)[number];
        const columns = reference.columns.map(({ child }) => child.column.slice(1, -1)).join(', ');
        lacking.set(change, {
          reason: `foreign key ${reference.name}: its parent in ${reference.parent.table}, Key (${columns})=(${tuple.join(', ')}), is deleted, waits itself, or has not come yet. It is shown when that is there, or when it is pointed elsewhere.`,
          awaits: tokenOf(reference, tuple),
        });
      }
    }
  }
  return lacking;
}

/** Which of the tuples match neither a row that stays in the parents' table as it is nor a tuple of those coming. The database compares, as the foreign key would. */
async function unmatched(
  tx: Transaction,
  { parent, columns }: ForeignKey,
  tuples: readonly (readonly (string | null)[])[],
  coming: readonly (readonly (string | null)[])[],
  changing: readonly Change[],
): Promise<number[]> {
  const [key] = changing.map(({ before }) => before.table.keyColumn.column);
  const typed = columns.map((_, i) => `, c${i} text`).join('');
  const match = (row: string, value: (i: number) => string): string => columns.map(({ child }, i) => `${value(i)} = ${row}.c${i}::${child.type}`).join(' AND ');
  const stays = key === undefined ? '' : ` AND p.${key}::text NOT IN (SELECT json_array_elements_text($3))`;
  await tx.query('SAVEPOINT families');
  try {
    const rows = await tx.query(
      `SELECT x.n FROM json_to_recordset($1) AS x (n integer${typed})
        WHERE NOT EXISTS (SELECT FROM ${parent.table} p WHERE ${match('x', (i) => `p.${columns[i]?.parent.column}`)}${stays})
          AND NOT EXISTS (SELECT FROM json_to_recordset($2) AS y (n integer${typed}) WHERE ${match('x', (i) => `y.c${i}::${columns[i]?.parent.type}`)})`,
      [encode(tuples), encode(coming), ...(key === undefined ? [] : [JSON.stringify(changing.map(({ before }) => before.key))])],
    );
    await tx.query('RELEASE SAVEPOINT families');
    return rows.map(([n]) => Number(n));
  } catch (error) {
    // A value that is none of its type: writing its row will say so, alone.
    if (sqlState(error)?.startsWith('22') !== true) throw error;
    await tx.query('ROLLBACK TO SAVEPOINT families');
    return [];
  }
}

function encode(tuples: readonly (readonly (string | null)[])[]): string {
  return JSON.stringify(tuples.map((tuple, n) => Object.fromEntries([['n', n], ...tuple.map((value, i) => [`c${i}`, value] as const)])));
}

/** `children c` belongs to `parents t`. */
export function joined({ columns }: ForeignKey): string {
  return columns.map(({ child, parent }) => `c.${child.column} = t.${parent.column}`).join(' AND ');
}

function valuesOf(table: ModelTable, key: string, fields: Fields | null): Record<string, string | null> {
  return { ...fields, [table.key.name]: key };
}

/** Of one length whatever the values, for the index. */
function tokenOf({ child, name }: ForeignKey, tuple: readonly (string | null)[]): string {
  return createHash('sha256').update(JSON.stringify([child.table, name, ...tuple])).digest('base64url');
}

function recordId({ before }: Change): string {
  return `${before.table.name} ${before.key}`;
}

function byTable(changes: readonly Change[]): Map<ModelTable, Change[]> {
  const tables = new Map<ModelTable, Change[]>();
  for (const change of changes) {
    const own = tables.get(change.before.table);
    if (own) own.push(change);
    else tables.set(change.before.table, [change]);
  }
  return tables;
}
