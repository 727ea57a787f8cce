/** What replication knows of a record, whatever its model: its version, and the conflict that waits on it. */
import { stampToInstant } from '../replication/clock.ts';
import { join, lastWrite, type Vector } from '../replication/version.ts';
import { pendingOf } from '../storage/conflicts.ts';
import { readRecords, settle, type SettledRecord } from '../storage/records.ts';
import type { Replica } from '../storage/replica.ts';
import { toConflict, toVersionVector, type Conflict } from './conflicts.ts';
import type { Keeper } from './keeper.ts';
import { toJsonValues } from './values.ts';

/** For each replica whose write is known, the stamp of its last write, in decimal digits: `{"a": "1764000000000000"}`. */
export type VersionVector = Readonly<Record<string, string>>;

export interface RecordVersion {
  readonly version: VersionVector;
  /** ISO 8601 in UTC with microseconds, from the largest stamp. */
  readonly updatedAt: string;
}

/** A record as one look found it: these values are of this version. */
export interface RecordLook {
  /** As JSON holds them, the key among them; null where there is no row. */
  readonly values: Readonly<Record<string, unknown>> | null;
  /** Null where replication knows nothing of the record. */
  readonly known: RecordVersion | null;
}

export interface Records {
  /** One answer a key, in the order of the keys. */
  look(model: string, keys: readonly string[]): Promise<RecordLook[]>;
  /** The pending conflict of each record, in the order of the keys; null where there is none. */
  conflicts(model: string, keys: readonly string[]): Promise<(Conflict | null)[]>;
}

export function createRecords(replica: Replica, keeper: Pick<Keeper, 'settle'>): Records {
  return {
    async look(model, keys) {
      const table = replica.tables.get(model);
      if (table === undefined) return keys.map(() => ({ values: null, known: null }));
      const records = await replica.db.transaction((tx) => readRecords(tx, table, keys));
      return records.map((record) => {
        const vector = shownVector(settle(record, replica));
        return {
          values: record.row && toJsonValues(table, record.key, record.row),
          known: vector && { version: toVersionVector(vector), updatedAt: stampToInstant(lastWrite(vector)[1]) },
        };
      });
    },

    async conflicts(model, keys) {
      await keeper.settle();
      // A record may have one over a unique value beside its own; its own comes first.
      const pending = (await pendingOf(replica.db, model, keys)).toSorted((a, b) => Number(a.name === '') - Number(b.name === ''));
      const entries = new Map(pending.map((entry) => [entry.key, entry]));
      return keys.map((key) => {
        const entry = entries.get(key);
        return entry ? toConflict(replica.tables, entry) : null;
      });
    },
  };
}

/** The vector of what a record's row shows; null where nothing is known of it. A view of several sides has seen them all. */
export function shownVector({ view, settled, waiting, held }: SettledRecord): Vector | null {
  if (waiting !== null) return held?.vector ?? null;
  if (view.version !== null) return view.version.vector;
  if (settled.length === 0) return null;
  return join(settled.map((version) => version.vector));
}
