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
  const since = Math.max(1, ...columns.map((column) => column.since));
  const values = columns.map(({ field, column }, i) => `${literal(`${i === 0 ? '' : ','}${JSON.stringify(field.name)}:`)} || coalesce(to_json(t.${column}::text)::text, 'null')`);
  const rows = await tx.query(
    `SELECT k.key, $3 || to_json(k.key)::text || ',' || left(r.version, -2) || ',"f":{' || ${values.join(' || ') || `''`} || '}}]]'
       FROM unnest($1::text[]) AS k (key)
       CROSS JOIN LATERAL (
         SELECT ${generation === 1 ? 'versions::text' : `regexp_replace(versions::text, '${MARK}', '')`} AS version FROM replication.record
          WHERE model = $2 AND key = k.key AND shown IS NULL AND waiting IS NULL AND masked IS NULL${since > 1 ? ` AND coalesce(substring(versions::text FROM '${MARK}'), '1')::integer >= ${since}` : ''} OFFSET 0
       ) r
       CROSS JOIN LATERAL (SELECT * FROM ${table.table} t WHERE ${matchesKey('t', keyColumn, 'k.key')} OFFSET 0) t
      WHERE r.version !~ '"(f":[{n]|x":{)'
        AND $4 = (SELECT generation FROM replication.generation WHERE model = $2)
        AND NOT EXISTS (SELECT FROM replication.log l WHERE l.model = $2 AND l.key = k.key OFFSET 0)`,
    [keys, name, `[${JSON.stringify(name)},`, generation],
  );
  return new Map(rows.map(([key, text]) => [key as string, text as string]));
}

/** Of which generation's fields a row holds all (see `StoredVersion`); missing, it is the first. A stamp of a field named `g` is no number. */
const MARK = ',"g":([0-9]+)';
