/** What replication knows of a replicated model. The core, storage and peers take these descriptions and never name a model. */

export interface ReplicatedField {
  readonly name: string;
  /** The type in the Prisma schema: Int, String, DateTime, an enum's name, … */
  readonly type: string;
  readonly nullable: boolean;
  readonly list: boolean;
}

export interface ReplicatedModel {
  readonly name: string;
  readonly key: ReplicatedField;
  /** All fields but the key, in the schema's order. */
  readonly fields: readonly ReplicatedField[];
}

/**
 * Why two replicas' descriptions of the models do not fit each other, in words for the operator; null where they do.
 */
export function modelMismatch(mine: readonly ReplicatedModel[], theirs: readonly ReplicatedModel[]): string | null {
  const theirNames = new Map(theirs.map((model) => [model.name, model]));
  for (const model of mine) {
    const other = theirNames.get(model.name);
    if (other === undefined) return `it does not replicate model ${model.name}`;
    theirNames.delete(model.name);
    const [here, there] = [fieldTexts(model), fieldTexts(other)];
    const missing = here.filter((text) => !there.includes(text));
    const surplus = there.filter((text) => !here.includes(text));
    if (missing.length > 0 || surplus.length > 0) {
      const parts = [
        missing.length > 0 ? `it lacks ${missing.join(', ')}` : '',
        surplus.length > 0 ? `it has ${surplus.join(', ')}` : '',
      ].filter((part) => part !== '');
      return `its model ${model.name} has other fields: ${parts.join('; ')}`;
    }
  }
  const [extra] = theirNames.keys();
  return extra === undefined ? null : `it replicates model ${extra}, which this replica does not`;
}

function fieldTexts(model: ReplicatedModel): string[] {
  return [model.key, ...model.fields].map(
    (field) => `${field.name} ${field.type}${field.list ? '[]' : ''}${field.nullable ? '?' : ''}${field === model.key ? ' (key)' : ''}`,
  );
}
