/** Conflicts: the log, how its entries are settled, and who hears of them. */
import type { VersionVector } from './records.ts';

export type ConflictKind = 'UPDATE_UPDATE' | 'UPDATE_DELETE' | 'INSERT_INSERT' | 'UNIQUE';
export type ConflictStatus = 'PENDING' | 'RESOLVED';
export type Strategy = 'LATEST' | 'FIELD_WISE';

/** One side of a conflict. Instants are ISO 8601 in UTC with microseconds. */
export interface ConflictVersion {
  readonly recordId: string;
  readonly replica: string;
  /** The record's values by field name, its key among them, as JSON holds them; null where this side is a deletion. */
  readonly values: Readonly<Record<string, unknown>> | null;
  readonly deleted: boolean;
  readonly changedFields: readonly string[];
  readonly updatedAt: string;
  readonly version: VersionVector;
}

export interface Conflict {
  /** This replica's own number, in decimal digits. */
  readonly id: string;
  readonly model: string;
  readonly recordId: string;
  readonly kind: ConflictKind;
  readonly status: ConflictStatus;
  readonly fields: readonly string[];
  readonly versions: readonly ConflictVersion[];
  readonly detectedAt: string;
  readonly resolvedAt: string | null;
  readonly resolution: 'latest' | 'field-wise' | 'manual' | null;
  readonly resolvedBy: string | null;
  readonly resolvedValues: Readonly<Record<string, unknown>> | null;
}

/** A peer that did not get the outcome of a resolution yet; the next sync in either direction carries it. */
export interface Undelivered {
  readonly peer: string;
  readonly reason: string;
}

export interface ResolutionResult {
  readonly resolved: number;
  readonly remaining: number;
  /** The conflicts resolved, in order of id, at most `first` of them (1 to 1000). */
  conflicts(first: number): Promise<Conflict[]>;
  readonly undelivered: readonly Undelivered[];
  readonly durationMs: number;
}

export interface Conflicts {
  /** Newest first, those older than the conflict `after`; `first` is 1 to 1000, 100 where it is not given. */
  list(page: { status?: ConflictStatus | null | undefined; first?: unknown; after?: unknown }): Promise<Conflict[]>;
  get(id: unknown): Promise<Conflict | null>;
  /**
   * Resolves those named, or all that are pending, and carries the outcome to the peers that can be reached.
   * @throws ServiceError BAD_USER_INPUT, NOT_FOUND (an unknown id; nothing is done).
   */
  resolveAll(strategy: Strategy, ids?: unknown): Promise<ResolutionResult>;
  /**
   * By hand: either a side, by its replica's name, or values laid over what this replica shows.
   * @throws ServiceError BAD_USER_INPUT, NOT_FOUND, ALREADY_RESOLVED, UNIQUE_VIOLATION.
   */
  resolveOne(id: unknown, choice: { chosenVersion?: unknown; values?: unknown }): Promise<Conflict>;
  /**
   * Each conflict as it is detected; with `after`, first all detected since that conflict. Ends when the signal aborts.
   * @throws ServiceError BAD_USER_INPUT (an unknown id), before the first value.
   */
  detected(after: unknown, signal?: AbortSignal): Promise<AsyncIterableIterator<Conflict>>;
  resolvedFromNow(signal?: AbortSignal): Promise<AsyncIterableIterator<Conflict>>;
}
