/** What answers the peers' messages. */
import { RefusalError, type PeerHandlers } from '../peers/endpoint.ts';
import type { ChangesRequest, ChangesResponse } from '../replication/protocol.ts';
import { applyRecords, BatchError } from '../storage/apply.ts';
import { readPeer } from '../storage/checkpoints.ts';
import { readDigests, readKeyDigests } from '../storage/digest.ts';
import { refreshSchema, schemaOf, type Replica } from '../storage/replica.ts';
import type { SyncEvents } from './channel.ts';
import type { Channels } from './channels.ts';
import { IntroductionError, type Introductions } from './introductions.ts';
import type { Notices } from './notices.ts';

export interface HandlersOptions {
  readonly replica: Replica;
  readonly channels: Pick<Channels, 'get'>;
  readonly introductions: Introductions;
  readonly notices: Notices;
  readonly events: Pick<SyncEvents, 'applied'>;
  /** Each change goes out as it is made, and so does what a peer is owed. */
  readonly live: boolean;
}

/** One that is taken, one that is read meanwhile, and as many that a sender has given up waiting for. */
const AT_A_TIME = 4;

export function createHandlers({ replica, channels, introductions, notices, events, live }: HandlersOptions): Omit<PeerHandlers, 'inspect' | 'resend'> {
  /** A sender's batches are taken one after the other: the next may come while this one is. By its id, how many there are, and the end of the last. */
  const turns = new Map<string, { count: number; over: Promise<void> }>();

  async function take({ sender, receiver, generation = 0, roots, schema, start, end, more, records, columns }: ChangesRequest): Promise<ChangesResponse> {
    // The peer may have shaken hands with another process of this replica, which has seen more.
    if (schema !== undefined && schema !== schemaOf(replica)) await refreshSchema(replica);
    if (schema !== undefined && schema !== schemaOf(replica)) {
      throw new RefusalError('CHECKPOINT_MISMATCH', 'the fields of its models have changed since the handshake. Begin with another one');
    }
    try {
      const { applied, skipped, conflicts, differing, owed, fresh } = await applyRecords(replica, sender, records, { receiver, start, end, more }, { incarnation: receiver, generation, rootChanges: roots }, columns);
      notices.conflicts(conflicts);
      events.applied(sender.name, applied);
      if (applied > 0) notices.changed(fresh);
      // A sync may go on without a handshake.
      if (owed && !more && !live) await channels.get(sender.name)?.settleDebt();
      return { applied, skipped, detected: conflicts.detected.map(({ model, key }) => [model, key]), records: [...differing] };
    } catch (error) {
      throw error instanceof BatchError ? new RefusalError(error.code, error.message) : error;
    }
  }

  return {
    async handshake({ answering, ...peer }) {
      await introductions.accept(null, peer, 0).catch((error: unknown) => {
        throw error instanceof IntroductionError ? new RefusalError('REFUSED', error.message) : error;
      });
      const channel = channels.get(peer.name);
      if (!answering) await channel?.settleDebt();
      await channel?.heardOf(true);
      const [own, { taken }] = await Promise.all([introductions.own(), readPeer(replica.db, peer.name)]);
      return { ...own, checkpoint: taken, schema: schemaOf(replica), columns: true };
    },

    async changes(batch) {
      const { id, name } = batch.sender;
      const own = turns.get(id) ?? { count: 0, over: Promise.resolve() };
      if (own.count === AT_A_TIME) throw new RefusalError('REFUSED', `it has ${AT_A_TIME} batches of replica "${name}" to take already. Wait for its answers`);
      turns.set(id, own);
      own.count++;
      const ended = channels.get(name)?.receive();
      const taking = own.over.then(() => take(batch));
      own.over = taking
        .then(
          () => ended?.(batch.more),
          () => ended?.(false),
        )
        .then(() => {
          own.count--;
          if (own.count === 0) turns.delete(id);
        });
      return taking;
    },

    async digest({ sender, buckets }) {
      await channels.get(sender)?.heardOf(false);
      const [digests, keys] = await Promise.all([buckets.length === 0 ? readDigests(replica) : [], readKeyDigests(replica, buckets)]);
      return { digests: digests.map((digest) => [...digest]), keys: keys.map((key) => [...key]) };
    },
  };
}
