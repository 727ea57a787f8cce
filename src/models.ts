/**
 * Which models are replicated, and what they look like: told by the Prisma schema alone. A model is replicated because its comment there says `@replicated`.
 *
 * The comments come from the data model that the Pothos generator writes, the names of tables and columns from the client's own.
 */
import { getDatamodel } from './generated/pothos.ts';
import type { PrismaClient } from './generated/prisma/client.ts';
import type { ReplicatedField } from './replication/model.ts';
import type { ModelSource } from './storage/tables.ts';

/** As the Pothos generator writes it, as far as it is of use here. */
interface DocumentedModel {
  readonly documentation?: string;
  readonly primaryKey: { readonly fields: readonly string[] } | null;
  readonly fields: readonly {
    readonly name: string;
    readonly type: string;
    readonly kind: string;
    readonly isId: boolean;
    readonly isRequired: boolean;
    readonly isList: boolean;
  }[];
}

/** As the client holds it: names in the database, where they differ. */
interface NamedModel {
  readonly dbName: string | null;
  readonly schema?: string | null;
  readonly fields: readonly { readonly name: string; readonly dbName?: string | null }[];
}

const MARK = /(^|\s)@replicated(\s|$)/m;

/**
 * The models marked `/// @replicated`, in the order of their names.
 *
 * @throws Error where one has no single-field key: its records could not be named.
 */
export function replicatedModels(prisma: PrismaClient): ModelSource[] {
  const documented = (getDatamodel() as unknown as { datamodel: { models: Record<string, DocumentedModel> } }).datamodel.models;
  const { _runtimeDataModel: named } = prisma as unknown as { readonly _runtimeDataModel: { readonly models: Record<string, NamedModel> } };
  return Object.entries(documented)
    .filter(([, model]) => MARK.test(model.documentation ?? ''))
    .map(([name, model]) => describe(name, model, named.models[name] as NamedModel))
    .toSorted((a, b) => (a.name < b.name ? -1 : 1));
}

function describe(name: string, model: DocumentedModel, named: NamedModel): ModelSource {
  const columns = new Map(named.fields.map((field) => [field.name, field.dbName ?? field.name]));
  const stored = model.fields.filter(({ kind }) => kind === 'scalar' || kind === 'enum');
  const fields = stored.map(
    (field): ReplicatedField => ({ name: field.name, type: field.type, nullable: !field.isRequired, list: field.isList }),
  );
  const key = fields.find((_field, i) => stored[i]?.isId);
  if (key === undefined) {
    throw new Error(
      `model ${name} is marked @replicated but has no field with @id (keys of several fields are not supported). Give it one, or take the mark away.`,
    );
  }
  return {
    name,
    key,
    fields: fields.filter((field) => field !== key),
    schema: named.schema ?? null,
    table: named.dbName ?? name,
    columns: Object.fromEntries(columns),
  };
}
