/**
 * Looking into buckets record by record, and giving records a new place in the feed: what comparing two replicas and mending their differences is made of.
 */
import { merge } from '../replication/merge.ts';
import { resume, type Taken } from '../replication/exchange.ts';
import { toWire, type WireRecord } from '../replication/wire.ts';
import { readPeer } from './checkpoints.ts';
import type { Transaction } from './database.ts';
import { BUCKETS, bucketOf, hashOf } from './digest.ts';
import { decodeState, readRecords, settle } from './records.ts';
import { beginChange, readEras, type Replica } from './replica.ts';
import { fitsMessage, fitting, portions, type RecordName } from './sizes.ts';
import { matchesKey, type ModelTable } from './tables.ts';

export type Bucket = readonly [model: string, bucket: number];

/**
 * What one replica says of a record: the hash of its state, whether the next sync carries it to the other, and (in a deep look, where the row alone holds the values) a hash of the
 * model's row.
 */
export type RecordLook = readonly [model: string, key: string, hash: string, onItsWay: boolean, row: string | null];

/** Of a bucket, read anew: [model, bucket, records, hash of their states, hash of their rows]. */
export type DeepDigest = readonly [model: string, bucket: number, records: number, hash: string, rows: string];

/** Whom the looks are for: what lies behind `after` in the feed and did not come from it is on its way to it. */
export interface Reader {
  readonly id: string;
  readonly after: number;
}

/** Every bucket of every model. */
export function allBuckets(replica: Replica): Bucket[] {
  return [...replica.tables.keys()].flatMap((model) => Array.from({ length: BUCKETS }, (_, bucket): Bucket => [model, bucket]));
}

/** @param taken - How far the peer says it has taken this replica's feed. */
export async function readerOf(replica: Replica, peer: { readonly name: string; readonly incarnation: string }, taken: Taken | null): Promise<Reader> {
  const { acknowledged } = await readPeer(replica.db, peer.name);
  return { id: `${peer.name}.${peer.incarnation}`, after: resume(taken, await readEras(replica), acknowledged).after };
}

/** The fields of each model, in order of name. */
export function fieldsOf(replica: Replica): Record<string, string[]> {
  return Object.fromEntries([...replica.tables].map(([model, { fields }]) => [model, fields.map(({ name }) => name).toSorted()]));
}

/**
 * @param deep - Null: take the hashes that each change of state keeps. Otherwise compute each from what is stored now, and those of the rows of the models that have these fields here too.
 */
export async function lookInto(replica: Replica, buckets: readonly Bucket[], reader: Reader, deep: Readonly<Record<string, readonly string[]>> | null): Promise<RecordLook[]> {
  const looks: RecordLook[] = [];
  const mine = fieldsOf(replica);
  await replica.db.transaction(async (tx) => {
    for (const table of replica.tables.values()) {
      const own = buckets.filter(([model]) => model === table.name).map(([, bucket]) => bucket);
      if (own.length === 0) continue;
      const rows = deep !== null && deep[table.name]?.join() === mine[table.name]?.join();
      looks.push(...(await lookIntoTable(tx, table, own, reader, { deep: deep !== null, rows })));
    }
  });
  return looks;
}

export function deepDigests(looks: readonly RecordLook[]): DeepDigest[] {
  const found = new Map<string, { model: string; bucket: number; records: number; hash: bigint; rows: bigint }>();
  for (const [model, key, hash, , row] of looks) {
    const bucket = bucketOf(key);
    const id = `${bucket} ${model}`;
    const digest = found.get(id) ?? { model, bucket, records: 0, hash: 0n, rows: 0n };
    digest.records++;
    digest.hash ^= BigInt(hash);
    digest.rows ^= BigInt(row ?? 0);
    found.set(id, digest);
  }
  return [...found.values()].map(({ model, bucket, records, hash, rows }) => [model, bucket, records, String(hash), String(rows)]);
}

/** The states of records, in order, as many as fit one answer; `count` is how many of those asked for it covers. */
export async function readStates(replica: Replica, names: readonly RecordName[]): Promise<{ readonly count: number; readonly records: WireRecord[] }> {
  return replica.db.transaction(async (tx) => {
    const some = await fitting(tx, replica, names);
    const records: WireRecord[] = [];
    for (const table of replica.tables.values()) {
      for (const found of await readRecords(tx, table, some.flatMap(([model, key]) => (model === table.name ? [key] : [])))) {
        const { settled } = settle(found, replica);
        // What no message holds the feed tells of.
        if (settled.length > 0 && fitsMessage(settled)) records.push([table.name, found.key, settled.map(toWire)]);
      }
    }
    return { count: some.length, records };
  });
}

