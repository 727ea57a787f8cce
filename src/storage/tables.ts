/** The tables of the replicated models, as the database's catalogue describes them. */
import type { ReplicatedField, ReplicatedModel } from '../replication/model.ts';
import type { Fields } from '../replication/version.ts';
import { quote, type Transaction } from './database.ts';
import { adoptFields, sourceTable } from './fields.ts';

/** A model and the names of its table and columns in the Prisma schema. */
export interface ModelSource extends ReplicatedModel {
  /** Null: the search path's first schema. */
  readonly schema: string | null;
  readonly table: string;
  /** The column of each field, the key's included. */
  readonly columns: Readonly<Record<string, string>>;
}

export interface Column {
  readonly field: ReplicatedField;
  /** Quoted. */
  readonly column: string;
  /** As `format_type` writes it: `integer`, `timestamp(3) with time zone`, `"Role"`, … */
  readonly type: string;
  /** The generation of the model's fields that brought it. */
  readonly since: number;
}

/** A replicated model's table. */
export interface ModelTable extends ReplicatedModel {
  /** Quoted, with its schema. */
  readonly table: string;
  readonly keyColumn: Column;
  readonly columns: readonly Column[];
  /** How often its fields have changed. */
  readonly generation: number;
  readonly source: ModelSource;
  /** What would be deleted or changed with one of its rows by a foreign key: `children c` joined with this table as `t`. */
  readonly cascades: readonly { readonly child: string; readonly on: string; readonly key: string }[];
}

/**
 * Looks the models' tables up; those that others refer to come first, so that rows are written parents first.
 *
 * @throws Error where a table or column is missing: the migrations do not fit the Prisma schema.
 */
export async function describeTables(tx: Transaction, sources: readonly ModelSource[]): Promise<ModelTable[]> {
  const tables: ModelTable[] = [];
  for (const source of sources) tables.push(await describeTable(tx, source));
  return parentsFirst(tx, await withCascades(tx, tables));
}

/** Describes a table anew, in place: another process has changed the model's fields since, and every holder of the description is to follow. */
export async function refreshTable(tx: Transaction, table: ModelTable): Promise<void> {
  const [source] = await adoptFields(tx, [table.source]);
  Object.assign(table, { ...(await describeTable(tx, source as ModelSource)), source: table.source, cascades: table.cascades });
}

/** The row that shows these values: a column each. */
export function showFields({ columns }: ModelTable, fields: Fields): Fields {
  const row: Record<string, string | null> = {};
  for (const { field } of columns) {
    const { name } = field;
    row[name] = (Object.hasOwn(fields, name) ? fields[name] : null) ?? field.default ?? null;
  }
  return row;
}

async function describeTable(tx: Transaction, source: ModelSource): Promise<ModelTable> {
  const table = sourceTable(source);
  const rows = await tx.query(
    `SELECT a.attname, format_type(a.atttypid, a.atttypmod), n.nspname, c.relname, a.attnotnull, pg_get_expr(d.adbin, d.adrelid)
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
       LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum AND a.attgenerated = ''
      WHERE c.oid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped`,
    [table],
  );
  const byName = new Map(rows.map((row) => [row[0] as string, row]));
  const [, , schema, relation] = rows[0] ?? [];
  const since = new Map((await tx.query('SELECT name, since FROM replication.field WHERE model = $1', [source.name])).map(([name, first]) => [name, Number(first)]));
  const [generation] = await tx.query('SELECT generation FROM replication.generation WHERE model = $1', [source.name]);
  const describe = async (field: ReplicatedField): Promise<Column> => {
    const column = source.columns[field.name] ?? field.name;
    const [, type, , , required, expression] = byName.get(column) ?? [];
    if (typeof type !== 'string') {
      throw new Error(
        `table ${table} has no column ${quote(column)} for field ${source.name}.${field.name}. Make a migration that fits prisma/schema.prisma.`,
      );
    }
    const missing = required === 't' ? ((await constant(tx, expression, type)) ?? (field.list ? '{}' : undefined)) : null;
    return { field: { ...field, default: missing }, column: quote(column), type, since: since.get(field.name) ?? 1 };
  };
  const keyColumn = await describe(source.key);
  const columns: Column[] = [];
  for (const field of source.fields) columns.push(await describe(field));
  return {
    name: source.name,
    key: source.key,
    fields: columns.map(({ field }) => field),
    keyColumn,
    columns,
    table: `${quote(schema as string)}.${quote(relation as string)}`,
    generation: Number(generation?.[0] ?? 1),
    source,
    cascades: [],
  };
}

