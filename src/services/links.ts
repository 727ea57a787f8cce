/**
 * A link carries this replica's changes to one peer: a handshake, then batches of the feed from where the peer's checkpoint stands. The next batch is read and sent, and what the
 * peer answered to the one before is taken over, while the peer applies the last.
 */
import { PeerRejectedError, type PeerClient } from '../peers/client.ts';
import { resume, sameCheckpoint, type Checkpoint } from '../replication/exchange.ts';
import { PROTOCOL, type ChangesResponse, type HandshakeResponse, type Introduction } from '../replication/protocol.ts';
import { applyRecords } from '../storage/apply.ts';
import { readPeer, storeAcknowledged, storeSynced } from '../storage/checkpoints.ts';
import type { ConflictRef } from '../storage/conflicts.ts';
import { readFeed, readNearFeed, type Batch, type Fresh } from '../storage/feed.ts';
import { readEras, schemaOf, type Replica } from '../storage/replica.ts';
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
  readonly keeper: Pick<Keeper, 'settle'>;
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

export interface Link {
  /**
   * Sends the peer all that it has not acknowledged. One push at a time: the peer's checkpoint allows no other.
   *
   * It goes on where the last push ended. What has changed meanwhile (another process of this replica, a restart on either side) the peer refuses, and the push begins with a handshake after all; so it does
   * where there is nothing to send: the peer is asked in any case.
   *
   * @param answering - The peer is waiting for an answer meanwhile, and must not call back.
   * @param warm - Send what is folded, and leave the peer alone where that is nothing.
   * @param fresh - What has just been folded: where the feed was sent up to there, it need not be read.
   * @throws PeerUnreachableError, PeerRejectedError, IntroductionError, BatchError
   */
  push(answering: boolean, warm: boolean, fresh?: Fresh | null): Promise<Pushed>;
  /** Whether what this replica and the peer know of others has not been told since a push: it goes with a handshake. */
  hasNews(): boolean;
  /** A handshake alone: each tells the other what it has. Throws as `push` does. */
  greet(): Promise<void>;
}

/** Where a push stands. */
interface Session {
  readonly peer: HandshakeResponse;
  /** This replica's incarnation. */
  readonly incarnation: string;
  /** How often this replica had forgotten records. */
  readonly generation: number;
  /** Its models, which the peer has found to fit its own. */
  readonly schema: string;
  /** How often what its records go back to had changed, at most as the peer was told. */
  readonly rootChanges: number;
  /** What the peer has stored. */
  start: Checkpoint | null;
  /** How far the feed was read: behind `start` where the peer had all in between. */
  read: number;
}

/** Captured writes that are on their way into the feed. */
interface Folding {
  readonly isOver: boolean;
  /** Waits until some of them are there, or all. */
  step(): Promise<void>;
}

const FOLDED: Folding = { isOver: true, step: async () => {} };

/** A batch under way. */
interface Flight {
  readonly count: number;
  /** Others follow. */
  readonly more: boolean;
  readonly end: Checkpoint;
  readonly size: number;
  readonly answer: Promise<ChangesResponse>;
  /** Whether the peer has said that it has the batch, before it answered or failed. */
  readonly taken: Promise<boolean>;
}

/** Two batches are under way at once where they are not longer than this together: the peer holds both, one being applied and one read. */
const AHEAD_LENGTH = 4 * 1024 * 1024;

const NOTHING: Pushed = { sent: 0, applied: 0, skipped: 0, conflictsDetected: 0, conflicts: [] };

