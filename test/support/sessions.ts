/**
 * Transactions of writers that stay open for a while: the row is locked, nobody sees the write yet, and a crash takes it away unacknowledged.
 *
 * Two bugs of storage can be planted here, since a world by itself commits at once.
 */
import type { Fields } from '../../src/replication/version.ts';
import type { World } from './world.ts';

export interface SessionFaults {
  /** A write takes its place in the feed before it commits, and keeps it: there is no fence. */
  readonly placeAtOpen?: boolean;
  /** A write is acknowledged before it commits. */
  readonly acknowledgedAtOpen?: boolean;
}

export interface Sessions {
  /** False where another transaction holds the row. */
  readonly open: (name: string, patch: Fields | null, key: string) => boolean;
  /** Whoever needs these rows waits for their transactions. All of the replica's where no keys are given. */
  readonly commit: (name: string, keys?: readonly string[]) => void;
  /** How many transactions a crash of the database took away. */
  readonly lose: (name: string) => number;
}

interface Open {
  readonly patch: Fields | null;
  readonly place: number;
  readonly bit: bigint;
}

export function createSessions(world: World, { placeAtOpen = false, acknowledgedAtOpen = false }: SessionFaults = {}): Sessions {
  const replicas = new Map<string, Map<string, Open>>();
  const opened = (name: string): Map<string, Open> => {
    const known = replicas.get(name) ?? new Map<string, Open>();
    replicas.set(name, known);
    return known;
  };
  function commitOne(name: string, key: string, { patch, place, bit }: Open): void {
    opened(name).delete(key);
    const wrote = world.write(name, patch, key);
    if (bit > 0n) world.oracle.excuse(key, bit);
    if (place === 0 || !wrote) return;
    world.state(name, key);
    const { records } = world.replica(name).database;
    const record = records.get(key);
    if (record) records.set(key, { ...record, position: place });
  }
  return {
    open: (name, patch, key) => {
      if (opened(name).has(key)) return false;
      const place = placeAtOpen ? ++world.replica(name).database.head : 0;
      opened(name).set(key, { patch, place, bit: acknowledgedAtOpen ? world.oracle.next(key) : 0n });
      return true;
    },
    commit: (name, keys) => {
      const open = opened(name);
      if (open.size === 0) return;
      for (const [key, transaction] of open) {
        if (keys === undefined || keys.includes(key)) commitOne(name, key, transaction);
      }
    },
    lose: (name) => {
      const { size } = opened(name);
      opened(name).clear();
      return size;
    },
  };
}
