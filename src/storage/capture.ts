/**
 * Capture: triggers that log which fields of which records were written, whoever writes.
 *
 * They read nothing of the record's state: a write's stamp and vector follow from the log's order when it is folded, so that a local write pays for one small insert. INSERT and DELETE are captured by
 * statement, with transition tables: bulk ones pay half of what rows one by one would, single ones the same. An UPDATE would have to join two transition tables, which is most of what a single one
 * then pays; it is captured by row, where the table's rows are all its own.
 */
import { literal, quote, type Transaction } from './database.ts';
import type { Column, ModelTable } from './tables.ts';

/** Types whose equality is that of their texts. The others are compared as texts: some have no equality, some call different texts equal. */
const EXACT = /^(integer|bigint|smallint|boolean|uuid|bytea|date|time(stamp)?(\(\d+\))? with(out)? time zone)$/;
/** Types whose texts no setting of a session changes. */
const FIXED = /^(integer|bigint|smallint|boolean|text|character varying(\(\d+\))?|uuid|numeric(\(\d+,\d+\))?|jsonb?)$/;
/** What the replica itself reads texts with (see database.ts), whatever the writer's session is set to. */
const TEXTS = ` SET TimeZone = 'UTC' SET DateStyle = 'ISO, MDY' SET IntervalStyle = 'postgres' SET extra_float_digits = 1 SET bytea_output = 'hex'`;

const EVENTS = ['insert', 'update', 'delete'] as const;

/**
 * Installs the triggers of each model where they are missing or another version's. Rows that are there already are logged as created now.
 */
export async function installCapture(tx: Transaction, tables: readonly ModelTable[]): Promise<void> {
  const installed = new Map(
    (await tx.query('SELECT name, definition FROM replication.model')).map(([name, definition]) => [name, definition]),
  );
  const replicated = new Set(tables.map(({ name }) => name));
  for (const model of installed.keys()) {
    if (!replicated.has(model as string)) await removeCapture(tx, model as string);
  }
  for (const table of tables) {
    const definition = captureSql(table, await ownRows(tx, table));
    if (installed.get(table.name) === definition) continue;
    await tx.query(`LOCK TABLE ${table.table} IN SHARE ROW EXCLUSIVE MODE`);
    for (const statement of definition.split('\n--\n')) await tx.query(statement);
    if (!installed.has(table.name)) {
      await tx.query(
        `INSERT INTO replication.log (model, key, op, clock, incarnation)
         SELECT ${literal(table.name)}, ${table.keyColumn.column}::text, 'I', replication.clock(), replication.incarnation() FROM ${table.table}`,
      );
    }
    await tx.query(
      `INSERT INTO replication.model (name, definition) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET definition = excluded.definition`,
      [table.name, definition],
    );
  }
}

/** Takes the triggers of models that are replicated no more off their tables. What replication knew of their records stays. */
async function removeCapture(tx: Transaction, model: string): Promise<void> {
  const rows = await tx.query(
    `SELECT t.tgrelid::regclass, t.tgname FROM pg_trigger t
      WHERE t.tgrelid = (SELECT tgrelid FROM pg_trigger WHERE tgname = $1 LIMIT 1) AND (t.tgname = 'replication_refuse_truncate' OR t.tgname = ANY($2))`,
    [triggerName('insert', model), EVENTS.map((event) => triggerName(event, model))],
  );
  for (const [table, trigger] of rows) await tx.query(`DROP TRIGGER ${quote(trigger as string)} ON ${table}`);
  await tx.query('DELETE FROM replication.log WHERE model = $1', [model]);
  await tx.query('DELETE FROM replication.model WHERE name = $1', [model]);
}

function triggerName(event: (typeof EVENTS)[number], model: string): string {
  return `capture_${event}_${model}`;
}

/** The table's number in the catalogue; null where it is one of partitions, or others inherit from it: rows that it shows lie in those, and call no trigger of its own. */
async function ownRows(tx: Transaction, { table }: ModelTable): Promise<string | null> {
  const [row] = await tx.query(`SELECT oid FROM pg_class WHERE oid = $1::regclass AND relkind = 'r' AND NOT relhassubclass`, [table]);
  return row?.[0] ?? null;
}

