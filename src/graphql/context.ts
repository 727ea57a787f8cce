/** What every resolver is handed, made anew for each operation. */
import DataLoader from 'dataloader';

import type { PrismaClient } from '../generated/prisma/client.ts';
import type { Conflict } from '../services/conflicts.ts';
import type { Services } from '../services/services.ts';
import type { UserRow, VersionedUser } from '../services/users.ts';

export interface Context {
  readonly services: Services;
  /** For what Pothos reads by itself; writes go through the services. */
  readonly prisma: PrismaClient;
  readonly loaders: Loaders;
  /** The header of the request; null where it has none, and over a WebSocket. */
  readonly authorization: string | null;
  /** Aborts when the server closes: subscriptions end by themselves. */
  readonly closing: AbortSignal;
}

/** One question for all the records of an operation instead of one a record. */
export interface Loaders {
  /** Users as they are now, with their versions. */
  readonly versioned: DataLoader<UserRow, VersionedUser>;
  conflicts(model: string): DataLoader<string, Conflict | null>;
}

/** @returns loaders that batch but never remember: a mutation's second field must see what the first one wrote. */
export function createLoaders({ records, users }: Services): Loaders {
  return {
    versioned: new DataLoader((rows) => users.versioned(rows), { cache: false }),
    conflicts: byModel((model, keys) => records.conflicts(model, keys)),
  };
}

function byModel<T>(load: (model: string, keys: readonly string[]) => Promise<(T | null)[]>) {
  const loaders = new Map<string, DataLoader<string, T | null>>();
  return (model: string): DataLoader<string, T | null> => {
    let loader = loaders.get(model);
    if (!loader) {
      loader = new DataLoader((keys) => load(model, keys), { cache: false });
      loaders.set(model, loader);
    }
    return loader;
  };
}
