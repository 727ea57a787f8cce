/**
 * Writing changed states: rows, states, log, conflicts and digests, set-wise, in the caller's transaction.
 */
import { sameState, standing, type State } from '../replication/merge.ts';
import type { View } from '../replication/policy.ts';
import type { Masked } from '../replication/unique.ts';
import { sameFields, type Fields, type Version } from '../replication/version.ts';
import { asVersion } from '../replication/write.ts';
import { numbers, texts } from './arrays.ts';
import { logConflicts, NO_CHANGES, type ConflictChanges } from './conflicts.ts';
import { bucketOf, hashOf, mixed, mixInto } from './digest.ts';
import type { Transaction } from './database.ts';
import { encodeState, encodeVersion, meant, refuseIfWrittenMeanwhile, type SettledRecord } from './records.ts';
import type { Now, Replica } from './replica.ts';
import { tokensOf } from './families.ts';
import { AGAIN, ClashError, materialise, type Shown, type Unshown } from './rows.ts';
import { showFields, type ModelTable } from './tables.ts';
import { arbitrate, contested, storeClaims, type Arbitrated } from './unique.ts';
import { logVerdicts } from './unique-conflicts.ts';

/** A record's new state and what is to be shown of it. */
export interface Change {
  readonly before: SettledRecord;
  readonly state: State;
  readonly origin: string | null;
  /** Its `fields` are what the row is to hold; where they give way to another record's, `version` tells the record's own. */
  readonly view: View;
  /** What of the row gives way. */
  readonly masked?: Masked;
  /** Why it has no row: another record holds its value, and it can show nothing in its place. */
  readonly aside?: string;
}

/** What writing did. */
export interface Written {
  /** The changes given, as they came to be, and those of records that had to follow. */
  readonly changes: readonly Change[];
  readonly conflicts: ConflictChanges;
  /** The records that could not be shown, and why. */
  readonly waiting: ReadonlyMap<SettledRecord, Unshown>;
  /** The records that give way to others. */
  readonly masked: ReadonlyMap<SettledRecord, Masked>;
}

/**
 * @param more - Where it is a peer's batch behind which more follow: the peer, whose next batches may settle what collides now.
 */
export async function writeChanges(
  tx: Transaction,
  replica: Replica,
  now: Now,
  given: readonly Change[],
  more: string | null = null,
): Promise<Written> {
  if (given.length === 0) return { changes: [], conflicts: NO_CHANGES, waiting: new Map(), masked: new Map() };
  const { changes, verdicts, waiting, claiming } = await showAll(tx, replica, now, given);
  await refuseIfWrittenMeanwhile(tx, changes.filter(({ before, view }) => before.row === null && view.fields !== null).map(({ before }) => before));
  const encoded = new Map<State, string>();
  const records = changes.map((change): StoredChange => {
    const { before, state, origin, view } = change;
    const unshown = waiting.get(change);
    // What is said of the row, which stays as it was where it could not be written.
    const masked = unshown === undefined ? (change.masked ?? null) : unshown.removed ? null : before.masked;
    const asRow = state.length === 1 && unshown === undefined && masked === null;
    const versions = encodeState(state, asRow ? before.table : null);
    if (!asRow) encoded.set(state, versions);
    return {
      model: before.table.name,
      key: before.key,
      origin,
      versions,
      shown: state.length > 1 ? JSON.stringify(view.version?.vector ?? null) : null,
      hash: hashOf(before.key, state),
      old: before.hash,
      bucket: bucketOf(before.key),
      rest: restOf({
        position: before.position > 0 && sameState(state, before.state) ? before.position : undefined,
        waiting: unshown?.reason,
        held: unshown === undefined || unshown.removed ? undefined : (heldVersion(replica, before) ?? undefined),
        awaits: unshown?.awaits ?? undefined,
        masked: masked === null ? undefined : JSON.stringify(masked),
        dead: state.some(({ fields }) => fields === null) || undefined,
        carries: carries(before.table, state) || undefined,
      }),
    };
  });
  const places = changes.flatMap(({ before }) => before.places);
  storeStates(tx, now.clock, records, places);
  noteArrivals(tx, [...changes.filter((change) => !waiting.has(change)).flatMap(tokensOf), ...[...waiting.values()].flatMap(({ awaits }) => (awaits === AGAIN ? [AGAIN] : []))]);
  if (claiming) storeClaims(tx, now, changes, verdicts, waiting);
  const conflicts = await logConflicts(tx, replica, now.clock, changes, encoded);
  const unique = await logVerdicts(tx, now, verdicts, more);
  return {
    changes,
    conflicts: { detected: [...conflicts.detected, ...unique.detected], resolved: [...conflicts.resolved, ...unique.resolved] },
    waiting: new Map([...waiting].map(([{ before }, why]) => [before, why])),
    masked: new Map(changes.flatMap((change) => (change.masked ? [[change.before, change.masked] as const] : []))),
  };
}

