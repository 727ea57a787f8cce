/** The tables of the replicated models, as the database's catalogue describes them. */
import type { ReplicatedField, ReplicatedModel } from '../replication/model.ts';
import type { Fields } from '../replication/version.ts';
import type { UniqueKey } from '../replication/unique.ts';
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
  /** The foreign keys by which its rows belong to others. */
  readonly parents: readonly ForeignKey[];
  /** Those by which others belong to its rows. */
  readonly children: readonly ForeignKey[];
  /** The same for tables that refer to each other in a circle: their rows come and go in one statement, at whose end foreign keys are checked. */
  readonly circle: string;
  /** The constraints and indices by which no two rows have the same values of some fields, in the order of their names. */
  readonly unique: readonly UniqueKey[];
}

/** A foreign key of which at least one side is a replicated model. */
export interface ForeignKey {
  readonly name: string;
  readonly child: Side;
  readonly parent: Side;
  /** Pairs of columns. */
  readonly columns: readonly { readonly child: KeyColumn; readonly parent: KeyColumn }[];
}

export interface Side {
  /** Quoted, with its schema. */
  readonly table: string;
  /** Null where it is not replicated. */
  readonly model: string | null;
}

export interface KeyColumn {
  /** Quoted. */
  readonly column: string;
  readonly type: string;
  /** Null where the model has no such field. */
  readonly field: string | null;
}

/**
 * Looks the models' tables up; those that others refer to come first, so that rows are written parents first.
 *
 * @throws Error where a table or column is missing: the migrations do not fit the Prisma schema.
 */
export async function describeTables(tx: Transaction, sources: readonly ModelSource[]): Promise<ModelTable[]> {
  const tables: ModelTable[] = [];
  for (const source of sources) tables.push(await describeTable(tx, source));
  return parentsFirst(await withForeignKeys(tx, tables));
}

