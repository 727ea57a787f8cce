/**
 * Showing what was carried: a field gets its column, and versions that hold values of it have been here before.
 *
 * All of it happens in the transaction that installs the field's capture, with the table locked against writers, so that nobody ever writes over a carried value that the row did not show.
 */
import { show, type Policy, type View } from '../replication/policy.ts';
import type { Fields } from '../replication/version.ts';
import { merge } from '../replication/merge.ts';
import { writeUnseen } from '../replication/write.ts';
import { listOf } from './capture.ts';
import { writeChanges, type Change } from './changes.ts';
import { literal, type Transaction } from './database.ts';
import { readRecords, settle, type SettledRecord } from './records.ts';
import type { Now, Replica } from './replica.ts';
import { materialise } from './rows.ts';
import { showFields, type ModelTable } from './tables.ts';

const AT_ONCE = 1_000;

/**
 * Brings rows and states together for fields that are new here.
 *
 * @param now - The state lock is held.
 */
export async function showCarried(
  tx: Transaction,
  replica: Replica,
  now: Now,
  table: ModelTable,
  added: readonly string[],
): Promise<void> {
  const [row] = await tx.query('SELECT policy FROM replication.replica');
  // The rows still show what they show under the policy before this start.
  const before = { ...replica, policy: row?.[0] as Policy };
  await logUncaptured(tx, table, added);
  for (let last = ''; ; ) {
    const rows = await tx.query('SELECT key FROM replication.record WHERE model = $1 AND carries AND key COLLATE "C" > $2 ORDER BY key COLLATE "C" LIMIT $3', [table.name, last, AT_ONCE]);
    const keys = rows.map(([key]) => key as string);
    if (keys.length === 0) return;
    last = keys.at(-1) as string;
    await showHeld(tx, before, (await readRecords(tx, table, keys)).map((record) => settle(record, before)));
    const records = (await readRecords(tx, table, keys)).map((record) => settle(record, before));
    await writeChanges(tx, before, now, records.map((record) => toChange(before, now, record, added)));
  }
}

/** A row whose state cannot be shown holds an earlier version, and is to show all of that: the next write to it has seen it. */
async function showHeld(tx: Transaction, replica: Replica, records: readonly SettledRecord[]): Promise<void> {
  await materialise(
    tx,
    replica,
    records.flatMap((before) => {
      const { waiting, row, held, settled, masked } = before;
      if (waiting === null || row === null || !held?.fields || before.writes.length > 0) return [];
      // What gives way to another record's value goes on giving way.
      const given = Object.values(masked ?? {}).map((name) => [name, row[name] ?? null] as const);
      return [{ before, state: settled, origin: null, view: { fields: { ...held.fields, ...Object.fromEntries(given) }, version: held } }];
    }),
    'wait',
  );
}

/**
 * What was written to the new columns before there were triggers for them (a migration that fills them) counts as written now; where nothing was, they hold what a missing field shows.
 */
async function logUncaptured(tx: Transaction, { name, table, keyColumn, columns }: ModelTable, added: readonly string[]): Promise<void> {
  const fresh = columns.filter(({ field }) => added.includes(field.name));
  const written = fresh.map(({ column, field, type }) =>
    field.default === undefined ? `'t'` : `${column}::text COLLATE "C" IS DISTINCT FROM ${field.default === null ? 'NULL' : `${literal(field.default)}::${type}::text`}`,
  );
  await tx.query(
    `INSERT INTO replication.captured (at, incarnation, list, op, model, key, changed)
     SELECT clock_timestamp(), replication.incarnation_number(), $2, 'U', $1, t.${keyColumn.column}::text, ARRAY[${written.join(', ')}]::boolean[]
       FROM ${table} t WHERE (${written.join(' OR ')})
        AND NOT EXISTS (SELECT FROM replication.record r WHERE r.model = $1 AND r.key = t.${keyColumn.column}::text AND r.carries)`,
    [name, await listOf(tx, fresh.map(({ field }) => field.name))],
  );
}

function toChange(replica: Replica, { incarnation, clock }: { incarnation: string; clock: number }, before: SettledRecord, added: readonly string[]): Change {
  const { held, settled, view, waiting } = before;
  const self = `${replica.name}.${incarnation}`;
  const unseen = unseenValues(before, added);
  const shown: View = waiting === null ? view : { fields: held?.fields ?? null, version: held };
  const side = unseen === null ? [] : [writeUnseen(settled, shown, waiting === null ? replica.policy : 'manual', unseen, self, clock)];
  const state = merge(settled, side);
  return { before, state, origin: unseen === null && before.writes.length === 0 ? before.origin : null, view: show(state, replica.policy, self, view.version?.vector ?? before.shown) };
}

/** What the row holds in new columns that nothing captured and no carried value explains; null where it holds no such thing. */
function unseenValues({ table, row, view, held, waiting }: SettledRecord, added: readonly string[]): Fields | null {
  const meant = waiting === null ? view.fields : (held?.fields ?? null);
  if (row === null || meant === null) return null;
  const [unwritten, shown] = [showFields(table, {}), showFields(table, meant)];
  const names = added.filter((name) => row[name] !== unwritten[name] && row[name] !== shown[name]);
  return names.length === 0 ? null : Object.fromEntries(names.map((name) => [name, row[name] ?? null]));
}
