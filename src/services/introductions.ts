/**
 * Who may replicate with whom. Both sides of a handshake look for what would make one replica's writes cover another's (a shared name or slot, anywhere in the roster), or what
 * could not be stored (other models); the message says what to change.
 */
import { modelMismatch, uniqueMismatch, type ReplicatedModel } from '../replication/model.ts';
import { PROTOCOL, rosterClash, type Introduction } from '../replication/protocol.ts';
import { storeClockSkew } from '../storage/addresses.ts';
import { hearKnowledge, tellKnowledge, type Heard } from '../storage/knowledge.ts';
import { reseed } from '../storage/reseed.ts';
import { learnRoster, modelsOf, readEras, readRoster, refreshSchema, uniqueOf, type Replica } from '../storage/replica.ts';

/** What hearing a peer changed here. */
export interface Accepted {
  /** This replica has begun anew. */
  readonly anew: boolean;
  /** How often what its records go back to had changed, before it heard and after: of what changed by that, the peer knows. */
  readonly rootChanges: readonly [before: number, after: number];
}

export interface Introductions {
  own(): Promise<Introduction>;
  /**
   * Checks a peer and learns of those it knows.
   *
   * @param expected - The name it goes by in the configuration; null where it called.
   * @param delayMs - How long its introduction was on its way, about.
   * @returns Whether what this replica said of itself before holds no more.
   * @throws IntroductionError with what does not fit.
   */
  accept(expected: string | null, peer: Introduction, delayMs: number): Promise<Accepted>;
}

/** Two replicas that cannot replicate with each other, seen from the one that called, which shows it: "it …, this replica …". */
export class IntroductionError extends Error {}

export interface IntroductionEvents {
  /** @param seconds - The peer's clock less this one's. */
  readonly skew: (peer: string, seconds: number) => void;
  readonly warn: (message: string) => void;
}

/** Of a peer that does not collect. */
const UNTOLD: Heard = { behind: false, rootChanges: [0, 0] };
/** Beyond this a clock is worth setting right. It changes nothing about what is detected. */
const SKEW_LIMIT_SECONDS = 5;
/** Below this a clock is where it was: each note is a write, and a handshake is to cost none. */
const SAME_CLOCK_SECONDS = 0.1;

