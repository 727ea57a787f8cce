/**
 * Takes the steps of a history in a world, one after another.
 *
 * Steps are plain data and mean something in any world: numbers are taken modulo what there is. So a history with some steps left out is a history.
 */
import type { Policy } from '../../src/replication/policy.ts';
import type { Award } from '../support/awards.ts';
import type { Database } from '../support/model.ts';
import { createSessions, type SessionFaults } from '../support/sessions.ts';
import type { Answer, Batch, World } from '../support/world.ts';
import { createNetwork, ends, tear } from './network.ts';

export type Step =
  | { readonly do: 'write' | 'open'; readonly on: number; readonly key: number; readonly field: number; readonly value: number; readonly all?: boolean }
  | { readonly do: 'delete' | 'block'; readonly on: number; readonly key: number }
  | { readonly do: 'decide'; readonly on: number; readonly key: number; readonly how: number }
  | { readonly do: 'swap'; readonly on: number; readonly key: number; readonly with: number; readonly field: number }
  | { readonly do: 'award'; readonly on: number; readonly key: number; readonly how: number }
  | { readonly do: 'sync'; readonly on: number; readonly to: number; readonly limit: number; readonly fates: readonly number[] }
  | { readonly do: 'prepare'; readonly on: number; readonly to: number; readonly limit: number }
  | { readonly do: 'deliver' | 'answer'; readonly which: number; readonly again: boolean }
  | { readonly do: 'tear'; readonly which: number; readonly at: number }
  | { readonly do: 'backup' | 'restore' | 'restart' | 'crash' | 'commit' | 'unblock' | 'collect'; readonly on: number }
  | { readonly do: 'addField'; readonly on: number; readonly fill?: number | undefined }
  | { readonly do: 'skew'; readonly on: number; readonly by: number }
  | { readonly do: 'policy'; readonly on: number; readonly to: number }
  | { readonly do: 'cut' | 'heal'; readonly on: number; readonly to: number }
  | { readonly do: 'join'; readonly policy: number }
  /** Everything heals and is drained, and the promises are checked. */
  | { readonly do: 'rest' };

export interface PlayerOptions {
  readonly sessions?: SessionFaults;
  /** Told what a step did, in words; not called for one that did nothing. */
  readonly tell?: (text: string) => void;
  /** Called by `rest` once nothing hinders the replicas any more. */
  readonly rest?: () => void;
}

export interface Player {
  readonly take: (step: Step) => void;
  /** What arrived once and whose receiver and sender have not gone back in time since: when it comes again, nothing may change. */
  readonly arrived: () => readonly (Batch | Answer)[];
  /** How often what happened, by kind. */
  readonly counts: ReadonlyMap<string, number>;
}

export const POLICIES: readonly Policy[] = ['manual', 'latest', 'field-wise'];
export const KEYS = ['r', 's', 't', 'u', 'v'] as const;

