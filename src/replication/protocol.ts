/**
 * The messages between replicas, version 1: JSON over HTTP, described for other implementers in docs/protocol.md.
 *
 * Every message is checked with these schemas before anything is done with it. Records are described in wire.ts and columns.ts.
 */
import { z } from 'zod';

import { columnsFault, type WireColumns } from './columns.ts';
import { isText, MAX_FIELDS, recordFault, type WireRecord } from './wire.ts';

export const PROTOCOL = 1;

/** The header of a batch whose sender would send the next before this one is answered, and wants to be told when it may. */
export const AHEAD = 'replique-ahead';

const name = z.string().regex(/^[A-Za-z0-9_]{1,32}$/);
const incarnation = z.string().regex(/^[0-9a-z]{1,24}$/);
const position = z.number().int().min(0).max(Number.MAX_SAFE_INTEGER);
const text = z.string().refine(isText, 'is no text that PostgreSQL can hold');

const checkpoint = z.strictObject({ incarnation, position });
const taken = checkpoint.extend({ taker: incarnation });

/** A list whose elements are looked at here one by one: what zod keeps of each takes as long as the look. */
function listOf<T>(faultOf: (element: unknown) => string | null): z.ZodType<T[], T[]> {
  return z.custom<T[]>((value) => Array.isArray(value), 'is no list').superRefine((list, context) => {
    for (const [index, element] of list.entries()) {
      const fault = faultOf(element);
      if (fault !== null) return context.addIssue({ code: 'custom', path: [index], message: fault });
    }
  });
}

const recordList = listOf<WireRecord>(recordFault);

const member = z.strictObject({
  name,
  id: z.uuid(),
  slot: z.number().int().min(1),
  stride: z.number().int().min(1),
  /** An operator's word that it does not come back: it holds nothing up, and its name and slot are free. */
  struck: z.literal(true).optional(),
});

const moment = { member: z.uuid(), incarnation, began: position, tick: position };

/** Who has what, and what was relied on: see knowledge.ts. */
const collectionNews = z.strictObject({
  /** How often this replica has forgotten records: a batch or an answer that was made before is not taken. */
  generation: position,
  /** The head of its feed: the rows count once the feed was taken so far. */
  head: checkpoint,
  rows: z.array(z.strictObject({ ...moment, knows: z.record(z.uuid(), checkpoint), roster: z.array(z.uuid()).max(10_000) })).max(10_000),
  floors: z.array(z.strictObject(moment)).max(10_000),
});

/** What its records go back to: see roots.ts. Beside the others, so that a program that knows nothing of it passes over it. */
const historyNews = z.object({
  /** How often the roots have changed: a batch that was made before is not taken, since its answer may bring what goes back to others. */
  changes: position,
  /** Of the moments named here and in `collection`: the incarnations up to theirs, each with the tick at which it began. */
  lines: z.array(z.object({ member: z.uuid(), incarnation, line: z.array(z.tuple([incarnation, position])).max(1_000) })).max(100_000),
  roots: z.array(z.object({ member: z.uuid(), incarnation, tick: position })).max(100_000),
});

const field = z.strictObject({
  name: z.string(),
  type: z.string(),
  nullable: z.boolean(),
  list: z.boolean(),
  /** What records show that nobody who knew the field has written; absent where it must be written. */
  default: text.nullable().optional(),
});

/** Who a replica is and how it is set up; the same from both sides. */
const introduction = z.object({
  protocol: z.number().int(),
  name,
  id: z.uuid(),
  incarnation,
  roster: z.array(member).max(10_000),
  policy: z.enum(['manual', 'latest', 'field-wise']),
  models: z.array(z.strictObject({ name: z.string(), key: field, fields: z.array(field).max(MAX_FIELDS) })).max(1000),
  /** By model, the fields of each of its unique constraints. Two replicas may differ in them: it is reported. */
  unique: z.record(z.string().max(63), z.array(z.array(z.string().max(63)).max(32)).max(1000)).optional(),
  /** Microseconds since 1970 on the replica's database. */
  clock: z.number().int().max(7_900_000_000_000_000, 'is beyond what stamps can hold: set the clock right'),
  /** Missing from a replica that does not collect: then nothing is forgotten that it may hold. */
  collection: collectionNews.optional(),
  history: historyNews.optional(),
});

export const handshakeRequest = introduction.extend({
  /** Sent while answering a handshake: the other side must not call back in turn. */
  answering: z.boolean(),
});

export const handshakeResponse = introduction.extend({
  /** How far the answering replica has taken the asking one's feed. */
  checkpoint: taken.nullable(),
  /** Stands for the answering replica's models: whoever sends to it says with which it has compared its own. */
  schema: z.string().max(100).optional(),
  /** It takes records by column, too. */
  columns: z.literal(true).optional(),
});

export const changesRequest = z.strictObject({
  protocol: z.literal(PROTOCOL),
  sender: z.strictObject({ name, id: z.uuid(), incarnation }),
  /**
   * The receiver's incarnation when it stated its checkpoint; in another one it refuses the batch. What the receiver itself once sent is withheld, and it may have lost that
   * since, being restored.
   */
  receiver: incarnation,
  /** The receiver's generation when it stated its checkpoint; in another one it refuses the batch, which may hold what it has forgotten since. */
  generation: position.optional(),
  /** How often the receiver's roots had changed then; where they have since, it refuses the batch. */
  roots: position.optional(),
  /** What the receiver called its schema when it stated its checkpoint; with another one it refuses the batch: the two may not fit each other any more. */
  schema: z.string().max(100).optional(),
  /** The checkpoint that the receiver must have stored, or it refuses the batch. */
  start: checkpoint.nullable(),
  end: checkpoint,
  /** More batches follow, which may settle what collides after this one: two records that swap a unique value. */
  more: z.boolean().default(false),
  records: recordList,
  /** Records that stand in no `records`. */
  columns: listOf<WireColumns>(columnsFault).default([]),
});