export function createIntroductions(replica: Replica, events: IntroductionEvents): Introductions {
  /** Warnings are given when something comes to hold, not at every handshake. */
  const warned = new Set<string>();
  /** By peer, the skew that was stored last. */
  const noted = new Map<string, number>();

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
      const [eras, roster] = await Promise.all([readEras(replica), readRoster(db), refreshSchema(replica)]);
      const { collection, history } = await tellKnowledge(replica);
      // Read last: what comes before may wait for others.
      const [time] = await db.query('SELECT replication.clock()');
      const { incarnation } = eras.at(-1) as (typeof eras)[number];
      return {
        protocol: PROTOCOL,
        name,
        id,
        incarnation,
        roster,
        policy,
        models: modelsOf(replica).map((model) => ({ ...model, fields: [...model.fields] })),
        unique: uniqueOf(replica),
        clock: Number(time?.[0]),
        collection,
        history,
      };
    },

    async accept(expected, peer, delayMs) {
      // Read before anything that may take long.
      const [[time], roster] = await Promise.all([replica.db.query('SELECT replication.clock()'), readRoster(replica.db)]);
      const here: Party = { protocol: PROTOCOL, name: replica.name, id: replica.id, roster, models: modelsOf(replica) };
      const problem = (expected === null ? mismatch(peer, here) : (mismatch(here, peer) ?? misnamed(expected, peer))) ?? struckOut(expected === null, here, peer) ?? rosterClash(roster, peer.roster);
      if (problem !== null) throw new IntroductionError(problem);
      const known = new Map(roster.map((member) => [member.id, member]));
      const news = peer.roster.filter(({ id, struck }) => !known.has(id) || (struck && !known.get(id)?.struck));
      if (news.length > 0) await learnRoster(replica.db, news);
      const heard = peer.collection ? await hearKnowledge(replica, peer, peer.collection, peer.history) : UNTOLD;
      const aside = heard.behind ? await reseed(replica) : null;
      if (aside !== null) {
        events.warn(
          `this database was restored to before deletions that others have forgotten since, or took records from one that was: it takes everything anew from its peers' next syncs. ${aside} records that were here are set aside until a peer confirms them (replica { setAside })`,
        );
      }

      warnOnce(
        `policy ${peer.name}`,
        peer.policy !== replica.policy,
        `peer "${peer.name}" has CONFLICT_POLICY ${peer.policy}, this replica ${replica.policy}: both hold the same, but show conflicts differently. Give both the same.`,
      );
      const unlike = peer.unique === undefined ? null : uniqueMismatch(uniqueOf(replica), peer.unique);
      warnOnce(`unique ${peer.name}`, unlike !== null, `peer "${peer.name}" shows other rows than this replica where values collide: ${unlike}.`);
      const skew = (peer.clock + delayMs * 1000 - Number(time?.[0])) / 1e6;
      events.skew(peer.name, skew);
      if (!(Math.abs((noted.get(peer.name) ?? Number.NaN) - skew) < SAME_CLOCK_SECONDS)) {
        await storeClockSkew(replica.db, peer.name, skew);
        noted.set(peer.name, skew);
      }
      warnOnce(
        `clock ${peer.name}`,
        Math.abs(skew) > SKEW_LIMIT_SECONDS,
        `the clock of peer "${peer.name}" is ${Math.abs(skew).toFixed(1)} s ${skew > 0 ? 'ahead of' : 'behind'} this one's: no conflict is missed for it, but "latest" follows the clocks. Set it right.`,
      );
      return { anew: aside !== null, rootChanges: heard.rootChanges };
    },
  };
}

/** Why one who was struck is not listened to, said to the one that called. */
function struckOut(answering: boolean, here: Party, peer: Party): string | null {
  const struck = new Set([...here.roster, ...peer.roster].filter((member) => member.struck).map(({ id }) => id));
  const [caller, other] = answering ? [peer, here] : [here, peer];
  if (struck.has(caller.id)) return 'this replica was struck from the roster, and deletions were forgotten without it. Start it with an empty database: it gets everything from its peers';
  if (struck.has(other.id)) return 'it was struck from the roster, and deletions were forgotten without it. Start it with an empty database: it gets everything from its peers';
  return null;
}

/** What of an introduction tells whether two replicas fit each other. */
type Party = Pick<Introduction, 'protocol' | 'name' | 'id' | 'roster'> & { readonly models: readonly ReplicatedModel[] };

/** Why two replicas do not fit each other, said to the operator of `mine`. */
function mismatch(mine: Party, theirs: Party): string | null {
  if (theirs.protocol !== mine.protocol) {
    return `it speaks protocol ${theirs.protocol}, this replica ${mine.protocol}. Run the same version of Replique on both`;
  }
  if (theirs.id === mine.id) return 'it is this replica itself. Check PEERS, and give each replica a database of its own';
  if (theirs.name === mine.name) return `both are named "${mine.name}". Give one of them another REPLICA name and an empty database`;
  const [own, other] = [mine, theirs].map(({ id, roster }) => roster.find((member) => member.id === id));
  if (own === undefined || other === undefined) return 'one of the two is not in its own roster: it is no sound replica';
  if (other.stride !== own.stride) {
    return `it uses id stride ${other.stride}, this replica ${own.stride}. Give both the same ID_STRIDE`;
  }
  return modelMismatch(mine.models, theirs.models);
}

function misnamed(expected: string, { name }: Party): string | null {
  return name === expected ? null : `PEERS calls it "${expected}", but its name is "${name}". Write ${name}=… in PEERS`;
}
