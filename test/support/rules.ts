/** The core's functions that a world of replicas runs on, as arguments: the simulator puts a planted bug in the place of one. */
import { isWithheld, receive, resume, sameCheckpoint } from '../../src/replication/exchange.ts';
import { merge } from '../../src/replication/merge.ts';
import { resolve, writeLocally } from '../../src/replication/write.ts';

export const RULES = { isWithheld, merge, receive, resolve, resume, sameCheckpoint, writeLocally };

export type Rules = Readonly<typeof RULES>;
