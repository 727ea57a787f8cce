/**
 * The network between the replicas of a world: what is on its way, what becomes of it, and who cannot reach whom.
 */
import { toWire } from '../../src/replication/wire.ts';
import type { Sessions } from '../support/sessions.ts';
import type { Answer, Batch, World } from '../support/world.ts';

/** What is kept of the network's past. */
const REMEMBERED = 12;
/** What may be on its way at once; the oldest is lost beyond that. */
const IN_FLIGHT = 24;
/** What becomes of a batch in a sync; any other number arrives. */
const FATES = ['lost', 'ack lost', 'doubled', 'ack late', 'torn'] as const;

export interface Network {
  /** Batches and answers on their way. */
  readonly batches: Batch[];
  readonly answers: Answer[];
  /** What arrived once and whose receiver and sender have not gone back in time since. */
  readonly arrived: () => readonly (Batch | Answer)[];
  readonly isCut: (a: string, b: string) => boolean;
  /** Where two can reach each other and are not to, or the other way round. @returns whether that is news. */
  setCut(a: string, b: string, cut: boolean): boolean;
  /** Everybody reaches everybody. */
  heal(): void;
  /** Sends what there is; each batch meets its fate. @returns what became of those that did not simply arrive; null where the two cannot reach each other. */
  sync(from: string, to: string, limit: number, fates: readonly number[]): readonly string[] | null;
  /** Null where it is refused, or does not arrive. */
  deliver(batch: Batch): Answer | null;
  /** False where it does not arrive. */
  takeAnswer(answer: Answer): boolean;
  keep<T>(list: T[], message: T): void;
  /** What is said to a gateway is lost with it; what it said before is on its way. */
  dropSessions(who: string): void;
  /** Of one that goes back in time nothing that arrived counts any more. */
  forget(who: string): void;
}

/** @param count - Told of each message that did not simply arrive, by kind. */
export function createNetwork(world: World, sessions: Pick<Sessions, 'commit'>, count: (kind: string) => void): Network {
  const batches: Batch[] = [];
  const answers: Answer[] = [];
  let arrived: (Batch | Answer)[] = [];
  const cuts = new Set<string>();
  const link = (a: string, b: string): string => (a < b ? `${a}-${b}` : `${b}-${a}`);
  const isCut = (a: string, b: string): boolean => cuts.has(link(a, b));

  function deliver(batch: Batch): Answer | null {
    const [sender, receiver] = ends(batch);
    if (isCut(sender, receiver)) return null;
    sessions.commit(receiver, batch.records.map(([key]) => key));
    const answer = world.deliver(batch);
    if (answer) remember(batch);
    return answer;
  }

  function takeAnswer(answer: Answer): boolean {
    const [sender, receiver] = ends(answer.batch);
    if (isCut(sender, receiver)) return false;
    sessions.commit(sender, answer.records.map(([key]) => key));
    world.take(answer);
    remember(answer);
    return true;
  }

  function remember(message: Batch | Answer): void {
    arrived.push(message);
    if (arrived.length > REMEMBERED) arrived.shift();
  }

  return {
    batches,
    answers,
    arrived: () => arrived,
    isCut,
    deliver,
    takeAnswer,
    keep,

    setCut(a, b, cut) {
      if (a === b || isCut(a, b) === cut) return false;
      if (cut) cuts.add(link(a, b));
      else cuts.delete(link(a, b));
      return true;
    },

    heal: () => cuts.clear(),

    sync(from, to, limit, fates) {
      if (from === to || isCut(from, to)) return null;
      count('syncs');
      const told: string[] = [];
      const prepared = world.prepare(from, to, limit);
      for (const [i, batch] of prepared.entries()) {
        const which = prepared.length > 1 ? `batch ${i + 1} ` : '';
        const fate = FATES[fates[i] ?? -1] ?? 'arrives';
        if (fate !== 'arrives') {
          count(fate);
          told.push(`${which}${fate}`);
        }
        if (fate === 'lost') continue;
        if (fate === 'torn') {
          tear(batch, i);
          continue;
        }
        const answer = deliver(batch);
        if (fate === 'doubled') deliver(batch);
        if (answer === null || fate === 'ack lost') continue;
        if (fate === 'ack late') keep(answers, answer);
        else takeAnswer(answer);
      }
      return told;
    },

    dropSessions(who) {
      for (let i = answers.length - 1; i >= 0; i--) {
        if (ends((answers[i] as Answer).batch)[0] === who) answers.splice(i, 1);
      }
    },

    forget(who) {
      arrived = arrived.filter((message) => !ends('batch' in message ? message.batch : message).includes(who));
    },
  };
}

/** @throws Error where half of a message passes for a message. */
export function tear(batch: Batch, at: number): void {
  const { start, end, records } = batch;
  const text = JSON.stringify({ start, end, records: records.map(([key, state]) => [key, state.map(toWire)]) });
  try {
    JSON.parse(text.slice(0, at % text.length));
  } catch {
    return;
  }
  throw new Error(`a torn batch passes for a whole one: ${text.slice(0, at % text.length)}`);
}

function keep<T>(list: T[], message: T): void {
  list.push(message);
  if (list.length > IN_FLIGHT) list.shift();
}

/** Who sent a batch, and to whom, by name. */
export function ends({ sender, receiver }: Batch): [string, string] {
  return [sender.slice(0, sender.indexOf('.')), receiver.slice(0, receiver.indexOf('.'))];
}
