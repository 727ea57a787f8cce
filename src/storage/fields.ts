/**
 * The fields that a database replicates, kept in it: several processes of different versions may run over one database while it is upgraded, and all of them must store the same of a version. So a
 * field goes on being replicated for as long as it has a column, whether or not the Prisma schema of this process knows it.
 */
import { quote, type Transaction } from './database.ts';
import type { ReplicatedField } from '../replication/model.ts';
import type { ModelSource } from './tables.ts';

/** What is stored of a field. */
interface Description extends Omit<ReplicatedField, 'name' | 'default'> {
  readonly column: string;
  /** What its column came with, where it may not be null: what records show that nobody who knew it has written, whatever default the column is given later. */
  readonly default?: string;
}

/** A model's table as SQL names it. */
export function sourceTable({ schema, table }: ModelSource): string {
  return schema === null ? quote(table) : `${quote(schema)}.${quote(table)}`;
}

/** The models with the fields that another process brought and that still have their column, unless it is another field's by now. */
export async function adoptFields(tx: Transaction, sources: readonly ModelSource[]): Promise<ModelSource[]> {
  const adopted: ModelSource[] = [];
  for (const source of sources) {
    const columnOf = (name: string): string => source.columns[name] ?? name;
    const own = [source.key, ...source.fields].map(({ name }) => name);
    const rows = await tx.query(
      `SELECT f.name, f.description FROM replication.field f JOIN pg_attribute a ON a.attname = f.description->>'column'
        WHERE f.model = $1 AND a.attrelid = to_regclass($2) AND a.attnum > 0 AND NOT a.attisdropped AND f.name <> ALL ($3) AND a.attname <> ALL ($4)
        ORDER BY a.attnum`,
      [source.name, sourceTable(source), own, own.map(columnOf)],
    );
    const extra = rows.map(([name, description]) => ({ name: name as string, ...(JSON.parse(description as string) as Description) }));
    adopted.push({
      ...source,
      fields: [...source.fields, ...extra.map(({ name, type, nullable, list }) => ({ name, type, nullable, list }))],
      columns: { ...source.columns, ...Object.fromEntries(extra.map(({ name, column }) => [name, column])) },
    });
  }
  return adopted;
}

/**
 * Stores which fields a model has, in a new generation where they are others than before.
 *
 * @returns The fields that are new in a model replicated before.
 */
export async function registerFields(tx: Transaction, source: ModelSource): Promise<string[]> {
  const { name: model, fields, columns } = source;
  const [found] = await tx.query('SELECT generation FROM replication.generation WHERE model = $1', [model]);
  const before = new Set((await tx.query('SELECT name FROM replication.field WHERE model = $1', [model])).map(([name]) => name as string));
  const names = fields.map(({ name }) => name);
  const added = names.filter((name) => !before.has(name));
  const changed = added.length > 0 || before.size + added.length > names.length;
  const generation = Number(found?.[0] ?? 0) + (found === undefined || changed ? 1 : 0);
  const described = fields.map(({ name, type, nullable, list }) => ({ name, description: { type, nullable, list, column: columns[name] ?? name } satisfies Description }));
  await tx.query('INSERT INTO replication.generation (model, generation) VALUES ($1, $2) ON CONFLICT (model) DO UPDATE SET generation = excluded.generation', [model, generation]);
  await tx.query('DELETE FROM replication.field WHERE model = $1 AND name <> ALL ($2)', [model, names]);
  await tx.query(
    `INSERT INTO replication.field (model, name, since, description) SELECT $1, name, $2, description FROM json_to_recordset($3) AS x (name text, description json)
     ON CONFLICT (model, name) DO UPDATE
       SET description = excluded.description::jsonb || jsonb_strip_nulls(jsonb_build_object('default', field.description->>'default'))`,
    [model, generation, JSON.stringify(described)],
  );
  return found === undefined ? [] : added;
}

/** Keeps what records show of each field that nobody has written. */
export async function keepDefaults(tx: Transaction, model: string, fields: readonly ReplicatedField[]): Promise<void> {
  await tx.query(
    `UPDATE replication.field f SET description = (f.description::jsonb - 'default') || jsonb_strip_nulls(jsonb_build_object('default', x."default"))
       FROM json_to_recordset($2) AS x (name text, "default" text) WHERE f.model = $1 AND f.name = x.name AND f.description->>'default' IS DISTINCT FROM x."default"`,
    [model, JSON.stringify(fields.map(({ name, default: shown }) => ({ name, default: shown ?? null })))],
  );
}
