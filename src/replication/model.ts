/** What replication knows of a replicated model. The core, storage and peers take these descriptions and never name a model. */

export interface ReplicatedField {
  readonly name: string;
  /** The type in the Prisma schema: Int, String, DateTime, an enum's name, … */
  readonly type: string;
  readonly nullable: boolean;
  readonly list: boolean;
  /**
   * What a record shows that nobody who knew the field has written: the column's default where that is a constant, null where the column may be null. Undefined: the field must be written, or
   * is not looked up yet.
   */
  readonly default?: string | null | undefined;
}

export interface ReplicatedModel {
  readonly name: string;
  readonly key: ReplicatedField;
  /** All fields but the key, in the schema's order. */
  readonly fields: readonly ReplicatedField[];
}

/**
 * Why two replicas' descriptions of the models do not fit each other, and what to do, in words for the operator; null where they do.
 *
 * A field that one side alone has fits where its records can do without: they are shown with its default there, and carried unseen on the other side.
 */
export function modelMismatch(mine: readonly ReplicatedModel[], theirs: readonly ReplicatedModel[]): string | null {
  const theirNames = new Map(theirs.map((model) => [model.name, model]));
  for (const model of mine) {
    const other = theirNames.get(model.name);
    if (other === undefined) return `it does not replicate model ${model.name}. ${BOTH}`;
    theirNames.delete(model.name);
    const problem = fieldMismatch(model, other);
    if (problem !== null) return problem;
  }
  const [extra] = theirNames.keys();
  return extra === undefined ? null : `it replicates model ${extra}, which this replica does not. ${BOTH}`;
}

/** By model, the fields of each unique constraint. */
export type UniqueFields = Readonly<Record<string, readonly (readonly string[])[]>>;

/**
 * The unique constraints that one of two replicas alone has, in words for the operator of `mine`; null where both have the same. Both hold the same all the same: what collides gives way in the
 * tables of the one that has the constraint.
 */
export function uniqueMismatch(mine: UniqueFields, theirs: UniqueFields): string | null {
  const [here, there] = [without(mine, theirs), without(theirs, mine)];
  if (here.length > 0) {
    return `it has no unique constraint on ${here.join(' and on ')}, which this replica has: values that it gives twice are UNIQUE conflicts here. Once there are none, upgrade it`;
  }
  return there.length > 0 ? `it has a unique constraint on ${there.join(' and on ')}, which this replica lacks: values that are given twice here are UNIQUE conflicts there. Once there are none, upgrade this replica` : null;
}

/** The constraints of the models of both that only the first has, as `Model (field, field)`. */
function without(mine: UniqueFields, theirs: UniqueFields): string[] {
  return Object.entries(mine).flatMap(([model, own]) => {
    const others = theirs[model];
    if (others === undefined) return [];
    const known = new Set(others.map((fields) => fields.toSorted().join()));
    return own.filter((fields) => !known.has(fields.toSorted().join())).map((fields) => `${model} (${fields.join(', ')})`);
  });
}

const BOTH = 'Bring both to the same version of prisma/schema.prisma';

function fieldMismatch(mine: ReplicatedModel, theirs: ReplicatedModel): string | null {
  const model = mine.name;
  if (mine.key.name !== theirs.key.name || typeText(mine.key) !== typeText(theirs.key)) {
    return `the key of its model ${model} is ${theirs.key.name} ${typeText(theirs.key)}, here it is ${mine.key.name} ${typeText(mine.key)}. ${BOTH}`;
  }
  const others = new Map(theirs.fields.map((field) => [field.name, field]));
  for (const field of mine.fields) {
    const other = others.get(field.name);
    others.delete(field.name);
    const name = `${model}.${field.name}`;
    if (other === undefined) {
      if (!mayBeMissing(field)) return `it lacks field ${name}, which must be written here. Give ${name} a constant default here or let it be null, or upgrade that replica`;
    } else if (typeText(other) !== typeText(field)) {
      return `its field ${name} is ${typeText(other)}, here it is ${typeText(field)}. ${BOTH}`;
    } else if (field.nullable !== other.nullable && !(mayBeMissing(field) && mayBeMissing(other))) {
      const [open, strict] = field.nullable ? ['here', 'there'] : ['there', 'here'];
      return `its field ${name} may be null ${open}, but not ${strict}. Give ${name} a constant default ${strict} or let it be null, or bring both to the same version of prisma/schema.prisma`;
    }
  }
  for (const field of others.values()) {
    const name = `${model}.${field.name}`;
    if (!mayBeMissing(field)) return `it has field ${name}, which must be written and which this replica lacks. Give ${name} a constant default there or let it be null, or upgrade this replica`;
  }
  return null;
}

/** True where a record can be shown whose writers did not know the field. */
function mayBeMissing(field: ReplicatedField): boolean {
  return field.nullable || field.list || typeof field.default === 'string';
}

function typeText({ type, list }: ReplicatedField): string {
  return list ? `${type}[]` : type;
}
