/**
 * Capture: triggers that log which fields of which records were written, whoever writes.
 *
 * Statement triggers with transition tables: measured against row triggers they halve the price of bulk writes and cost the same for single ones. They read nothing of
 * the record's state: a write's stamp and vector follow from the log's order when it is folded, so that a local write pays for one small insert.
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
    const definition = captureSql(table);
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

/** The statements that make a table's triggers, with a line `--` between them. */
function captureSql(described: ModelTable): string {
  // Two processes may know the same fields in different orders, and are to make the same triggers of them.
  const table = { ...described, columns: described.columns.toSorted((a, b) => (a.column < b.column ? -1 : 1)) };
  const key = table.keyColumn.column;
  const model = literal(table.name);
  const sameKey = `${exactly('o', table.keyColumn)} = ${exactly('n', table.keyColumn)}`;
  const plain = FIXED.test(table.keyColumn.type) && table.columns.every(({ type }) => EXACT.test(type) || FIXED.test(type));
  const insert = `INSERT INTO replication.log (model, key, op, clock, fields, incarnation)`;
  const changed = table.columns.map((column) => `CASE WHEN ${differs(column)} THEN ${literal(column.field.name)} END`).join(', ');
  const bodies = {
    insert: `${insert} SELECT ${model}, n.${key}::text, 'I', capture.clock, NULL, capture.here FROM new_rows n`,
    delete: `${insert} SELECT ${model}, o.${key}::text, 'D', capture.clock, NULL, capture.here FROM old_rows o`,
    // A changed key is a deletion and a creation.
    update: `${insert}
  SELECT ${model}, coalesce(n.${key}, o.${key})::text,
         CASE WHEN o.${key} IS NULL THEN 'I' WHEN n.${key} IS NULL THEN 'D' ELSE 'U' END, capture.clock,
         CASE WHEN o.${key} IS NOT NULL AND n.${key} IS NOT NULL THEN array_remove(ARRAY[${changed}]::text[], NULL) END, capture.here
    FROM old_rows o FULL JOIN new_rows n ON ${sameKey}
   WHERE o.${key} IS NULL OR n.${key} IS NULL OR ${table.columns.map(differs).join(' OR ') || 'false'}`,
  };
  const transitions = {
    insert: 'NEW TABLE AS new_rows',
    delete: 'OLD TABLE AS old_rows',
    update: 'OLD TABLE AS old_rows NEW TABLE AS new_rows',
  };
  const statements = EVENTS.flatMap((event) => {
    const name = triggerName(event, table.name);
    const fn = `replication.${quote(name)}`;
    return [
      `CREATE OR REPLACE FUNCTION ${fn}() RETURNS trigger LANGUAGE plpgsql
  SECURITY DEFINER SET search_path = pg_catalog, pg_temp${plain ? '' : TEXTS} AS $capture$
<<capture>>
DECLARE
  clock bigint;
  here text;
BEGIN
  IF current_setting('replication.applying', true) = 'on' THEN RETURN NULL; END IF;
  clock := replication.clock();
  here := replication.incarnation();
  ${bodies[event]};
  RETURN NULL;
END $capture$`,
      `DROP TRIGGER IF EXISTS ${quote(name)} ON ${table.table}`,
      `CREATE TRIGGER ${quote(name)} AFTER ${event.toUpperCase()} ON ${table.table}
  REFERENCING ${transitions[event]} FOR EACH STATEMENT EXECUTE FUNCTION ${fn}()`,
    ];
  });
  return [
    ...statements,
    `DROP TRIGGER IF EXISTS replication_refuse_truncate ON ${table.table}`,
    `CREATE TRIGGER replication_refuse_truncate BEFORE TRUNCATE ON ${table.table}
  FOR EACH STATEMENT EXECUTE FUNCTION replication.refuse_truncate()`,
  ].join('\n--\n');
}

function differs(column: Column): string {
  return `${exactly('o', column)} IS DISTINCT FROM ${exactly('n', column)}`;
}

/** A value in a form whose equality is that of its text: a column's own collation may call different texts equal. */
function exactly(row: 'o' | 'n', { column, type }: Column): string {
  return EXACT.test(type) ? `${row}.${column}` : `${row}.${column}::text COLLATE "C"`;
}
