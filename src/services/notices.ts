/** Telling the parts of one process that something happened, so that nothing has to look again and again. */
import { NO_CHANGES, type ConflictChanges } from '../storage/conflicts.ts';
import type { Fresh } from '../storage/feed.ts';

export interface Notices {
  /** Tells that states changed: there may be something to send. @param fresh - What, where that is known. */
  changed(fresh?: Fresh | null): void;
  /** Has `listener` called after each change of states, until the returned function is called. */
  onChanged(listener: (fresh: Fresh | null) => void): () => void;
  /** Tells of changes to the conflict log, after they were committed. */
  conflicts(changes: ConflictChanges): void;
  /** Tells that another process of this replica changed the conflict log. */
  conflictsElsewhere(): void;
  /** Has `listener` called after each of them, with no changes after those of others, until the returned function is called. */
  onConflicts(listener: (changes: ConflictChanges) => void): () => void;
}

export function createNotices(): Notices {
  const listeners = new Set<(changes: ConflictChanges) => void>();
  const watchers = new Set<(fresh: Fresh | null) => void>();
  return {
    changed(fresh = null) {
      for (const watcher of watchers) watcher(fresh);
    },
    onChanged(watcher) {
      watchers.add(watcher);
      return () => watchers.delete(watcher);
    },
    conflicts(changes) {
      if (changes.detected.length === 0 && changes.resolved.length === 0) return;
      for (const listener of listeners) listener(changes);
    },
    conflictsElsewhere() {
      for (const listener of listeners) listener(NO_CHANGES);
    },
    onConflicts(listener) {
      listeners.add(listener);
      return () => listeners.delete(listener);
    },
  };
}
