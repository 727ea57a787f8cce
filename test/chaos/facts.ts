/** What the checker judges by, and what it tells. */
import type { Values } from './values.ts';

/** One write as its client saw it. */
export interface Operation {
  readonly id: number;
  readonly replica: string;
  readonly via: string;
  readonly kind: 'create' | 'update' | 'delete' | 'resolve';
  /** Null where nobody told. */
  readonly key: string | null;
  /** What it wrote; a deletion writes none. */
  readonly token: string | null;
  /** The address that it gave the record. */
  readonly email?: string;
  /** `unknown`: the answer never came. */
  readonly outcome: 'ok' | 'failed' | 'unknown';
  /** The list that its writer had read, where the write was to succeed only over that. */
  readonly expected?: string;
}

/** One write as its transaction noted it beside: it is there exactly if the write was committed. */
export interface Capture {
  readonly replica: string;
  readonly key: string;
  readonly before: Values | null;
  readonly after: Values | null;
}

export interface RecordState {
  readonly key: string;
  /** The vectors, in one form on every replica. */
  readonly version: string;
  readonly sides: readonly (Values | null)[];
  /** The addresses of the living sides, and who gave them when. */
  readonly claims: readonly Claim[];
  readonly row: Values | null;
  readonly waiting: boolean;
}

export interface Claim {
  readonly email: string;
  readonly by: readonly [replica: string, stamp: number];
}

export interface LogEntry {
  readonly id: number;
  readonly key: string;
  readonly kind: string;
  readonly pending: boolean;
  readonly sides: readonly (Values | null)[];
  readonly resolved: Values | null;
  /** Over an address: the record that has it, with its values. */
  readonly holder: { readonly key: string; readonly values: Values | null } | null;
}

/** What a replica that began anew has set aside, since no peer has confirmed it. */
export interface AsideRecord {
  readonly key: string;
  readonly sides: readonly (Values | null)[];
}

/** What one subscriber heard, in order. */
export interface Hearing {
  readonly replica: string;
  readonly who: string;
  /** The last conflict that was there before it listened. */
  readonly from: number;
  readonly ids: readonly number[];
}

export interface Evidence {
  readonly manual: boolean;
  readonly operations: readonly Operation[];
  readonly captures: readonly Capture[];
  /** By replica. */
  readonly states: ReadonlyMap<string, readonly RecordState[]>;
  readonly logs: ReadonlyMap<string, readonly LogEntry[]>;
  /** Entries of logs that a restore threw away. */
  readonly formerLogs: readonly LogEntry[];
  readonly hearings: readonly Hearing[];
  /** By replica; `listed` are the records that it tells of. */
  readonly asides: ReadonlyMap<string, { readonly records: readonly AsideRecord[]; readonly listed: readonly string[] }>;
  /** Replicas that began anew: the conflicts that were pending there are opened again as what they are over comes back. */
  readonly reseeded: ReadonlySet<string>;
  /** Writes that a restore may have taken with it, since no other replica had them, or that a person let go: `7 t1`. */
  readonly forgiven: ReadonlySet<string>;
  /** Records whose deletion a restore may have taken with it, that a person brought back, or that were written to by a restored replica before it heard of a deletion that is forgotten. */
  readonly forgivenDeletions: ReadonlySet<string>;
  /** Records that a person brought back: what is old there was written anew. */
  readonly broughtBack: ReadonlySet<string>;
}

export interface Violation {
  readonly rule: 'convergence' | 'loss' | 'resurrection' | 'false conflict' | 'invention' | 'log' | 'subscription' | 'expected version' | 'unique value' | 'set aside' | 'quiet' | 'process';
  readonly message: string;
  /** The record it is about. */
  readonly key?: string;
}
