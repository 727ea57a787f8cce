/**
 * Records as texts of the wire, made by the database where a record has one version whose values are just its row's: most of what a feed carries. Read, decoded and encoded again here,
 * they take five times as long.
 */
import { literal, type Transaction } from './database.ts';
import { matchesKey, type ModelTable } from './tables.ts';

/**
 * @returns The JSON of `WireRecord` by key, for those of the records that are so plain; all others are left to `readRecords`.
 */
export async function plainTexts(tx: Transaction, table: ModelTable, keys: readonly string[]): Promise<ReadonlyMap<string, string>> {
  if (keys.length === 0) return new Map();
  const { name, keyColumn, columns, generation } = table;
  const values = columns.map(({ field, column }, i) => `${literal(`${i === 0 ? '' : ','}${JSON.stringify(field.name)}:`)} || coalesce(to_json(t.${column}::text)::text, 'null')`);
  const rows = await tx.query(
    `SELECT k.key, $3 || to_json(k.key)::text || ',' || left(r.version, -2) || ',"f":{' || ${values.join(' || ') || `''`} || '}}]]'
       FROM unnest($1::text[]) AS k (key)
       CROSS JOIN LATERAL (
         SELECT ${withoutGeneration(generation)} AS version FROM replication.record
          WHERE model = $2 AND key = k.key AND shown IS NULL AND waiting IS NULL AND masked IS NULL OFFSET 0
       ) r
       CROSS JOIN LATERAL (SELECT * FROM ${table.table} t WHERE ${matchesKey('t', keyColumn, 'k.key')} OFFSET 0) t
      WHERE r.version !~ '"(f":[{n]|g":[0-9]|x":{)'
        AND $4 = (SELECT generation FROM replication.generation WHERE model = $2)
        AND NOT EXISTS (SELECT FROM replication.log l WHERE l.model = $2 AND l.key = k.key OFFSET 0)`,
    [keys, name, `[${JSON.stringify(name)},`, generation],
  );
  return new Map(rows.map(([key, text]) => [key as string, text as string]));
}

/** A record's versions without the mark of this generation (see `StoredVersion`); one without that mark is of the first. Whatever has another, or values of its own, keeps a part that tells. */
function withoutGeneration(generation: number): string {
  const stored = 'versions::text';
  if (generation === 1) return stored;
  const mark = `,"g":${generation}`;
  return `CASE WHEN ${stored} ~ '${mark}[,}]' THEN regexp_replace(${stored}, '${mark}([,}])', '\\1') ELSE '"g":0' END`;
}
