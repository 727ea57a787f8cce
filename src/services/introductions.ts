/**
 * Who may replicate with whom. Both sides of a handshake look for what would make one replica's writes cover another's (a shared name or slot, anywhere in the roster), or what
 * could not be stored (other models); the message says what to change.
 */
import { modelMismatch } from '../replication/model.ts';
import { PROTOCOL, rosterClash, type Introduction } from '../replication/protocol.ts';
import { learnRoster, modelsOf, readEras, readRoster, type Replica } from '../storage/replica.ts';

export interface Introductions {
  own(): Promise<Introduction>;
  /**
   * Checks a peer and learns of those it knows.
   *
   * @param expected - The name it goes by in the configuration; null where it called.
   * @param delayMs - How long its introduction was on its way, about.
   * @throws IntroductionError with what does not fit.
   */
  accept(expected: string | null, peer: Introduction, delayMs: number): Promise<void>;
}

/** Two replicas that cannot replicate with each other, seen from this one: "it …, this replica …". */
export class IntroductionError extends Error {}

export interface IntroductionEvents {
  /** @param seconds - The peer's clock less this one's. */
  readonly skew: (peer: string, seconds: number) => void;
  readonly warn: (message: string) => void;
}

/** Beyond this a clock is worth setting right. It changes nothing about what is detected. */
const SKEW_LIMIT_SECONDS = 5;

export function createIntroductions(replica: Replica, events: IntroductionEvents): Introductions {
  /** Warnings are given when something comes to hold, not at every handshake. */
  const warned = new Set<string>();

  function warnOnce(about: string, holds: boolean, message: string): void {
    if (!holds) warned.delete(about);
    else if (!warned.has(about)) {
      warned.add(about);
      events.warn(message);
    }
  }

  return {
    async own() {
      const { db, name, id, policy } = replica;
      const [eras, roster, [time]] = await Promise.all([readEras(replica), readRoster(db), db.query('SELECT replication.clock()')]);
      const { incarnation } = eras.at(-1) as (typeof eras)[number];
      return {
        protocol: PROTOCOL,
        name,
        id,
        incarnation,
        roster,
        policy,
        models: modelsOf(replica).map((model) => ({ ...model, fields: [...model.fields] })),
        clock: Number(time?.[0]),
      };
    },

    async accept(expected, peer, delayMs) {
      const roster = await readRoster(replica.db);
      const problem = mismatch(replica, expected, peer) ?? rosterClash(roster, peer.roster);
      if (problem !== null) throw new IntroductionError(problem);
      const known = new Set(roster.map(({ id }) => id));
      const news = peer.roster.filter(({ id }) => !known.has(id));
      if (news.length > 0) await learnRoster(replica.db, news);

      warnOnce(
        `policy ${peer.name}`,
        peer.policy !== replica.policy,
        `peer "${peer.name}" has CONFLICT_POLICY ${peer.policy}, this replica ${replica.policy}: both hold the same, but show conflicts differently. Give both the same.`,
      );
      const [time] = await replica.db.query('SELECT replication.clock()');
      const skew = (peer.clock + delayMs * 1000 - Number(time?.[0])) / 1e6;
      events.skew(peer.name, skew);
      warnOnce(
        `clock ${peer.name}`,
        Math.abs(skew) > SKEW_LIMIT_SECONDS,
        `the clock of peer "${peer.name}" is ${Math.abs(skew).toFixed(1)} s ${skew > 0 ? 'ahead of' : 'behind'} this one's: no conflict is missed for it, but "latest" follows the clocks. Set it right.`,
      );
    },
  };
}

function mismatch(replica: Replica, expected: string | null, peer: Introduction): string | null {
  if (peer.protocol !== PROTOCOL) {
    return `it speaks protocol ${peer.protocol}, this replica ${PROTOCOL}. Run the same version of Replique on both`;
  }
  if (peer.id === replica.id) return 'it is this replica itself. Check PEERS, and give each replica a database of its own';
  if (peer.name === replica.name) return `both are named "${peer.name}". Give one of them another REPLICA name and an empty database`;
  if (expected !== null && peer.name !== expected) {
    return `PEERS calls it "${expected}", but its name is "${peer.name}". Write ${peer.name}=… in PEERS`;
  }
  const member = peer.roster.find(({ id }) => id === peer.id);
  if (member === undefined) return 'it is not in its own roster: it is no sound replica';
  if (member.stride !== replica.stride) {
    return `it uses id stride ${member.stride}, this replica ${replica.stride}. Give both the same ID_STRIDE`;
  }
  return modelMismatch(modelsOf(replica), peer.models)?.concat('. Bring both to the same version of prisma/schema.prisma') ?? null;
}
