/** What is set aside since this database was restored to before what others have forgotten: what no peer has confirmed, kept until a person decides. */
import { z } from 'zod';

import { stampToInstant } from '../replication/clock.ts';
import { latest } from '../replication/policy.ts';
import { countAside, isReseeding, readAside, RefusedError, settleAside } from '../storage/asides.ts';
import type { Replica } from '../storage/replica.ts';
import { ServiceError } from './errors.ts';
import { pageSize, parse } from './input.ts';
import type { Keeper } from './keeper.ts';
import { toJsonValues } from './values.ts';

export interface SetAside {
  /** Names it for the page after it. */
  readonly id: string;
  readonly model: string;
  readonly recordId: string;
  /** ISO 8601 in UTC with microseconds. */
  readonly since: string;
  /** Of its latest version; null for a deletion. */
  readonly values: Readonly<Record<string, unknown>> | null;
}

export interface Asides {
  /** True until every member of the roster was heard of since the last such restore. */
  reseeding(): Promise<boolean>;
  count(): Promise<number>;
  /** In order of model and key, behind the entry `after`. @throws ServiceError BAD_USER_INPUT. */
  list(first: number, after: string | null): Promise<SetAside[]>;
  /** Writes the values again, as a new write. @throws ServiceError NOT_FOUND, UNIQUE_VIOLATION, BAD_USER_INPUT. */
  restore(model: string, recordId: string): Promise<void>;
  /** Lets it go. @throws ServiceError NOT_FOUND. */
  discard(model: string, recordId: string): Promise<void>;
}

const entryId = z
  .string()
  .max(4096)
  .transform((text) => Buffer.from(text, 'base64url').toString('utf8').split('\n', 2))
  .refine((parts): parts is [string, string] => parts.length === 2, 'is no id of an entry');

export function createAsides(replica: Replica, keeper: Pick<Keeper, 'wake'>): Asides {
  async function settle(model: string, recordId: string, bringBack: boolean): Promise<void> {
    const table = replica.tables.get(model);
    const found = table !== undefined && (await settleAside(replica, table, recordId, bringBack).catch((error: unknown) => {
      if (!(error instanceof RefusedError)) throw error;
      throw new ServiceError(error.taken ? 'UNIQUE_VIOLATION' : 'BAD_USER_INPUT', `${model} ${recordId} cannot be brought back: ${error.message}.`);
    }));
    if (!found) throw new ServiceError('NOT_FOUND', `no record ${recordId} of ${model} is set aside: a peer has confirmed it since, or somebody has decided. replica { setAside } lists those that are.`);
    if (bringBack) keeper.wake();
  }

  return {
    reseeding: () => isReseeding(replica),
    count: () => countAside(replica),
    async list(first, after) {
      const from = after === null ? null : (parse(entryId, after, 'after') as [string, string]);
      const records = await readAside(replica, parse(pageSize, first, 'first'), from);
      return records.flatMap(({ model, key, state, since }) => {
        const table = replica.tables.get(model);
        if (table === undefined) return [];
        const { fields } = latest(state);
        return [{ id: Buffer.from(`${model}\n${key}`).toString('base64url'), model, recordId: key, since: stampToInstant(since), values: fields && toJsonValues(table, key, fields) }];
      });
    },
    restore: (model, recordId) => settle(model, recordId, true),
    discard: (model, recordId) => settle(model, recordId, false),
  };
}
