/**
 * Captured updates of records whose only version is just what their rows show: most of what there is to fold.
 *
 * The version goes on as its row does, so that neither the row's values are read nor anything of what is asked of others: there is nothing to show, and no conflict begins or ends. What is not so
 * plain (several versions, values that others claim, fields that have no column, a record that waits, a row that others belong to) is left to the general way.
 */
import { writeAgain, type LocalWrite } from '../replication/write.ts';
import type { Fields, Version } from '../replication/version.ts';
import { numbers, texts } from './arrays.ts';
import type { Row, Transaction } from './database.ts';
import { addToDigests, bucketOf, hashOf } from './digest.ts';
import { UNCLAIMED, WORTH } from './newcomers.ts';
import { encodeAsRow, type StoredVersion } from './records.ts';
import type { Replica } from './replica.ts';
import { matchesKey, type ModelTable } from './tables.ts';

/** The columns of a line. By index: taking a long row apart at once is much to compile for what is done for each line. */
const [KEY, VERSIONS, HASH, OP, CLOCK, NAMES, CHANGED, INCARNATION, PLACE] = [0, 1, 2, 3, 4, 5, 6, 7, 8] as const;

/** A record after its updates, as it is to be stored. */
interface Updated {
  readonly model: string;
  readonly key: string;
  readonly versions: string;
  readonly hash: string | null;
  readonly old: string | null;
  readonly bucket: number;
}

/**
 * Folds captured updates.
 *
 * @param keys - Of records with captured writes, none twice.
 * @param clock - In microseconds.
 * @returns The keys of those that are folded; all others are left as they were.
 */
export async function foldUpdates(tx: Transaction, replica: Pick<Replica, 'name'>, table: ModelTable, keys: readonly string[], clock: number): Promise<ReadonlySet<string>> {
  if (keys.length < WORTH || table.children.length > 0) return new Set();
  const rows = await tx.query(
    `WITH lists AS MATERIALIZED (SELECT id, array_to_string(names, ',') AS names FROM replication.field_list)
     SELECT k.key, r.versions, r.hash, l.op, l.clock, lists.names, l.changed, l.incarnation, l.place
       FROM unnest($2::text[]) WITH ORDINALITY AS k (key, n)
       CROSS JOIN LATERAL (
         SELECT versions, hash FROM replication.record
          WHERE model = $1 AND key = k.key AND shown IS NULL AND waiting IS NULL AND masked IS NULL AND NOT carries AND NOT dead AND hash IS NOT NULL OFFSET 0
       ) r
       CROSS JOIN LATERAL (
         SELECT op, (date_part('epoch', at) * 1000000)::bigint AS clock, list, changed, replication.incarnation_name(incarnation) AS incarnation, ctid::text AS place, seq
           FROM replication.captured WHERE model = $1 AND key = k.key OFFSET 0
       ) l
       LEFT JOIN lists ON lists.id = l.list
      WHERE ${UNCLAIMED}
        AND $3 = (SELECT generation FROM replication.generation WHERE model = $1)
        AND EXISTS (SELECT FROM ${table.table} t WHERE ${matchesKey('t', table.keyColumn, 'k.key')} OFFSET 0)
      ORDER BY k.n, l.seq`,
    [table.name, texts(keys), table.generation],
  );
  const names: Fields = Object.fromEntries(table.columns.map(({ field }) => [field.name, null]));
  const fieldsOf = createMarks();
  const updated: Updated[] = [];
  const places: string[] = [];
  for (const lines of byKey(rows)) {
    const first = lines[0] as Row;
    const key = first[KEY] as string;
    const version = plainVersion(table, first[VERSIONS] as string, names);
    if (version === null || lines.some((line) => line[OP] !== 'U')) continue;
    const after = writeAgain(version, lines.map((line) => toWrite(replica, line, fieldsOf)));
    updated.push({ model: table.name, key, versions: encodeAsRow(table, after), hash: hashOf(key, [after]), old: first[HASH] ?? null, bucket: bucketOf(key) });
    for (const line of lines) places.push(line[PLACE] as string);
  }
  if (updated.length === 0) return new Set();
  store(tx, table, updated, clock);
  tx.post('DELETE FROM replication.log WHERE ctid = ANY ($1::text[]::tid[])', [texts(places)]);
  return new Set(updated.map(({ key }) => key));
}

/** Stores the records at the end of the feed, in their order. The bucket is set for the reason that `storeStates` gives. */
function store(tx: Transaction, { name }: ModelTable, records: readonly Updated[], clock: number): void {
  tx.post(
    `INSERT INTO replication.record (model, key, position, versions, hash, bucket, changed_at)
     SELECT $1, key, nextval('replication.position'), versions::json, hash, bucket, $2
       FROM unnest($3::text[], $4::text[], $5::bigint[], $6::smallint[]) AS x (key, versions, hash, bucket)
     ON CONFLICT (model, key) DO UPDATE SET position = excluded.position, origin = NULL, versions = excluded.versions, hash = excluded.hash, bucket = excluded.bucket, changed_at = excluded.changed_at`,
    [name, clock, texts(records.map(({ key }) => key)), texts(records.map(({ versions }) => versions)), numbers(records.map(({ hash }) => hash)), numbers(records.map(({ bucket }) => bucket))],
  );
  addToDigests(tx, records);
}

/** The only version of a record, where its fields are just those of the row; only their names are told. */
function plainVersion(table: ModelTable, versions: string, names: Fields): (Version & { readonly fields: Fields }) | null {
  const [{ v, s, f, g = 1, x, r }] = JSON.parse(versions) as [StoredVersion];
  if (f !== undefined || x !== undefined || g !== table.generation) return null;
  return { vector: v, stamps: s, fields: names, ...(r && { resolution: r }) };
}

/** The names that are marked: `a,b` and `{f,t}` are `b`. */
type Marks = (names: string, marks: string) => readonly string[];

/** Many lines have the same names and marks, and are told the same array. */
function createMarks(): Marks {
  const known = new Map<string, readonly string[]>();
  return (names, marks) => {
    const id = `${names} ${marks}`;
    const found = known.get(id);
    if (found !== undefined) return found;
    const marked = marks.slice(1, -1).split(',');
    const fields = names.split(',').filter((_, n) => marked[n] === 't');
    known.set(id, fields);
    return fields;
  };
}

function toWrite(replica: Pick<Replica, 'name'>, line: Row, fieldsOf: Marks): LocalWrite {
  return { kind: 'update', replica: `${replica.name}.${line[INCARNATION]}`, clock: Number(line[CLOCK]), changed: fieldsOf(line[NAMES] as string, line[CHANGED] as string) };
}

/** Lines that belong together, which stand together. */
function* byKey(rows: readonly Row[]): Generator<readonly Row[]> {
  for (let at = 0; at < rows.length; ) {
    let end = at + 1;
    while (end < rows.length && rows[end]?.[0] === rows[at]?.[0]) end++;
    yield rows.slice(at, end);
    at = end;
  }
}
