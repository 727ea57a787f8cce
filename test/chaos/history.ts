/** What was done and what came of it: kept in memory for the checker, and line by line in the run's folder for whoever has to understand a failure. */
import { createWriteStream } from 'node:fs';

import type { Capture, LogEntry, Operation } from './facts.ts';

export interface History {
  readonly operations: Operation[];
  readonly captures: Capture[];
  readonly formerLogs: LogEntry[];
  readonly forgiven: Set<string>;
  readonly forgivenDeletions: Set<string>;
  readonly broughtBack: Set<string>;
  /** How many faults of each kind there were. */
  readonly faults: Map<string, number>;
  /** A token that nobody has written yet. */
  token(): string;
  /** The same as an address. */
  address(): string;
  operation(operation: Omit<Operation, 'id'>, began: number): void;
  fault(kind: string, detail: string): void;
  note(what: object): void;
  close(): Promise<void>;
}

export function createHistory(file: string): History {
  const lines = createWriteStream(file);
  const began = performance.now();
  const at = (): number => Math.round(performance.now() - began);
  let tokens = 0;
  const history: History = {
    operations: [],
    captures: [],
    formerLogs: [],
    forgiven: new Set(),
    forgivenDeletions: new Set(),
    broughtBack: new Set(),
    faults: new Map(),
    token: () => `t${(tokens++).toString(36)}`,
    address: () => `e${(tokens++).toString(36)}@x.org`,
    operation(operation, since) {
      const whole = { id: history.operations.length, ...operation };
      history.operations.push(whole);
      history.note({ since: Math.round(since - began), ...whole });
    },
    fault(kind, detail) {
      history.faults.set(kind, (history.faults.get(kind) ?? 0) + 1);
      history.note({ fault: kind, detail });
    },
    note: (what) => void lines.write(`${JSON.stringify({ at: at(), ...what })}\n`),
    close: () => new Promise((resolve) => lines.end(resolve)),
  };
  return history;
}
