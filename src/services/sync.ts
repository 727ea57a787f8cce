/** Sending this replica's changes to a peer. */
import type { Conflict } from './conflicts.ts';

export interface SyncResult {
  readonly peer: string;
  /** Records sent; that the peer took over; that it already had. */
  readonly sent: number;
  readonly applied: number;
  readonly skipped: number;
  /** Conflicts newly detected, each counted once. */
  readonly conflictsDetected: number;
  /** Those of them that this replica's log holds, in order of id, at most `first` (1 to 1000). */
  conflicts(first: number): Promise<Conflict[]>;
  readonly durationMs: number;
}

export interface Sync {
  /**
   * Sends to a peer every change that it has not acknowledged.
   * @throws ServiceError UNKNOWN_PEER, PEER_UNREACHABLE, PEER_REJECTED.
   */
  syncTo(peer: string): Promise<SyncResult>;
}