export function createPlayer(world: World, { sessions: faults, tell, rest }: PlayerOptions = {}): Player {
  const sessions = createSessions(world, faults);
  const backups = new Map<string, Database>();
  const counts = new Map<string, number>();
  const count = (kind: string): void => void counts.set(kind, (counts.get(kind) ?? 0) + 1);
  const name = (n: number): string => (world.replicas[n % world.replicas.length] as { name: string }).name;
  const keyOf = (n: number): string => KEYS[n % KEYS.length] as string;
  const network = createNetwork(world, sessions, count);
  const { batches, answers } = network;
  const at = <T>(list: readonly T[], n: number): T | undefined => (list.length > 0 ? list[n % list.length] : undefined);

  function patchOf(step: { readonly on: number; readonly field: number; readonly value: number; readonly all?: boolean }): Record<string, string> {
    const value = `v${step.value}`;
    const { fields } = world.replica(name(step.on)).database;
    const names = step.all ? fields : [fields[step.field % fields.length] as string];
    return Object.fromEntries(names.map((field) => [field, value]));
  }

  function take(step: Step): void {
    switch (step.do) {
      case 'write':
      case 'open': {
        const [who, key, patch] = [name(step.on), keyOf(step.key), patchOf(step)];
        const text = tell && `${Object.entries(patch).map(([field, value]) => `${who}.${field}=${value}`).join(' ')}${onRecord(key)}`;
        if (step.do === 'open') {
          if (!sessions.open(who, patch, key)) break;
          count('transactions');
          tell?.(`${text}, not committed yet`);
          break;
        }
        sessions.commit(who, [key]);
        if (!world.write(who, patch, key)) break;
        count('writes');
        tell?.(`${text}`);
        break;
      }
      case 'commit':
        sessions.commit(name(step.on));
        tell?.(`${name(step.on)} commits`);
        break;
      case 'delete':
        sessions.commit(name(step.on), [keyOf(step.key)]);
        if (!world.write(name(step.on), null, keyOf(step.key))) break;
        count('deletions');
        tell?.(`${name(step.on)}.delete${onRecord(keyOf(step.key))}`);
        break;
      case 'decide': {
        const [who, key, { how }] = [name(step.on), keyOf(step.key), step];
        sessions.commit(who, [key]);
        const values = { [world.fields[0] as string]: 'chosen' };
        const decision = how === 0 ? 'latest' : how === 1 ? 'field-wise' : how === 2 ? { values } : { side: how - 3 };
        if (!world.decide(who, decision, key)) break;
        count('decisions');
        const text = typeof decision === 'string' ? decision : 'values' in decision ? 'f1=chosen' : `side ${decision.side + 1}`;
        tell?.(`${who} resolves ${text}${onRecord(key)}`);
        break;
      }
      case 'swap': {
        const [who, key, other] = [name(step.on), keyOf(step.key), keyOf(step.with)];
        const field = at(world.replica(who).database.fields, step.field) as string;
        sessions.commit(who, [key, other]);
        if (key === other || !world.swap(who, key, other, field)) break;
        count('swaps');
        tell?.(`${who} swaps ${field} of ${key} and ${other}`);
        break;
      }
      case 'award': {
        const [who, key] = [name(step.on), keyOf(step.key)];
        sessions.commit(who);
        const award = (['keep', 'take', { values: { [world.fields[0] as string]: `w${step.how}` } }] as const)[step.how % 3] as Award;
        if (!world.award(who, award, key)) break;
        count('awards');
        tell?.(`${who} resolves whose value it is: ${typeof award === 'string' ? award : 'another'}${onRecord(key)}`);
        break;
      }
      case 'sync': {
        const [from, to] = [name(step.on), name(step.to)];
        const told = network.sync(from, to, step.limit, step.fates);
        if (told) tell?.(`${from}→${to}${told.length > 0 ? `, ${told.join(', ')}` : ''}`);
        break;
      }
      case 'prepare': {
        const [from, to] = [name(step.on), name(step.to)];
        if (from === to || network.isCut(from, to)) break;
        const prepared = world.prepare(from, to, step.limit);
        for (const batch of prepared) network.keep(batches, batch);
        if (prepared.length > 0) count('batches on their way');
        tell?.(`${from}⇢${to} (${prepared.length} on the way)`);
        break;
      }
      case 'deliver': {
        const batch = at(batches, step.which);
        if (batch === undefined) break;
        if (!step.again) batches.splice(batches.indexOf(batch), 1);
        const answer = network.deliver(batch);
        if (answer) network.keep(answers, answer);
        count(answer ? 'late batches' : 'late batches refused');
        tell?.(`${ends(batch).join('⇢')} arrives${batch.records.length > 0 ? ` (${batch.records.map(([key]) => key).join(', ')})` : ''}${answer ? '' : ', refused'}`);
        break;
      }
      case 'answer': {
        const answer = at(answers, step.which);
        if (answer === undefined) break;
        if (!step.again) answers.splice(answers.indexOf(answer), 1);
        if (!network.takeAnswer(answer)) break;
        count('late answers');
        tell?.(`${ends(answer.batch).join('⇢')} is answered`);
        break;
      }
      case 'tear': {
        const batch = at(batches, step.which);
        if (batch === undefined) break;
        tear(batch, step.at);
        count('torn');
        tell?.(`${ends(batch).join('⇢')} torn`);
        break;
      }
      case 'block':
        sessions.commit(name(step.on));
        world.block(name(step.on), keyOf(step.key));
        count('records that cannot be shown');
        tell?.(`${name(step.on)} cannot show ${keyOf(step.key)}`);
        break;
      case 'unblock':
        sessions.commit(name(step.on));
        world.unblock(name(step.on));
        tell?.(`${name(step.on)} can show all again`);
        break;
      case 'collect': {
        const dropped = world.collect(name(step.on));
        if (dropped > 0) tell?.(`${name(step.on)}.collect`);
        break;
      }
      case 'backup':
        backups.set(name(step.on), world.backup(name(step.on)));
        tell?.(`${name(step.on)}.backup`);
        break;
      case 'restore': {
        const backup = backups.get(name(step.on));
        if (backup === undefined) break;
        crash(name(step.on));
        network.forget(name(step.on));
        world.restore(name(step.on), backup);
        count('restores');
        tell?.(`${name(step.on)}.restore`);
        break;
      }
      case 'restart':
        crash(name(step.on));
        world.restart(name(step.on));
        count('restarts');
        tell?.(`${name(step.on)} and its database restart`);
        break;
      case 'crash':
        crash(name(step.on));
        count('crashes');
        tell?.(`${name(step.on)} crashes`);
        break;
      case 'addField':
        sessions.commit(name(step.on));
        if (!world.addField(name(step.on), 'f3', step.fill === undefined ? undefined : `v${step.fill}`)) break;
        count('upgrades');
        tell?.(`${name(step.on)} is upgraded: f3${step.fill === undefined ? '' : `, filled with v${step.fill}`}`);
        break;
      case 'skew':
        world.replica(name(step.on)).skew = step.by;
        count('skews');
        tell?.(`${name(step.on)}'s clock: ${step.by}`);
        break;
      case 'policy':
        sessions.commit(name(step.on));
        world.setPolicy(name(step.on), at(POLICIES, step.to) as Policy);
        count('changes of policy');
        tell?.(`${name(step.on)}: ${at(POLICIES, step.to)}`);
        break;
      case 'cut':
      case 'heal': {
        const [a, b] = [name(step.on), name(step.to)].toSorted() as [string, string];
        if (!network.setCut(a, b, step.do === 'cut')) break;
        count(step.do === 'cut' ? 'cuts' : 'healed');
        tell?.(`${a} and ${b} ${step.do === 'cut' ? 'cannot reach' : 'reach'} each other`);
        break;
      }
      case 'join': {
        const newcomer = nameAt(world.replicas.length);
        world.add(newcomer, at(POLICIES, step.policy) as Policy);
        count('joins');
        tell?.(`${newcomer} joins: ${at(POLICIES, step.policy)}`);
        break;
      }
      case 'rest':
        network.heal();
        for (const replica of world.replicas) {
          sessions.commit(replica.name);
          world.unblock(replica.name);
        }
        tell?.('all heals, and comes to rest');
        rest?.();
    }
  }

  function crash(who: string): void {
    if (sessions.lose(who) > 0) count('transactions lost');
    network.dropSessions(who);
  }

  return { take, arrived: network.arrived, counts };
}

/** a, b, … z, a1, b1, … */
export function nameAt(i: number): string {
  return `${String.fromCharCode(97 + (i % 26))}${i < 26 ? '' : Math.floor(i / 26)}`;
}

function onRecord(key: string): string {
  return key === KEYS[0] ? '' : ` (${key})`;
}