/** A record's new state, as it is stored. */
interface StoredChange {
  readonly model: string;
  readonly key: string;
  readonly origin: string | null;
  readonly versions: string;
  readonly shown: string | null;
  readonly hash: string | null;
  /** The hash before. */
  readonly old: string | null;
  readonly bucket: number;
  /** What few records have, as JSON; null where this one has nothing of it. */
  readonly rest: string | null;
}

/** Its place in the feed, where that stays; what these are in `replication.record`, where they are anything. */
interface Rest {
  readonly position: number | undefined;
  readonly waiting: string | undefined;
  readonly held: string | undefined;
  readonly awaits: string | undefined;
  readonly masked: string | undefined;
  readonly dead: true | undefined;
  readonly carries: true | undefined;
}

function restOf(rest: Rest): string | null {
  for (const name in rest) if (rest[name as keyof Rest] !== undefined) return JSON.stringify(rest);
  return null;
}

/** Parameters of the statement that stores states, without what stands beside it. */
const STATE_PARAMETERS = 9;

/**
 * Stores states, in their order, with what becomes of the digests, and takes what was folded into them out of the log: in one statement, since each is most of what a single record costs.
 *
 * The bucket is set though it stays as it is: otherwise PostgreSQL takes the entry in the index by buckets for one that only another version of the row needs, and looks in the table for old ones to
 * clear away whenever a page of it is full.
 */
function storeStates(tx: Transaction, clock: number, records: readonly StoredChange[], places: readonly string[]): void {
  const beside: string[] = [];
  const values: unknown[] = [];
  const deltas = mixed(records);
  if (deltas !== null) {
    beside.push(`mixed AS (${mixInto(STATE_PARAMETERS + 1)})`);
    values.push(...deltas);
  }
  if (places.length > 0) {
    beside.push(`folded AS (DELETE FROM replication.log WHERE ctid = ANY ($${STATE_PARAMETERS + 1 + (deltas?.length ?? 0)}::text[]::tid[]))`);
    values.push(texts(places));
  }
  tx.post(
    `${beside.length === 0 ? '' : `WITH ${beside.join(', ')} `}INSERT INTO replication.record (model, key, position, origin, versions, shown, waiting, held, masked, awaits, tried, hash, dead, bucket, carries, changed_at)
     SELECT model, key, coalesce((rest->>'position')::bigint, nextval('replication.position')), origin, versions::json, shown::json, rest->>'waiting', (rest->>'held')::json, (rest->>'masked')::json,
            rest->>'awaits', CASE WHEN rest->>'waiting' IS NOT NULL THEN nextval('replication.trial') END, hash, coalesce((rest->>'dead')::boolean, false), bucket,
            coalesce((rest->>'carries')::boolean, false), $1
       FROM (SELECT model, key, origin, versions, shown, hash, bucket, rest::json AS rest
               FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::smallint[], $9::text[]) AS x (model, key, origin, versions, shown, hash, bucket, rest)) AS x
     ON CONFLICT (model, key) DO UPDATE SET position = excluded.position, origin = excluded.origin, versions = excluded.versions,
       shown = excluded.shown, waiting = excluded.waiting, held = excluded.held, masked = excluded.masked, awaits = excluded.awaits, tried = excluded.tried, hash = excluded.hash, bucket = excluded.bucket, dead = excluded.dead, carries = excluded.carries, changed_at = excluded.changed_at`,
    [
      clock,
      texts(records.map(({ model }) => model)),
      texts(records.map(({ key }) => key)),
      texts(records.map(({ origin }) => origin)),
      texts(records.map(({ versions }) => versions)),
      texts(records.map(({ shown }) => shown)),
      numbers(records.map(({ hash }) => hash)),
      numbers(records.map(({ bucket }) => bucket)),
      texts(records.map(({ rest }) => rest)),
      ...values,
    ],
  );
}