/** The statements that make a table's triggers, with a line `--` between them. */
function captureSql(described: ModelTable, ownRowsOf: string | null): string {
  // Two processes may know the same fields in different orders, and are to make the same triggers of them.
  const table = { ...described, columns: described.columns.toSorted((a, b) => (a.column < b.column ? -1 : 1)) };
  const plain = FIXED.test(table.keyColumn.type) && table.columns.every(({ type }) => EXACT.test(type) || FIXED.test(type));
  const triggers = {
    insert: byStatement('NEW TABLE AS new_rows', capturedInserts(table)),
    update:
      ownRowsOf === null
        ? byStatement('OLD TABLE AS old_rows NEW TABLE AS new_rows', capturedUpdates(table))
        : { granularity: 'FOR EACH ROW', variables: 'changed text[];', body: capturedUpdate(table, ownRowsOf) },
    delete: byStatement('OLD TABLE AS old_rows', capturedDeletes(table)),
  };
  const statements = EVENTS.flatMap((event) => {
    const name = triggerName(event, table.name);
    const fn = `replication.${quote(name)}`;
    const { granularity, variables, body } = triggers[event];
    return [
      `CREATE OR REPLACE FUNCTION ${fn}() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp${plain ? '' : TEXTS} AS $capture$
<<capture>>
DECLARE
  ${variables}
BEGIN
  IF current_setting('replication.applying', true) = 'on' THEN RETURN NULL; END IF;
  ${body};
  RETURN NULL;
END $capture$`,
      `DROP TRIGGER IF EXISTS ${quote(name)} ON ${table.table}`,
      `CREATE TRIGGER ${quote(name)} AFTER ${event.toUpperCase()} ON ${table.table}
  ${granularity} EXECUTE FUNCTION ${fn}()`,
    ];
  });
  return [
    ...statements,
    `DROP TRIGGER IF EXISTS replication_refuse_truncate ON ${table.table}`,
    `CREATE TRIGGER replication_refuse_truncate BEFORE TRUNCATE ON ${table.table}
  FOR EACH STATEMENT EXECUTE FUNCTION replication.refuse_truncate()`,
  ].join('\n--\n');
}

const LOG = 'INSERT INTO replication.log (model, key, op, clock, fields, incarnation)';

/** A trigger that is called once a statement, and asks for the time and the incarnation once. */
function byStatement(tables: string, body: string): { readonly granularity: string; readonly variables: string; readonly body: string } {
  return {
    granularity: `REFERENCING ${tables} FOR EACH STATEMENT`,
    variables: 'clock bigint := replication.clock(); here text := replication.incarnation();',
    body,
  };
}

function capturedInserts({ name, keyColumn: { column: key } }: ModelTable): string {
  return `${LOG} SELECT ${literal(name)}, n.${key}::text, 'I', capture.clock, NULL, capture.here FROM new_rows n`;
}

function capturedDeletes({ name, keyColumn: { column: key } }: ModelTable): string {
  return `${LOG} SELECT ${literal(name)}, o.${key}::text, 'D', capture.clock, NULL, capture.here FROM old_rows o`;
}

/**
 * A changed key is a deletion and a creation; the record that another row becomes in the same statement is not deleted.
 *
 * Whatever reads the row names the table, by a condition that is always true and costs nothing once it is planned: sessions plan anew when a column's type changes, where they would fail otherwise.
 */
function capturedUpdate({ name, table, keyColumn, columns }: ModelTable, oid: string): string {
  const key = keyColumn.column;
  const planned = `'${oid}'::regclass IS NOT NULL`;
  const line = (row: 'old' | 'new', op: string, fields: string): string =>
    `${LOG} SELECT ${literal(name)}, ${row}.${key}::text, '${op}', replication.clock(), ${fields}, replication.incarnation() WHERE ${planned}`;
  return `IF ${planned} AND ${differs(keyColumn, 'old', 'new')} THEN
    ${line('old', 'D', 'NULL')} AND NOT EXISTS (SELECT FROM ${table} t WHERE t.${key} = old.${key} AND ${exactly('t', keyColumn)} = ${exactly('old', keyColumn)});
    ${line('new', 'I', 'NULL')};
    RETURN NULL;
  END IF;
  changed := CASE WHEN ${planned} THEN ${changedOf(columns, 'old', 'new')} END;
  IF changed <> '{}' THEN
    ${line('new', 'U', 'capture.changed')};
  END IF`;
}

/** The same of all rows of a statement. */
function capturedUpdates({ name, keyColumn, columns }: ModelTable): string {
  const key = keyColumn.column;
  return `${LOG}
  SELECT ${literal(name)}, coalesce(n.${key}, o.${key})::text,
         CASE WHEN o.${key} IS NULL THEN 'I' WHEN n.${key} IS NULL THEN 'D' ELSE 'U' END, capture.clock,
         CASE WHEN o.${key} IS NOT NULL AND n.${key} IS NOT NULL THEN ${changedOf(columns, 'o', 'n')} END, capture.here
    FROM old_rows o FULL JOIN new_rows n ON ${exactly('o', keyColumn)} = ${exactly('n', keyColumn)}
   WHERE o.${key} IS NULL OR n.${key} IS NULL OR ${columns.map((column) => differs(column, 'o', 'n')).join(' OR ') || 'false'}`;
}

/** The fields in which two rows differ, as an array. */
function changedOf(columns: readonly Column[], before: string, after: string): string {
  return `array_remove(ARRAY[${columns.map((column) => `CASE WHEN ${differs(column, before, after)} THEN ${literal(column.field.name)} END`).join(', ')}]::text[], NULL)`;
}

function differs(column: Column, before: string, after: string): string {
  return `${exactly(before, column)} IS DISTINCT FROM ${exactly(after, column)}`;
}

/** A value in a form whose equality is that of its text: a column's own collation may call different texts equal. */
function exactly(row: string, { column, type }: Column): string {
  return EXACT.test(type) ? `${row}.${column}` : `${row}.${column}::text COLLATE "C"`;
}
