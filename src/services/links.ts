/**
 * A link carries this replica's changes to one peer: a handshake, then batches of the feed from where the peer's checkpoint stands. The next batch is read while the peer
 * applies the last.
 */
import { PeerRejectedError, type PeerClient } from '../peers/client.ts';
import { resume, sameCheckpoint, type Checkpoint } from '../replication/exchange.ts';
import { PROTOCOL, type HandshakeResponse } from '../replication/protocol.ts';
import { applyRecords } from '../storage/apply.ts';
import { readPeer, storeAcknowledged, storeSynced } from '../storage/checkpoints.ts';
import type { ConflictRef } from '../storage/conflicts.ts';
import { readFeed } from '../storage/feed.ts';
import { readEras, type Replica } from '../storage/replica.ts';
import type { Introductions } from './introductions.ts';
import type { Keeper } from './keeper.ts';
import type { Notices } from './notices.ts';

/** What a push did. */
export interface Pushed {
  readonly sent: number;
  readonly applied: number;
  readonly skipped: number;
  readonly conflictsDetected: number;
  /** The first of the conflicts detected. */
  readonly conflicts: readonly Detected[];
}

/** A conflict that a sync detected: the number of its entry where that was opened here, null where the peer alone opened one. */
export interface Detected {
  readonly model: string;
  readonly key: string;
  readonly id: string | null;
}

export interface LinkOptions {
  readonly replica: Replica;
  readonly client: PeerClient;
  readonly introductions: Introductions;
  readonly keeper: Keeper;
  readonly notices: Notices;
  /** Told how many records an answer brought. */
  readonly onApplied?: (records: number) => void;
  /** Gives up where it stands: nothing is lost for it. */
  readonly signal?: AbortSignal;
}

/** How many of a sync's conflicts are remembered for its result: a page's worth. */
const REMEMBERED = 1_000;
/** Another process of this replica may send to the same peer between two of our batches: then the feed is taken up from where that one left it. */
const HANDSHAKES = 5;

/**
 * Sends a peer all that it has not acknowledged.
 *
 * @param answering - The peer is waiting for an answer meanwhile, and must not call back.
 * @throws PeerUnreachableError, PeerRejectedError
 */
export async function push({ replica, client, introductions, keeper, notices, onApplied, signal }: LinkOptions, answering: boolean): Promise<Pushed> {
  await keeper.settle();
  let total: Pushed = { sent: 0, applied: 0, skipped: 0, conflictsDetected: 0, conflicts: [] };
  for (let attempt = 1; ; attempt++) {
    const sentAt = performance.now();
    const peer = await client.handshake({ ...(await introductions.own()), answering }, signal);
    await introductions.accept(client.name, peer, (performance.now() - sentAt) / 2);
    try {
      await sendFeed(peer);
      await storeSynced(replica.db, client.name);
      return total;
    } catch (error) {
      const overtaken = error instanceof PeerRejectedError && error.code === 'CHECKPOINT_MISMATCH';
      if (!overtaken || attempt === HANDSHAKES) throw error;
    }
  }

  async function sendFeed(peer: HandshakeResponse): Promise<void> {
    const eras = await readEras(replica);
    const { incarnation } = eras.at(-1) as (typeof eras)[number];
    const { acknowledged } = await readPeer(replica.db, peer.name);
    const { after, restored } = resume(peer.checkpoint, eras, acknowledged);
    if (restored) replica.report(`this database went back in time: peer "${client.name}" had taken more of its changes. What was lost comes back with its next sync`);
    const peerId = `${peer.name}.${peer.incarnation}`;
    let start: Checkpoint | null = peer.checkpoint && { incarnation: peer.checkpoint.incarnation, position: peer.checkpoint.position };
    let reading = readFeed(replica, after, peerId);
    for (;;) {
      const batch = await reading;
      const end: Checkpoint = { incarnation, position: batch.end };
      if (batch.records.length === 0 && !batch.more && sameCheckpoint(start, batch.end === 0 ? null : end)) {
        if (peer.checkpoint !== null) await storeAcknowledged(replica.db, peer.name, peer.checkpoint);
        return;
      }
      if (batch.more) {
        reading = readFeed(replica, batch.end, peerId);
        // Awaited in the next round; if this one fails first, its failure is the one to tell.
        reading.catch(() => {});
      }
      const { name, id } = replica;
      const sender = { name, id, incarnation };
      const answer = await client.changes({ protocol: PROTOCOL, sender, receiver: peer.incarnation, start, end, records: [...batch.records] }, signal);
      const reported = await applyRecords(replica, peer, answer.records, null);
      notices.conflicts(reported.conflicts);
      onApplied?.(reported.applied);
      await storeAcknowledged(replica.db, peer.name, { ...end, taker: peer.incarnation });
      total = addTo(total, batch.records.length, answer, reported.conflicts.detected);
      if (!batch.more) return;
      start = end;
    }
  }
}

function addTo(
  total: Pushed,
  sent: number,
  answer: { readonly applied: number; readonly skipped: number; readonly detected: readonly (readonly [string, string])[] },
  detectedHere: readonly ConflictRef[],
): Pushed {
  // Both sides log the same conflict; it counts once.
  const detected = new Map<string, Detected>(answer.detected.map(([model, key]) => [`${model} ${key}`, { model, key, id: null }]));
  for (const { model, key, id } of detectedHere) detected.set(`${model} ${key}`, { model, key, id });
  return {
    sent: total.sent + sent,
    applied: total.applied + answer.applied,
    skipped: total.skipped + answer.skipped,
    conflictsDetected: total.conflictsDetected + detected.size,
    conflicts: total.conflicts.length < REMEMBERED ? [...total.conflicts, ...detected.values()].slice(0, REMEMBERED) : total.conflicts,
  };
}