/** A literal, cast or not: the same on every replica and at any time. */
const CONSTANT = /^(\(?-?[\d.]+\)?|true|false|E?'(?:[^']|'')*'|ARRAY\[\])(::[\w\s".,()]+(\[\])?)?$/;

/** The text of a column's default where it is a constant; undefined for any other. */
async function constant(tx: Transaction, expression: string | null | undefined, type: string): Promise<string | undefined> {
  if (!expression || !CONSTANT.test(expression)) return undefined;
  const [row] = await tx.query(`SELECT ((${expression})::${type})::text`);
  return row?.[0] ?? undefined;
}

/** Finds the foreign keys between the tables that do more than refuse. */
async function withCascades(tx: Transaction, tables: readonly ModelTable[]): Promise<ModelTable[]> {
  const rows = await tx.query(
    `SELECT parent.n - 1, child.n - 1, (
              SELECT string_agg(format('c.%I = t.%I', ca.attname, pa.attname), ' AND ')
                FROM unnest(f.conkey, f.confkey) AS k (c, p)
                JOIN pg_attribute ca ON ca.attrelid = f.conrelid AND ca.attnum = k.c JOIN pg_attribute pa ON pa.attrelid = f.confrelid AND pa.attnum = k.p)
       FROM pg_constraint f
       JOIN unnest($1::regclass[]) WITH ORDINALITY AS child (t, n) ON child.t = f.conrelid
       JOIN unnest($1::regclass[]) WITH ORDINALITY AS parent (t, n) ON parent.t = f.confrelid
      WHERE f.contype = 'f' AND f.confdeltype IN ('c', 'n', 'd')`,
    [tables.map(({ table }) => table)],
  );
  return tables.map((table, index) => ({
    ...table,
    cascades: rows.flatMap(([parent, child, on]) => {
      const other = tables[Number(child)] as ModelTable;
      return Number(parent) === index ? [{ child: other.table, on: on as string, key: other.keyColumn.column }] : [];
    }),
  }));
}

async function parentsFirst(tx: Transaction, tables: readonly ModelTable[]): Promise<ModelTable[]> {
  const rows = await tx.query(
    `SELECT child.n - 1, parent.n - 1 FROM pg_constraint c
       JOIN unnest($1::regclass[]) WITH ORDINALITY AS child (t, n) ON child.t = c.conrelid
       JOIN unnest($1::regclass[]) WITH ORDINALITY AS parent (t, n) ON parent.t = c.confrelid
      WHERE c.contype = 'f'`,
    [tables.map(({ table }) => table)],
  );
  const ordered = new Set<ModelTable>();
  const visit = (index: number, path: readonly number[]): void => {
    for (const [child, parent] of rows) {
      // A circle has no first; what cannot be written yet waits for a second try.
      if (Number(child) === index && !path.includes(Number(parent))) visit(Number(parent), [...path, index]);
    }
    ordered.add(tables[index] as ModelTable);
  };
  tables.forEach((_table, index) => visit(index, []));
  return [...ordered];
}

/** A row's key is this text, to the letter: a column's type or collation may call different texts equal, and they are different records. The first half is for the index. */
export function matchesKey(row: string, { column, type }: Column, text: string): string {
  return `${row}.${column} = ${text}::${type} AND ${row}.${column}::text COLLATE "C" = ${text}`;
}
