/** The core's functions that a world of replicas runs on, as arguments: the simulator puts a planted bug in the place of one. */
import { isWithheld, receive, resume, sameCheckpoint } from '../../src/replication/exchange.ts';
import { fellBehind, stablePlace } from '../../src/replication/knowledge.ts';
import { merge } from '../../src/replication/merge.ts';
import { partState } from '../../src/replication/reseed.ts';
import { doubtBy } from '../../src/replication/roots.ts';
import { claimsOf, holderOf, unmasked } from '../../src/replication/unique.ts';
import { resolve, writeBeside, writeLocally } from '../../src/replication/write.ts';

export const RULES = { claimsOf, doubtBy, fellBehind, holderOf, isWithheld, merge, partState, receive, resolve, resume, sameCheckpoint, stablePlace, unmasked, writeBeside, writeLocally };

export type Rules = Readonly<typeof RULES>;