/** Writes the rows. Whose a unique value is, is asked only where that is in question. */
async function showAll(tx: Transaction, replica: Replica, now: Now, given: readonly Change[]): Promise<Showing> {
  const disputed = await contested(tx, now, given);
  const first = await arbitrate(tx, replica, given, disputed);
  try {
    const shown = await materialise(tx, replica, first.changes, 'tell');
    const showing = withAside(first, shown);
    return { ...showing, claiming: disputed.length > 0 || showing.waiting.size > 0 || shown.changes.length > given.length };
  } catch (error) {
    if (!(error instanceof ClashError)) throw error;
    // Children that had to follow their parents may claim it too.
    const all = [...given, ...error.changes.filter((change) => !first.changes.includes(change))];
    const again = await arbitrate(tx, replica, all, all.filter(({ before }) => before.table.unique.length > 0));
    return { ...withAside(again, await materialise(tx, replica, again.changes, 'wait')), claiming: true };
  }
}

interface Showing extends Arbitrated {
  readonly waiting: ReadonlyMap<Change, Unshown>;
  /** False where each row tells what its record claims, and did before. */
  readonly claiming: boolean;
}

function withAside({ verdicts }: Arbitrated, { changes, unshown }: Shown): Omit<Showing, 'claiming'> {
  const waiting = new Map(unshown);
  for (const change of changes) {
    if (change.aside !== undefined && !waiting.has(change)) waiting.set(change, { reason: change.aside, awaits: null, removed: true });
  }
  return { changes, verdicts, waiting };
}

/** Notes what those that wait have waited for. */
function noteArrivals(tx: Transaction, tokens: readonly string[]): void {
  if (tokens.length === 0) return;
  tx.post(
    `INSERT INTO replication.arrival (awaits)
     SELECT t FROM unnest($1::text[]) AS t WHERE EXISTS (SELECT FROM replication.record r WHERE r.awaits = t) ON CONFLICT DO NOTHING`,
    [tokens],
  );
}

/** The version that the row still holds while the record waits: what was shown. As it is stored; null where there is none. */
export function heldVersion(replica: Replica, before: SettledRecord): string | null {
  if (before.waiting !== null) return before.held && JSON.stringify(encodeVersion(before.held));
  const version = shownVersion(replica, before);
  if (version === null) return null;
  const row = meant(before, version.fields);
  return JSON.stringify(encodeVersion({ ...version, fields: row && overRow(before, version.fields, row) }));
}

/** The values of a row, with what the version that it shows holds beside it; what only looks written stays unwritten. */
function overRow({ table }: SettledRecord, under: Fields | null, row: Fields): Fields {
  const shown = showFields(table, under ?? {});
  return { ...under, ...Object.fromEntries(Object.entries(row).filter(([name, value]) => under === null || shown[name] !== value)) };
}

/** True where some version has fields that the model's table has no column for. */
function carries({ columns }: ModelTable, state: State): boolean {
  return state.some(({ fields }) => {
    if (fields === null) return false;
    let unknown = 0;
    for (const _ in fields) unknown++;
    for (const { field } of columns) if (Object.hasOwn(fields, field.name)) unknown--;
    return unknown > 0;
  });
}

/** What a record shows, as a version: a view of several sides is none, but a write over it has seen them all. */
function shownVersion({ policy }: Replica, { settled, view }: SettledRecord): Version | null {
  const { version } = view;
  return asVersion(policy === 'manual' && version !== null ? standing(settled).filter((side) => sameFields(side.fields, version.fields)) : settled, view);
}
