/** What this replica knows of itself and of its peers. */

export type PeerState = 'CONNECTED' | 'UNREACHABLE' | 'REJECTED' | 'UNKNOWN';

export interface PeerStatus {
  readonly name: string;
  readonly url: string;
  readonly state: PeerState;
  /** ISO 8601 in UTC with microseconds. */
  readonly lastSyncAt: string | null;
  readonly pendingChanges: number;
  /** Seconds. */
  readonly lagSeconds: number;
  /** 0 to 1; null until first compared. */
  readonly consistency: number | null;
}

/** A record whose state cannot be shown in its table (a value taken by another record, a missing parent): it waits, and is tried again. */
export interface WaitingRecord {
  readonly model: string;
  readonly recordId: string;
  readonly reason: string;
  readonly values: Readonly<Record<string, unknown>> | null;
}

export interface ReplicaStatus {
  readonly name: string;
  records(): Promise<number>;
  pendingConflicts(): Promise<number>;
  peers(): Promise<PeerStatus[]>;
  /** Records set aside, in order of key, at most `first`. */
  waiting(first: number): Promise<WaitingRecord[]>;
  /** True when the database answers and is migrated. */
  ready(): Promise<boolean>;
}
