/**
 * Capture: triggers that log which fields of which records were written, whoever writes.
 *
 * They read nothing of the record's state: a write's stamp and vector follow from the log's order when it is folded, so that a local write pays for one small insert. INSERT and DELETE are captured by
 * statement, with transition tables: bulk ones pay half of what rows one by one would, single ones the same. An UPDATE would have to join two transition tables, which is most of what a single one
 * then pays; it is captured by row, where the table's rows are all its own.
 */
import { texts } from './arrays.ts';
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
    const definition = captureSql(table, await ownRows(tx, table), await listOf(tx, ordered(table.columns).map(({ field }) => field.name)));
    if (installed.get(table.name) === definition) continue;
    await tx.query(`LOCK TABLE ${table.table} IN SHARE ROW EXCLUSIVE MODE`);
    for (const statement of definition.split('\n--\n')) await tx.query(statement);
    if (!installed.has(table.name)) {
      await tx.query(
        `INSERT INTO replication.captured (at, incarnation, op, model, key)
         SELECT clock_timestamp(), replication.incarnation_number(), 'I', ${literal(table.name)}, ${table.keyColumn.column}::text FROM ${table.table}`,
      );
    }
    await tx.query(
      `INSERT INTO replication.model (name, definition) VALUES ($1, $2) ON CONFLICT (name) DO UPDATE SET definition = excluded.definition`,
      [table.name, definition],
    );
  }
}

/** The number under which lines of the log mark these fields, in this order. */
export async function listOf(tx: Transaction, names: readonly string[]): Promise<number> {
  const [row] = await tx.query('SELECT replication.list_of($1::text[])', [texts(names)]);
  return Number(row?.[0]);
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

/** Two processes may know the same fields in different orders, and are to make the same triggers of them. */
function ordered(columns: readonly Column[]): readonly Column[] {
  return columns.toSorted((a, b) => (a.column < b.column ? -1 : 1));
}

/** The statements that make a table's triggers, with a line `--` between them. */
function captureSql(described: ModelTable, ownRowsOf: string | null, list: number): string {
  const table = { ...described, columns: ordered(described.columns) };
  const plain = FIXED.test(table.keyColumn.type) && table.columns.every(({ type }) => EXACT.test(type) || FIXED.test(type));
  const triggers = {
    insert: byStatement('NEW TABLE AS new_rows', capturedInserts(table)),
    update: ownRowsOf === null ? byStatement('OLD TABLE AS old_rows NEW TABLE AS new_rows', capturedUpdates(table, list)) : byRow(capturedUpdate(table, ownRowsOf, list)),
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

const LOG = 'INSERT INTO replication.captured (at, incarnation, list, op, model, key, changed)';

/** Whether what is written now is a peer's change. */
const APPLYING = `current_setting('replication.applying', true) = 'on'`;

interface Trigger {
  readonly granularity: string;
  readonly variables: string;
  readonly body: string;
}

/** A trigger that is called once a statement, and asks for the time and the incarnation once. */
function byStatement(tables: string, body: string): Trigger {
  return {
    granularity: `REFERENCING ${tables} FOR EACH STATEMENT`,
    variables: 'at timestamptz := clock_timestamp(); here bigint := replication.incarnation_number();',
    body: `IF ${APPLYING} THEN RETURN NULL; END IF;
  ${body}`,
  };
}

function byRow(body: string): Trigger {
  return { granularity: 'FOR EACH ROW', variables: 'changed boolean[];', body };
}

function capturedInserts({ name, keyColumn: { column: key } }: ModelTable): string {
  return `${LOG} SELECT capture.at, capture.here, NULL, 'I', ${literal(name)}, n.${key}::text, NULL FROM new_rows n`;
}

function capturedDeletes({ name, keyColumn: { column: key } }: ModelTable): string {
  return `${LOG} SELECT capture.at, capture.here, NULL, 'D', ${literal(name)}, o.${key}::text, NULL FROM old_rows o`;
}

/**
 * A changed key is a deletion and a creation; the record that another row becomes in the same statement is not deleted.
 *
 * Whatever reads the row names the table, by a condition that is always true and costs nothing once it is planned: sessions plan anew when a column's type changes, where they would fail otherwise.
 *
 * A single UPDATE pays for each expression and each node of a plan, which are made ready anew in each transaction: what is rare is asked together, and VALUES is a node less than a SELECT that asks for the time.
 */
function capturedUpdate({ name, table, keyColumn, columns }: ModelTable, oid: string, list: number): string {
  const key = keyColumn.column;
  const planned = `'${oid}'::regclass IS NOT NULL`;
  const line = (row: 'old' | 'new', op: string, fields: string): string =>
    `clock_timestamp(), replication.incarnation_number(), ${fields === 'NULL' ? 'NULL' : list}, '${op}', CASE WHEN ${planned} THEN ${literal(name)} END, ${row}.${key}::text, ${fields}`;
  return `IF ${planned} AND (${APPLYING} OR ${differs(keyColumn, 'old', 'new')}) THEN
    IF ${APPLYING} THEN RETURN NULL; END IF;
    ${LOG} SELECT ${line('old', 'D', 'NULL')} WHERE NOT EXISTS (SELECT FROM ${table} t WHERE t.${key} = old.${key} AND ${exactly('t', keyColumn)} = ${exactly('old', keyColumn)});
    ${LOG} VALUES (${line('new', 'I', 'NULL')});
    RETURN NULL;
  END IF;
  changed := CASE WHEN ${planned} THEN ${marksOf(columns, 'old', 'new')} END;
  IF true = ANY (changed) THEN
    ${LOG} VALUES (${line('new', 'U', 'capture.changed')});
  END IF`;
}

/** The same of all rows of a statement. */
function capturedUpdates({ name, keyColumn, columns }: ModelTable, list: number): string {
  const key = keyColumn.column;
  const updated = `o.${key} IS NOT NULL AND n.${key} IS NOT NULL`;
  return `${LOG}
  SELECT capture.at, capture.here, CASE WHEN ${updated} THEN ${list} END, CASE WHEN o.${key} IS NULL THEN 'I' WHEN n.${key} IS NULL THEN 'D' ELSE 'U' END,
         ${literal(name)}, coalesce(n.${key}, o.${key})::text, CASE WHEN ${updated} THEN ${marksOf(columns, 'o', 'n')} END
    FROM old_rows o FULL JOIN new_rows n ON ${exactly('o', keyColumn)} = ${exactly('n', keyColumn)}
   WHERE o.${key} IS NULL OR n.${key} IS NULL OR ${columns.map((column) => differs(column, 'o', 'n')).join(' OR ') || 'false'}`;
}

/** Of each field whether two rows differ in it. */
function marksOf(columns: readonly Column[], before: string, after: string): string {
  return `ARRAY[${columns.map((column) => differs(column, before, after)).join(', ')}]::boolean[]`;
}

function differs(column: Column, before: string, after: string): string {
  return `${exactly(before, column)} IS DISTINCT FROM ${exactly(after, column)}`;
}

/** A value in a form whose equality is that of its text: a column's own collation may call different texts equal. */
function exactly(row: string, { column, type }: Column): string {
  return EXACT.test(type) ? `${row}.${column}` : `${row}.${column}::text COLLATE "C"`;
}
