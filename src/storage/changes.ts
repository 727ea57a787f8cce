/**
 * Writing changed states: rows, states, log, conflicts and digests, set-wise, in the caller's transaction.
 */
import { sameState, standing, type State } from '../replication/merge.ts';
import { latestField, livingSides, type View } from '../replication/policy.ts';
import { join, sameFields, type Fields, type Version } from '../replication/version.ts';
import { logConflicts, NO_CHANGES, type ConflictChanges } from './conflicts.ts';
import { addToDigests, bucketOf, hashOf } from './digest.ts';
import type { Transaction } from './database.ts';
import { encodeState, encodeVersion, type SettledRecord } from './records.ts';
import type { Replica } from './replica.ts';
import { tokensOf } from './families.ts';
import { AGAIN, materialise, type Unshown } from './rows.ts';
import { showFields, type ModelTable } from './tables.ts';

/** A record's new state and what is to be shown of it. */
export interface Change {
  readonly before: SettledRecord;
  readonly state: State;
  readonly origin: string | null;
  readonly view: View;
}

/** What writing did. */
export interface Written {
  readonly conflicts: ConflictChanges;
  /** The changes that could not be shown, and why. */
  readonly waiting: ReadonlyMap<Change, Unshown>;
}

/** @param clock - The database's clock, in microseconds, for the conflict log. */
export async function writeChanges(
  tx: Transaction,
  replica: Replica,
  clock: number,
  given: readonly Change[],
): Promise<Written> {
  if (given.length === 0) return { conflicts: NO_CHANGES, waiting: new Map() };
  const { changes, unshown: waiting } = await materialise(tx, replica, given);
  const records = changes.map((change) => {
    const { before, state } = change;
    const unshown = waiting.get(change);
    return {
      model: before.table.name,
      key: before.key,
      position: before.position > 0 && sameState(state, before.state) ? before.position : null,
      origin: change.origin,
      versions: encodeState(state, state.length === 1 && unshown === undefined ? before.table : null),
      shown: state.length > 1 ? JSON.stringify(change.view.version?.vector ?? null) : null,
      waiting: unshown?.reason ?? null,
      held: unshown === undefined || unshown.removed ? null : heldVersion(replica, change),
      awaits: unshown?.awaits ?? null,
      hash: hashOf(before.key, state),
      dead: state.some(({ fields }) => fields === null),
      bucket: bucketOf(before.key),
      carries: carries(before.table, state),
      clock,
      old: before.hash,
    };
  });
  await tx.query(
    `INSERT INTO replication.record (model, key, position, origin, versions, shown, waiting, held, awaits, tried, hash, dead, bucket, carries, changed_at)
     SELECT model, key, coalesce(position, nextval('replication.position')), origin, versions::json, shown::json, waiting, held::json,
            awaits, CASE WHEN waiting IS NOT NULL THEN nextval('replication.trial') END, hash, dead, bucket, carries, clock
       FROM json_to_recordset($1) AS x (model text, key text, position bigint, origin text, versions text, shown text, waiting text, held text, awaits text,
                                        hash bigint, dead boolean, bucket smallint, carries boolean, clock bigint)
     ON CONFLICT (model, key) DO UPDATE SET position = excluded.position, origin = excluded.origin, versions = excluded.versions,
       shown = excluded.shown, waiting = excluded.waiting, held = excluded.held, awaits = excluded.awaits, tried = excluded.tried, hash = excluded.hash, dead = excluded.dead, carries = excluded.carries, changed_at = excluded.changed_at`,
    [JSON.stringify(records)],
  );
  const places = changes.flatMap(({ before }) => before.places);
  if (places.length > 0) await tx.query('DELETE FROM replication.log WHERE ctid = ANY($1::tid[])', [places]);
  await addToDigests(tx, records);
  await noteArrivals(tx, [...changes.filter((change) => !waiting.has(change)).flatMap(tokensOf), ...[...waiting.values()].flatMap(({ awaits }) => (awaits === AGAIN ? [AGAIN] : []))]);
  return { conflicts: await logConflicts(tx, replica, clock, changes), waiting };
}

/** Notes what those that wait have waited for. */
async function noteArrivals(tx: Transaction, tokens: readonly string[]): Promise<void> {
  if (tokens.length === 0) return;
  await tx.query(
    `INSERT INTO replication.arrival (awaits)
     SELECT t FROM unnest($1::text[]) AS t WHERE EXISTS (SELECT FROM replication.record r WHERE r.awaits = t) ON CONFLICT DO NOTHING`,
    [tokens],
  );
}

/** The version that the row still holds while the record waits: what was shown. */
function heldVersion(replica: Replica, { before }: Change): string | null {
  if (before.waiting !== null) return before.held && JSON.stringify(encodeVersion(before.held));
  if (before.settled.length === 0) return null;
  const version = asVersion(replica, before);
  return JSON.stringify(encodeVersion({ ...version, fields: before.row && overRow(before, version.fields, before.row) }));
}

/** The values of a row, with what the version that it shows holds beside it; what only looks written stays unwritten. */
function overRow({ table }: SettledRecord, under: Fields | null, row: Fields): Fields {
  const shown = showFields(table, under ?? {});
  return { ...under, ...Object.fromEntries(Object.entries(row).filter(([name, value]) => under === null || shown[name] !== value)) };
}

/** True where some version has fields that the model's table has no column for. */
function carries({ columns }: ModelTable, state: State): boolean {
  return state.some(({ fields }) => fields !== null && Object.keys(fields).some((name) => !columns.some(({ field }) => field.name === name)));
}

/** What a record shows, as a version. A view of several sides is none, but a write over it has seen them all. */
function asVersion({ policy }: Replica, { settled, view }: SettledRecord): Version {
  const { version, fields } = view;
  const behind = policy === 'manual' && version !== null ? standing(settled).filter((side) => sameFields(side.fields, version.fields)) : settled;
  if (behind.length < 2 && version !== null) return version;
  const living = livingSides(behind);
  const stamps = Object.keys(fields ?? {}).map((name) => [name, latestField(living, name)?.stamp ?? (['', 0] as const)] as const);
  return { vector: join(behind.map((side) => side.vector)), fields, stamps: Object.fromEntries(stamps) };
}
