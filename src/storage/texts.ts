/**
 * Records as texts of the wire, made by the database where a record has one version whose values are just its row's: most of what a feed carries. They come as one text for all of them, of which
 * nothing is looked at here; read, decoded and encoded again here, each record takes many times as long.
 */
import { literal, type Transaction } from './database.ts';
import { BATCH_BYTES, FRAME_BYTES, longValues, SHORT, versionBytes } from './sizes.ts';
import { matchesKey, type Column, type ModelTable } from './tables.ts';

/** Places in the feed, behind the first up to the second, without what the peer holds already and without records that have no state. */
export interface Range {
  readonly after: number;
  readonly end: number;
  readonly peerId: string;
  /** The peer takes records by column. */
  readonly byColumn: boolean;
}

/** What of a range fits so many bytes. */
export interface Texts {
  /** The JSON of `WireRecord` of each plain record, with commas between. */
  readonly text: string;
  /** The JSON of `WireColumns` of those that one write made and none has changed, one for each writer; all others are in `text`. */
  readonly columns: readonly string[];
  /** How many are in either. */
  readonly count: number;
  /** The keys of the others, which are left to `readRecords`. */
  readonly others: readonly string[];
  /** How many bytes all of them take, about. */
  readonly bytes: number;
  /** The place of the last of them, where more would not fit; `after` where none does. */
  readonly cut: number | null;
}

/**
 * One model's records of a range.
 *
 * @param least - The first is taken whatever its size.
 */
export async function readTexts(tx: Pick<Transaction, 'query'>, table: ModelTable, { after, end, peerId, byColumn }: Range, bytes: number, least: boolean): Promise<Texts> {
  const { name, keyColumn, columns, generation } = table;
  const since = Math.max(1, ...columns.map((column) => column.since));
  const values = columns.map(({ field, type }, i) => `${literal(`${i === 0 ? '' : ','}${JSON.stringify(field.name)}:`)} || coalesce(${quoted(`c${i}`, type)}, 'null')`);
  // Cut off by `left` where it ends otherwise, which counts letters, and takes longer.
  const open = `CASE WHEN version LIKE '${BARE}' THEN replace(version, ']}}]', ']}') WHEN version LIKE '${RESOLVED}' THEN replace(version, ']}]', ']') ELSE left(version, -2) END`;
  const fields = JSON.stringify(columns.map(({ field }) => field.name));
  const text = `${literal(`[${JSON.stringify(name)},`)} || ${quoted('key', keyColumn.type)} || ',' || ${open} || ',"f":{' || ${values.join(' || ') || `''`} || '}}]]'`;
  const rows = await tx.query(
    // IS TRUE keeps the planner from the indices by model, of which it thinks well until the statistics of a table that has just grown are there.
    `WITH sized AS (
       SELECT r.position, r.key, r.versions::text AS stored, t.*, r.bytes + coalesce(t.bytes, 0) AS own, sum(r.bytes + coalesce(t.bytes, 0)) OVER (ORDER BY r.position ROWS UNBOUNDED PRECEDING) AS total,
              r.single AND t.present IS NOT NULL AND $7 = (SELECT generation FROM replication.generation WHERE model = $3)
              AND ((SELECT NOT EXISTS (SELECT FROM replication.log)) OR NOT EXISTS (SELECT FROM replication.log l WHERE l.model = $3 AND l.key = r.key OFFSET 0)) AS current
         FROM (
           SELECT position, key, versions, shown IS NULL AND waiting IS NULL AND masked IS NULL AS single, ${versionBytes('versions')} + ${FRAME_BYTES}::float8 AS bytes
             FROM replication.record WHERE position > $1 AND position <= $2 AND (model = $3) IS TRUE AND replication.is_wanted(origin, versions, $4) OFFSET 0
         ) r
         LEFT JOIN LATERAL (
           SELECT true AS present, ${longValues(table)} AS bytes${columns.map(({ column }, i) => `, t.${column} AS c${i}`).join('')}
             FROM ${table.table} t WHERE ${matchesKey('t', keyColumn, 'r.key')} OFFSET 0
         ) t ON true
     ), fitting AS (
       SELECT *, CASE WHEN current AND fits AND own <= ${BATCH_BYTES} THEN ${generation === 1 ? 'stored' : `regexp_replace(stored, '${MARK}', '')`} END AS version
         FROM (SELECT *, total <= $5 OR ($6 AND total = own) AS fits FROM sized) AS s OFFSET 0
     ), told AS (
       SELECT *, coalesce((version LIKE '${BARE}' OR version LIKE '${RESOLVED}' OR version !~ '"(f":[{n]|x":{)')${since > 1 ? ` AND coalesce(substring(stored FROM '${MARK}'), '1')::integer >= ${since}` : ''}, false) AS plain,
              split_part(version, '"', 4) AS first, rtrim(ltrim(split_part(version, '"', 5), ':'), '},') AS stamp
         FROM fitting
     ), parted AS (
       SELECT *, CASE WHEN $8 AND plain AND version = '[{"v":{"' || first || '":' || stamp || '},"s":{"*":["' || first || '",' || stamp || ']}}]' THEN first END AS writer FROM told OFFSET 0
     )
     SELECT count(*) FILTER (WHERE plain), string_agg(${text}, ',') FILTER (WHERE plain AND writer IS NULL), json_agg(key) FILTER (WHERE fits AND NOT plain),
            max(total) FILTER (WHERE fits), max(position) FILTER (WHERE fits), bool_and(fits),
            writer, ${["string_agg(stamp, ',')", 'json_agg(key)', ...columns.map((_, i) => `json_agg(c${i}::text)`)].map((list) => `${list} FILTER (WHERE writer IS NOT NULL)`).join(', ')}
       FROM parted GROUP BY writer`,
    [after, end, name, peerId, bytes, least, generation, byColumn],
  );
  const most = (column: 3 | 4): number => Math.max(column === 3 ? 0 : after, ...rows.map((row) => Number(row[column] ?? 0)));
  return {
    text: rows.flatMap(([, texts]) => texts ?? []).join(','),
    columns: rows.flatMap(([, , , , , , writer, stamps, keys, ...lists]) =>
      writer === null ? [] : `{"model":${JSON.stringify(name)},"writer":"${writer}","fields":${fields},"keys":${keys},"stamps":[${stamps}],"values":[${lists.join(',')}]}`,
    ),
    count: rows.reduce((sum, [count]) => sum + Number(count), 0),
    others: rows.flatMap(([, , others]) => JSON.parse(others ?? '[]') as string[]),
    bytes: most(3),
    cut: rows.every((row) => row[5] === 't') ? null : most(4),
  };
}

/** The JSON of a value's text; null where the value is. */
function quoted(value: string, type: Column['type']): string {
  return SHORT.test(type) ? `'"' || ${value}::text || '"'` : `to_json(${value}::text)::text`;
}

/** The end of the only version of a record that has a vector and stamps, and nothing else: in that order, as they are stored. */
const BARE = '%]}}]';

/** One that has nothing else but the resolution it builds on. Values would stand between that and the stamps, in which there are no such brackets but at their end. */
const RESOLVED = '%]},"r":["%]}]';

/** Of which generation's fields a row holds all (see `StoredVersion`); missing, it is the first. A stamp of a field named `g` is no number. */
const MARK = ',"g":([0-9]+)';