export function createLink({ replica, client, introductions, keeper, notices, onApplied, signal }: LinkOptions): Link {
  let session: Session | null = null;
  let news = false;

  return {
    greet: () => meet(true).then(() => {}),
    hasNews: () => news,
    async push(answering, warm, fresh = null) {
      // Where each change goes out as it is made, whoever makes one sees to its being folded, and comes again then.
      const folding = warm ? FOLDED : fold();
      await folding.step();
      let total = NOTHING;
      for (let attempt = 1; ; attempt++) {
        const resumed = attempt === 1 ? session : null;
        session = null;
        const current = resumed ?? (await shakeHands(answering));
        try {
          let batches = 0;
          for await (const part of sendFeed(current, resumed !== null || warm, folding, attempt === 1 ? fresh : null)) {
            total = add(total, part);
            batches++;
          }
          if (batches === 0 && resumed !== null && !warm) continue;
          news ||= resumed !== null && !warm;
          if (batches === 0 && resumed === null) await storeSynced(replica.db, client.name);
          session = current;
          return total;
        } catch (error) {
          const overtaken = error instanceof PeerRejectedError && error.code === 'CHECKPOINT_MISMATCH';
          if (!overtaken || attempt === HANDSHAKES) throw error;
        }
      }
    },
  };

  function fold(): Folding {
    let isAhead = false;
    let wake = (): void => {};
    const over = keeper
      .settle(() => {
        isAhead = true;
        wake();
      })
      .then(() => void (folding.isOver = true));
    // Whoever waits for a step is told of it.
    over.catch(() => {});
    const folding = {
      isOver: false,
      async step() {
        if (!isAhead && !folding.isOver) await Promise.race([over, new Promise<void>((met) => (wake = met))]);
        isAhead = false;
      },
    };
    return folding;
  }

  async function meet(answering: boolean): Promise<{ readonly own: Introduction; readonly schema: string; readonly rootChanges: number; readonly peer: HandshakeResponse }> {
    const sentAt = performance.now();
    const schema = schemaOf(replica);
    const own = await introductions.own();
    const untold = news;
    news = false;
    const peer = await client.handshake({ ...own, answering }, signal).catch((error: unknown) => {
      news ||= untold;
      throw error;
    });
    const { anew, rootChanges: [before, after] } = await introductions.accept(client.name, peer, (performance.now() - sentAt) / 2);
    return anew || before !== (own.history?.changes ?? before) ? meet(answering) : { own, schema, rootChanges: after, peer };
  }

  async function shakeHands(answering: boolean): Promise<Session> {
    const { own, schema, rootChanges, peer } = await meet(answering);
    const [eras, { acknowledged }] = await Promise.all([readEras(replica), readPeer(replica.db, peer.name)]);
    const { after, restored } = resume(peer.checkpoint, eras, acknowledged);
    if (restored) replica.report(`this database went back in time: peer "${client.name}" had taken more of its changes. What was lost comes back with its next sync`);
    const told = peer.checkpoint;
    if (told !== null && !(sameCheckpoint(told, acknowledged) && told.taker === acknowledged?.taker)) await storeAcknowledged(replica.db, peer.name, told);
    const { incarnation } = eras.at(-1) as (typeof eras)[number];
    const generation = own.collection?.generation ?? 0;
    return { peer, incarnation, generation, schema, rootChanges, start: peer.checkpoint && { incarnation: peer.checkpoint.incarnation, position: peer.checkpoint.position }, read: after };
  }

  /**
   * @param quiet - Leave the peer's checkpoint unmoved where nothing is sent behind it.
   * @param folding - What is still to be sent, besides what is in the feed.
   * @param fresh - What is in the feed behind its place, where that is all.
   */
  async function* sendFeed(current: Session, quiet: boolean, folding: Folding, fresh: Fresh | null): AsyncGenerator<Pushed> {
    const { peer, incarnation, generation } = current;
    const peerId = `${peer.name}.${peer.incarnation}`;
    const byColumn = peer.columns === true;
    /** Whether all was in the feed when it was last read. */
    let isWhole = false;
    const read = (after: number, most?: number): Promise<Batch> => {
      isWhole = folding.isOver;
      return readFeed(replica, after, peerId, byColumn, most);
    };
    const readFirst = async (): Promise<Batch> => {
      isWhole = folding.isOver;
      if (isWhole && fresh?.after === current.read && (fresh.peer === null || fresh.peer === peerId)) return fresh.batch;
      // Behind a single write there is little.
      return (await readNearFeed(replica, current.read, peerId, byColumn)) ?? read(current.read);
    };
    let reading = readFirst();
    const { standing } = await reading;
    if (standing.incarnation !== incarnation) throw new PeerRejectedError('CHECKPOINT_MISMATCH', 'the database of this replica was restarted. It begins with a handshake again');
    // Else nothing would be taken of what the peer answers.
    if (standing.generation !== generation) throw new PeerRejectedError('CHECKPOINT_MISMATCH', 'this replica has forgotten deletions since. It begins with a handshake again');
    // The peer waits with what collides until it is told that nothing follows.
    let promised = false;
    // What the peer answered to the last batch is taken over while it has the next.
    let taking: Promise<Pushed> | null = null;
    const flights: Flight[] = [];
    /** Waits for answers until so few are under way. */
    async function* landed(left: number): AsyncGenerator<Pushed> {
      while (flights.length > left) {
        const flight = flights[0] as Flight;
        const { end } = flight;
        const told = await flight.answer;
        flights.shift();
        current.start = end;
        current.read = end.position;
        if (taking !== null) yield await taking;
        taking = takeAnswer(current, flight, told);
        taking.catch(() => {});
      }
    }
    try {
      for (;;) {
        const batch: Batch = await reading;
        const more = batch.more || !isWhole;
        if (batch.count === 0 && !isWhole) {
          await folding.step();
          reading = read(batch.end);
          continue;
        }
        const end: Checkpoint = { incarnation, position: batch.end };
        const moves = !sameCheckpoint(current.start, batch.end === 0 ? null : end);
        if (batch.count === 0 && !more && !promised && (quiet || !moves)) {
          current.read = batch.end;
          return;
        }
        if (more) {
          reading = batch.more ? read(batch.end, batch.next) : folding.step().then(() => read(batch.end, batch.next));
          // Awaited in the next round; if this one fails first, its failure is the one to tell.
          reading.catch(() => {});
        }
        // Reading is where it is noticed that another process has brought fields.
        if (schemaOf(replica) !== current.schema) throw new PeerRejectedError('CHECKPOINT_MISMATCH', 'the fields of the models have changed here. It begins with a handshake again');
        const size = batch.records.length + batch.columns.length;
        if (size + (flights[0]?.size ?? 0) > AHEAD_LENGTH) yield* landed(0);
        const flight = sendBatch(current, batch, flights.at(-1)?.end ?? current.start, end, more);
        flights.push(flight);
        promised = more;
        const isAhead = more && (await flight.taken);
        yield* landed(isAhead ? 1 : 0);
        if (!more) {
          if (taking !== null) yield await taking;
          return;
        }
      }
    } finally {
      await Promise.allSettled([taking, ...flights.map(({ answer }) => answer)]);
    }
  }

  /** @param start - What the peer will have stored by then. */
  function sendBatch({ peer, incarnation, rootChanges }: Session, batch: Batch, start: Checkpoint | null, end: Checkpoint, more: boolean): Flight {
    const { name, id } = replica;
    const { count, records, columns } = batch;
    // The peer has to know what its records go back to.
    if (peer.collection && batch.standing.rootChanges !== rootChanges) {
      throw new PeerRejectedError('CHECKPOINT_MISMATCH', 'this replica has met another history since. It begins with a handshake again');
    }
    let onTaken = (): void => {};
    const told = new Promise<true>((met) => (onTaken = () => met(true)));
    const answer = client.changes(
      { protocol: PROTOCOL, sender: { name, id, incarnation }, receiver: peer.incarnation, ...(peer.collection && { generation: peer.collection.generation }), ...(peer.schema && { schema: peer.schema }), ...(peer.history && { roots: peer.history.changes }), start, end, more, records, columns },
      signal,
      more ? onTaken : undefined,
    );
    const answered = answer.then(
      () => false,
      () => false,
    );
    return { count, more, end, size: records.length + columns.length, answer, taken: Promise.race([told, answered]) };
  }

  /** Takes over what the peer answered to a batch, and notes that it has that. */
  async function takeAnswer({ peer, incarnation, generation }: Session, { count, more, end }: Flight, answer: ChangesResponse): Promise<Pushed> {
    let detected: readonly ConflictRef[] = [];
    if (answer.records.length > 0) {
      const { applied, conflicts } = await applyRecords(replica, { name: peer.name, incarnation: peer.incarnation }, answer.records, null, { incarnation, generation });
      notices.conflicts(conflicts);
      if (applied > 0) notices.changed();
      onApplied?.(applied);
      detected = conflicts.detected;
    }
    await storeAcknowledged(replica.db, peer.name, { ...end, taker: peer.incarnation }, !more);
    return result(count, answer, detected);
  }
}

function result(sent: number, answer: ChangesResponse, detectedHere: readonly ConflictRef[]): Pushed {
  // Both sides log the same conflict; it counts once.
  const detected = new Map<string, Detected>(answer.detected.map(([model, key]) => [`${model} ${key}`, { model, key, id: null }]));
  for (const { model, key, id } of detectedHere) detected.set(`${model} ${key}`, { model, key, id });
  return { sent, applied: answer.applied, skipped: answer.skipped, conflictsDetected: detected.size, conflicts: [...detected.values()] };
}

function add(a: Pushed, b: Pushed): Pushed {
  return {
    sent: a.sent + b.sent,
    applied: a.applied + b.applied,
    skipped: a.skipped + b.skipped,
    conflictsDetected: a.conflictsDetected + b.conflictsDetected,
    conflicts: a.conflicts.length < REMEMBERED ? [...a.conflicts, ...b.conflicts].slice(0, REMEMBERED) : a.conflicts,
  };
}