/** Describes a table anew, in place: another process has changed the model's fields since, and every holder of the description is to follow. */
export async function refreshTable(tx: Transaction, table: ModelTable): Promise<void> {
  const [source] = await adoptFields(tx, [table.source]);
  Object.assign(table, { ...(await describeTable(tx, source as ModelSource)), source: table.source, parents: table.parents, children: table.children, circle: table.circle });
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
    `SELECT a.attname, format_type(a.atttypid, a.atttypmod), n.nspname, c.relname, a.attnotnull, pg_get_expr(d.adbin, d.adrelid), (a.attmissingval::text::text[])[1]
       FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_attribute a ON a.attrelid = c.oid
       LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum AND a.attgenerated = ''
      WHERE c.oid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped`,
    [table],
  );
  const byName = new Map(rows.map((row) => [row[0] as string, row]));
  const [, , schema, relation] = rows[0] ?? [];
  const registered = await tx.query(`SELECT name, since, description->>'default' FROM replication.field WHERE model = $1`, [source.name]);
  const since = new Map(registered.map(([name, first]) => [name, Number(first)]));
  const stored = new Map(registered.map(([name, , text]) => [name, text ?? undefined]));
  const [generation] = await tx.query('SELECT generation FROM replication.generation WHERE model = $1', [source.name]);
  const describe = async (field: ReplicatedField): Promise<Column> => {
    const column = source.columns[field.name] ?? field.name;
    const [, type, , , required, expression, given] = byName.get(column) ?? [];
    if (typeof type !== 'string') {
      throw new Error(
        `table ${table} has no column ${quote(column)} for field ${source.name}.${field.name}. Make a migration that fits prisma/schema.prisma.`,
      );
    }
    const fixed = await constant(tx, expression, type);
    // What rows came to have that were there before the column: a default that it was given later is for new rows alone.
    const came = stored.get(field.name) ?? (field.list || fixed === undefined ? undefined : (given ?? undefined));
    const missing = required === 't' ? (came ?? fixed ?? (field.list ? '{}' : undefined)) : null;
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
    parents: [],
    children: [],
    circle: source.name,
    unique: await uniqueKeys(tx, table, columns),
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

/** What the catalogue says is unique over replicated fields alone. A partial index, or one over an expression, is not among them: what breaks it waits. */
async function uniqueKeys(tx: Transaction, table: string, columns: readonly Column[]): Promise<UniqueKey[]> {
  const rows = await tx.query(
    `SELECT c.relname, coalesce((to_jsonb(i) ->> 'indnullsnotdistinct')::boolean, false), json_agg(quote_ident(a.attname) ORDER BY k.n)
       FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
       JOIN unnest(i.indkey::int2[]) WITH ORDINALITY AS k (attnum, n) ON k.n <= i.indnkeyatts
       JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = k.attnum
      WHERE i.indrelid = to_regclass($1) AND i.indisunique AND NOT i.indisprimary AND i.indpred IS NULL AND i.indexprs IS NULL
      GROUP BY c.relname, i.indexrelid, to_jsonb(i) ORDER BY c.relname`,
    [table],
  );
  const known = new Map(columns.map((column) => [column.column.slice(1, -1).replaceAll('""', '"'), column]));
  return rows.flatMap(([name, nullsClaim, names]) => {
    const own = (JSON.parse(names as string) as string[]).map((each) => known.get(each.startsWith('"') ? each.slice(1, -1).replaceAll('""', '"') : each));
    if (own.includes(undefined)) return [];
    const keyed = own as Column[];
    return [{ name: name as string, fields: keyed.map(({ field }) => field.name), nullsClaim: nullsClaim === 't', yields: yielding(keyed, nullsClaim === 't') }];
  });
}

/** A field that may be null gives way as null; otherwise a text is marked. */
function yielding(columns: readonly Column[], nullsClaim: boolean): UniqueKey['yields'] {
  const nullable = nullsClaim ? undefined : columns.find(({ field }) => field.nullable);
  if (nullable) return { field: nullable.field.name, as: 'null', longest: null };
  const text = columns.find(({ field, type }) => !field.list && /^(text|citext|character varying(\(\d+\))?)$/.test(type));
  if (text === undefined) return null;
  const longest = /\((\d+)\)/.exec(text.type)?.[1];
  return { field: text.field.name, as: 'mark', longest: longest === undefined ? null : Number(longest) };
}

async function withForeignKeys(tx: Transaction, tables: readonly ModelTable[]): Promise<ModelTable[]> {
  const rows = await tx.query(
    `SELECT f.conname, child.n - 1, parent.n - 1, quote_ident(cn.nspname) || '.' || quote_ident(cc.relname), quote_ident(pn.nspname) || '.' || quote_ident(pc.relname),
            (SELECT json_agg(json_build_array(ca.attname, format_type(ca.atttypid, ca.atttypmod), pa.attname, format_type(pa.atttypid, pa.atttypmod)) ORDER BY k.n)
               FROM unnest(f.conkey, f.confkey) WITH ORDINALITY AS k (c, p, n)
               JOIN pg_attribute ca ON ca.attrelid = f.conrelid AND ca.attnum = k.c JOIN pg_attribute pa ON pa.attrelid = f.confrelid AND pa.attnum = k.p)
       FROM pg_constraint f
       JOIN pg_class cc ON cc.oid = f.conrelid JOIN pg_namespace cn ON cn.oid = cc.relnamespace
       JOIN pg_class pc ON pc.oid = f.confrelid JOIN pg_namespace pn ON pn.oid = pc.relnamespace
       LEFT JOIN unnest($1::regclass[]) WITH ORDINALITY AS child (t, n) ON child.t = f.conrelid
       LEFT JOIN unnest($1::regclass[]) WITH ORDINALITY AS parent (t, n) ON parent.t = f.confrelid
      WHERE f.contype = 'f' AND f.conparentid = 0 AND (child.n IS NOT NULL OR parent.n IS NOT NULL) ORDER BY f.conname`,
    [tables.map(({ table }) => table)],
  );
  const at = (index: string | null | undefined): ModelTable | undefined => (index === null || index === undefined ? undefined : tables[Number(index)]);
  const keys = rows.map(([name, child, parent, childTable, parentTable, columns]): ForeignKey => {
    const fieldOf = (table: ModelTable | undefined, column: string): string | null =>
      table === undefined ? null : ([table.keyColumn, ...table.columns].find((known) => known.column === column)?.field.name ?? null);
    return {
      name: name as string,
      child: { table: childTable as string, model: at(child)?.name ?? null },
      parent: { table: parentTable as string, model: at(parent)?.name ?? null },
      columns: (JSON.parse(columns as string) as [string, string, string, string][]).map(([own, ownType, other, otherType]) => ({
        child: { column: quote(own), type: ownType, field: fieldOf(at(child), quote(own)) },
        parent: { column: quote(other), type: otherType, field: fieldOf(at(parent), quote(other)) },
      })),
    };
  });
  const above = new Map(tables.map(({ name }) => [name, ancestors(name, keys)]));
  return tables.map((table) => ({
    ...table,
    parents: keys.filter(({ child }) => child.model === table.name),
    children: keys.filter(({ parent }) => parent.model === table.name),
    circle: [...(above.get(table.name) as ReadonlySet<string>)].filter((name) => above.get(name)?.has(table.name)).toSorted()[0] ?? table.name,
  }));
}

/** The models that one belongs to by foreign keys, near or far. */
function ancestors(model: string, keys: readonly ForeignKey[]): ReadonlySet<string> {
  const found = new Set<string>();
  const visit = (name: string): void => {
    for (const { child, parent } of keys) {
      if (child.model !== name || parent.model === null || found.has(parent.model)) continue;
      found.add(parent.model);
      visit(parent.model);
    }
  };
  visit(model);
  return found;
}

function parentsFirst(tables: readonly ModelTable[]): ModelTable[] {
  const ordered = new Set<ModelTable>();
  const visit = (table: ModelTable, path: readonly ModelTable[]): void => {
    for (const { parent } of table.parents) {
      const above = tables.find(({ name }) => name === parent.model);
      // A circle has no first, and needs none.
      if (above !== undefined && above !== table && !path.includes(above)) visit(above, [...path, table]);
    }
    ordered.add(table);
  };
  for (const table of tables) visit(table, []);
  return [...ordered];
}

/** A row's key is this text, to the letter: a column's type or collation may call different texts equal, and they are different records. The first half is for the index. */
export function matchesKey(row: string, { column, type }: Column, text: string): string {
  return `${row}.${column} = ${text}::${type} AND ${row}.${column}::text COLLATE "C" = ${text}`;
}