export const changesResponse = z.strictObject({
  applied: z.number().int().min(0),
  skipped: z.number().int().min(0),
  /** Conflicts that the batch opened on the receiver: [model, key]. */
  detected: z.array(z.tuple([z.string(), z.string()])),
  /** The receiver's states where they differ from what was sent, so that both sides log a conflict at once. */
  records: recordList,
});

export const digestRequest = z.strictObject({
  protocol: z.literal(PROTOCOL),
  sender: name,
  /** Buckets whose keys are asked for; none: only the buckets' digests. */
  buckets: z.array(z.tuple([z.string(), z.number().int().min(0)])).max(1024),
});

export const digestResponse = z.strictObject({
  /** [model, bucket, records, hash] of each bucket that is not empty; hash in decimal digits. */
  digests: z.array(z.tuple([z.string(), z.number().int(), z.number().int(), z.string()])),
  /** [model, key, hash] of each record in the buckets asked for. */
  keys: z.array(z.tuple([z.string(), z.string(), z.string()])),
});

const bucketName = z.tuple([z.string().max(63), z.number().int().min(0)]);
const recordName = z.tuple([z.string().max(63), text]);
const hash = z.string().regex(/^-?\d{1,19}$/);

export const inspectRequest = z.strictObject({
  protocol: z.literal(PROTOCOL),
  sender: z.strictObject({ name, incarnation }),
  /** How far the sender has taken the receiver's feed: what lies behind is on its way to it. */
  taken: taken.nullable(),
  buckets: z.array(bucketName).max(1024),
  /** Compute the hashes from what is stored now, and hash the models' rows too. */
  deep: z.boolean(),
  /** The sender's fields by model, for a deep look: rows are compared where they have the same. */
  fields: z.record(z.string().max(63), z.array(z.string().max(63)).max(1600)),
  /** Answer with the records; otherwise with the digests of the buckets. */
  keys: z.boolean(),
});

export const inspectResponse = z.strictObject({
  incarnation,
  /** How far the receiver has taken the sender's feed. */
  taken: taken.nullable(),
  /** [model, bucket, records, hash, hash of the rows] */
  digests: z.array(z.tuple([z.string(), z.number().int(), z.number().int(), hash, hash])),
  /** [model, key, hash, whether it is on its way to the sender, hash of the row] */
  keys: z.array(z.tuple([z.string(), z.string(), hash, z.boolean(), hash.nullable()])),
});

export const resendRequest = z.strictObject({
  protocol: z.literal(PROTOCOL),
  sender: z.strictObject({ name, id: z.uuid() }),
  keys: z.array(recordName).max(1000),
  /** Whose digests are to be counted anew. */
  buckets: z.array(bucketName).max(1024),
  /** Give the records a new place in the feed; otherwise only tell their states. */
  touch: z.boolean(),
});

export const resendResponse = z.strictObject({
  incarnation,
  /** How many of the records asked for, from the first on, this answers; the others are to be asked for again. */
  count: z.number().int().min(0),
  /** The states of those of them that are known. */
  records: recordList,
});

/** A refusal: what happened and what to change, in words; `code` for the program. */
export const refusal = z.object({
  code: z.enum(['REFUSED', 'CHECKPOINT_MISMATCH', 'BAD_MESSAGE', 'UNAUTHENTICATED', 'TOO_LARGE', 'FAILED']),
  message: z.string(),
});

export type Introduction = z.infer<typeof introduction>;
export type HandshakeRequest = z.infer<typeof handshakeRequest>;
export type HandshakeResponse = z.infer<typeof handshakeResponse>;
export type ChangesRequest = z.infer<typeof changesRequest>;
export type ChangesResponse = z.infer<typeof changesResponse>;
export type DigestRequest = z.infer<typeof digestRequest>;
export type DigestResponse = z.infer<typeof digestResponse>;
export type InspectRequest = z.infer<typeof inspectRequest>;
export type InspectResponse = z.infer<typeof inspectResponse>;
export type ResendRequest = z.infer<typeof resendRequest>;
export type ResendResponse = z.infer<typeof resendResponse>;
export type Refusal = z.infer<typeof refusal>;
export type RefusalCode = Refusal['code'];
export type RosterMember = z.infer<typeof member>;
export type CollectionNews = z.infer<typeof collectionNews>;
export type HistoryNews = z.infer<typeof historyNews>;

/** A batch to be sent, its records and columns as their JSON texts with commas between. */
export type OutgoingChanges = Omit<ChangesRequest, 'records' | 'columns'> & { readonly records: string; readonly columns?: string };

/** The message of a batch. */
export function encodeChanges({ records, columns = '', ...rest }: OutgoingChanges): string {
  return `${JSON.stringify(rest).slice(0, -1)},"records":[${records}]${columns === '' ? '' : `,"columns":[${columns}]`}}`;
}

/** Why a member of one roster cannot be in another: a name or slot that two replicas share would let one replica's writes cover the other's. Those who were struck write no more. */
export function rosterClash(mine: readonly RosterMember[], theirs: readonly RosterMember[]): string | null {
  for (const other of theirs) {
    for (const known of mine) {
      if (known.id === other.id || known.struck || other.struck) continue;
      if (known.name === other.name) {
        return `two replicas are named "${other.name}". Give one of them another REPLICA name and an empty database`;
      }
      if (known.slot === other.slot) {
        return `replicas "${known.name}" and "${other.name}" both use SLOT ${other.slot}. Give one of them another SLOT and an empty database`;
      }
    }
  }
  return null;
}
