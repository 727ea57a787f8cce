/**
 * Records that one write made and none has changed, as they are stored: what differs between them is a key and a stamp, so that the database makes the text of each version.
 */
import { writtenHash } from '../replication/merge.ts';
import type { ReplicaId, Stamp } from '../replication/version.ts';
import { firstVersion } from '../replication/write.ts';
import { bigints, smallints, texts } from './arrays.ts';
import type { Transaction } from './database.ts';
import { addNewToDigests, bucketOf } from './digest.ts';
import { encodeAsRow } from './records.ts';
import type { ModelTable } from './tables.ts';

/** Such records, by column; their values are just those of their rows. */
export interface Written {
  readonly keys: readonly string[];
  readonly writer: ReplicaId;
  readonly stamps: readonly Stamp[];
}

/** The same, ready to be stored: made while the database is at something else. */
export interface Prepared {
  readonly buckets: readonly number[];
  readonly hashes: readonly number[];
  readonly parameters: readonly unknown[];
}

export function prepare(table: ModelTable, { keys, writer, stamps }: Written): Prepared {
  const digits = stamps.map(String);
  const hashes = keys.map((key, n) => writtenHash(key, writer, digits[n] as string));
  const buckets = keys.map(bucketOf);
  // No replica id has a minus in it.
  const around = encodeAsRow(table, firstVersion(writer, -1, {})).split('-1');
  return { buckets, hashes, parameters: [...around, texts(keys), texts(digits), bigints(hashes), smallints(buckets)] };
}

/** Stores records that have none yet, at the end of the feed, in their order. @param clock - In microseconds. */
export function storeWritten(tx: Transaction, { name }: ModelTable, { buckets, hashes, parameters }: Prepared, origin: ReplicaId | null, clock: number): void {
  tx.post(
    `INSERT INTO replication.record (model, key, position, origin, versions, hash, bucket, changed_at)
     SELECT $1, key, nextval('replication.position'), $2, ($4 || stamp || $5 || stamp || $6)::json, hash, bucket, $3
       FROM unnest($7::text[], $8::text[], $9::bigint[], $10::smallint[]) AS x (key, stamp, hash, bucket)`,
    [name, origin, clock, ...parameters],
  );
  addNewToDigests(tx, name, buckets, hashes);
}

/** Captured writes of one incarnation that each made a record, and as far as is known the only ones of it, by column, in their order. */
export interface Makings {
  readonly model: string;
  readonly incarnation: string;
  readonly keys: readonly string[];
  readonly clocks: readonly number[];
  /** Where they lie in the log, and their order among all that is there. */
  readonly places: readonly string[];
  readonly seqs: readonly number[];
}
