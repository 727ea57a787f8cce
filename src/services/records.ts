/** What replication knows of a record, whatever its model: its version, and the conflict that waits on it. */
import type { Conflict } from './conflicts.ts';

/** For each replica whose write is known, the stamp of its last write, in decimal digits: `{"a": "1764000000000000"}`. */
export type VersionVector = Readonly<Record<string, string>>;

export interface RecordVersion {
  readonly version: VersionVector;
  /** ISO 8601 in UTC with microseconds, from the largest stamp. */
  readonly updatedAt: string;
}

export interface Records {
  /** One answer a key, in the order of the keys; null where replication knows nothing of the record. */
  versions(model: string, keys: readonly string[]): Promise<(RecordVersion | null)[]>;
  /** The pending conflict of each record, in the order of the keys; null where there is none. */
  conflicts(model: string, keys: readonly string[]): Promise<(Conflict | null)[]>;
}