/**
 * Gives records a new place in the feed, as if they had changed now, so that they go to every peer again; and makes their hashes, and the digests of these buckets, those of what is
 * stored. Their states stay as they are.
 */
export async function touch(replica: Replica, names: readonly RecordName[], buckets: readonly Bucket[]): Promise<void> {
  await replica.db.transaction(async (tx) => {
    const { clock } = await beginChange(tx);
    for await (const { names: some } of portions(tx, replica, names)) {
      for (const table of replica.tables.values()) {
        const stored = (await readRecords(tx, table, some.flatMap(([model, key]) => (model === table.name ? [key] : [])))).filter(({ position }) => position > 0);
        if (stored.length === 0) continue;
        await tx.query(
          `UPDATE replication.record r SET position = nextval('replication.position'), origin = NULL, hash = x.hash, bucket = x.bucket, changed_at = $3
             FROM json_to_recordset($1) AS x (key text, hash bigint, bucket smallint) WHERE r.model = $2 AND r.key = x.key`,
          [JSON.stringify(stored.map(({ key, state }) => ({ key, hash: hashOf(key, state), bucket: bucketOf(key) }))), table.name, clock],
        );
      }
    }
    await recount(tx, [...buckets, ...names.map(([model, key]): Bucket => [model, bucketOf(key)])]);
  });
}

async function recount(tx: Transaction, buckets: readonly Bucket[]): Promise<void> {
  const distinct = [...new Map(buckets.map((bucket) => [bucket.join(' '), bucket])).values()];
  const asked = JSON.stringify(distinct.map(([model, bucket]) => ({ model, bucket })));
  const x = 'json_to_recordset($1) AS x (model text, bucket smallint)';
  await tx.query(`DELETE FROM replication.digest d USING ${x} WHERE d.model = x.model AND d.bucket = x.bucket`, [asked]);
  await tx.query(
    `INSERT INTO replication.digest (model, bucket, records, hash)
     SELECT r.model, r.bucket, count(*), bit_xor(r.hash) FROM replication.record r JOIN ${x} ON r.model = x.model AND r.bucket = x.bucket
      WHERE r.hash IS NOT NULL GROUP BY r.model, r.bucket`,
    [asked],
  );
}

/** What a state's hash is made of: of large versions no more than that their values differ. */
const VERSIONS = `CASE WHEN octet_length(r.versions::text) < 8192 THEN r.versions ELSE
  (SELECT json_agg(json_strip_nulls(json_build_object('v', e -> 'v', 's', '{}'::json, 'f', json_build_object('f', md5(e ->> 'f')), 'c', e -> 'c'))) FROM json_array_elements(r.versions) e) END`;

async function lookIntoTable(tx: Transaction, table: ModelTable, buckets: readonly number[], { id, after }: Reader, { deep, rows: comparing }: { readonly deep: boolean; readonly rows: boolean }): Promise<RecordLook[]> {
  const columns = table.columns.toSorted((x, y) => (x.field.name < y.field.name ? -1 : 1));
  const texts = columns.map(({ column }) => `t.${column}::text`).join(', ');
  // A digest that every version and build of PostgreSQL computes alike.
  const row = `('x' || left(encode(sha256(convert_to(CASE WHEN t.${table.keyColumn.column} IS NULL THEN '' ELSE json_build_array(${texts})::text END, 'UTF8')), 'hex'), 13))::bit(52)::bigint`;
  const rows = await tx.query(
    `SELECT r.key, r.hash, (r.position > $3 AND r.origin IS DISTINCT FROM $4) OR l.logged, ${deep ? VERSIONS : 'NULL'}, ${comparing ? `CASE WHEN r.shown IS NULL AND r.waiting IS NULL AND NOT l.logged THEN ${row} END` : 'NULL'}
       FROM replication.record r
       CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM replication.log WHERE model = r.model AND key = r.key) AS logged) l
       ${comparing ? `LEFT JOIN LATERAL (SELECT * FROM ${table.table} t WHERE ${matchesKey('t', table.keyColumn, 'r.key')} OFFSET 0) t ON true` : ''}
      WHERE r.model = $1 AND r.bucket = ANY ($2::smallint[])`,
    [table.name, buckets, after, id],
  );
  return rows.flatMap(([key, hash, onItsWay, versions, rowHash]): RecordLook[] => {
    const stored = versions ? hashOf(key as string, merge([], decodeState(versions, null))) : hash;
    // Of ghosts alone there is nothing to compare.
    return stored === null || stored === undefined ? [] : [[table.name, key as string, stored, onItsWay === 't', rowHash ?? null]];
  });
}
