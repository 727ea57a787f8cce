/** Telling the parts of one process that something happened, so that nothing has to look again and again. */
import type { ConflictChanges } from '../storage/conflicts.ts';

export interface Notices {
  /** Tells of changes to the conflict log, after they were committed. */
  conflicts(changes: ConflictChanges): void;
  /** Has `listener` called after each of them, until the returned function is called. */
  onConflicts(listener: (changes: ConflictChanges) => void): () => void;
}

export function createNotices(): Notices {
  const listeners = new Set<(changes: ConflictChanges) => void>();
  return {
    conflicts(changes) {
      if (changes.detected.length === 0 && changes.resolved.length === 0) return;
      for (const listener of listeners) listener(changes);
    },
    onConflicts(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
