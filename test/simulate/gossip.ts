/**
 * Many replicas that each talk to a few others: how many rounds a change takes to reach all of them, and what goes over the wire for it.
 *
 * Two numbers grow with the count of replicas whatever the changes: a version's vector has an entry for each replica that ever wrote to its record, and the
 * roster, which every handshake carries, one for each replica.
 */
import type { RosterMember } from '../../src/replication/protocol.ts';
import { toWire } from '../../src/replication/wire.ts';
import type { Version } from '../../src/replication/version.ts';
import { nameAt } from '../replication/player.ts';
import { heldAnywhere } from '../replication/steps.ts';
import { idOf } from '../support/model.ts';
import { holds } from '../support/oracle.ts';
import { createWorld, type Batch, type World } from '../support/world.ts';
import { createChance, type Chance } from './chance.ts';

export interface GossipReport {
  readonly replicas: number;
  /** With whom a replica talks in each round: one of so many fixed neighbours; 0: anyone. */
  readonly neighbours: number;
  /** Until all hold what some replicas wrote to records of their own. */
  readonly spread: Stage;
  /** Until all hold a record that every replica wrote to, one after another, each having seen the writes before it. */
  readonly widest: Stage & { readonly vectorEntries: number; readonly versionBytes: number };
  readonly rosterBytes: number;
  readonly heapMegabytes: number;
}

export interface Stage {
  readonly rounds: number;
  readonly messages: number;
  /** Records as they stand in messages: JSON, not compressed. */
  readonly bytes: number;
}

/** Writes that are on their way at once in the first stage. */
const WRITES = 50;
/** No topology that holds together takes this long. */
const ROUNDS = 200;

export function gossip(seed: number, replicas: number, neighbours: number, progress: (text: string) => void): GossipReport {
  const chance = createChance(seed);
  const names = Array.from({ length: replicas }, (_, i) => nameAt(i));
  const world = createWorld(Object.fromEntries(names.map((name) => [name, 'field-wise' as const])));
  const peers = peersOf(names, neighbours, chance);
  const sizeOf = createScale();

  function stage(keys: readonly string[], told: string): Stage {
    let [rounds, messages, bytes] = [0, 0, 0];
    const goal = new Map(keys.map((key) => [key, heldAnywhere(world, key)]));
    const behind = (): number => names.filter((name) => keys.some((key) => !holds(world.oracle.pastOf(world.state(name, key)), goal.get(key) ?? 0n))).length;
    for (let left = behind(); left > 0; left = behind()) {
      if (++rounds > ROUNDS) throw new Error(`${left} of ${replicas} replicas still lack something after ${ROUNDS} rounds: give them more neighbours`);
      for (const name of names) {
        const peer = chance.of(peers.get(name) ?? names);
        if (peer === name) continue;
        for (const [from, to] of [[name, peer], [peer, name]] as const) {
          for (const batch of world.prepare(from, to, 1000)) {
            messages++;
            bytes += sizeOf(batch) + exchange(world, batch, sizeOf);
          }
        }
      }
      progress(`${replicas} replicas, ${told}: round ${rounds}, ${left} behind`);
    }
    return { rounds, messages, bytes };
  }

  const keys = Array.from({ length: WRITES }, (_, i) => `k${i}`);
  for (const key of keys) world.write(chance.of(names), { f1: key }, key);
  const spread = stage(keys, 'writes spread');

  const record = 'everyone';
  let wrote: string | null = null;
  for (const name of names) {
    if (wrote !== null) pass(world, wrote, name, record);
    world.write(name, { f1: name }, record);
    wrote = name;
  }
  const last = wrote === null ? undefined : world.state(wrote, record)[0];
  const widest = stage([record], 'a record that all have written spreads');
  return {
    replicas,
    neighbours,
    spread,
    widest: { ...widest, vectorEntries: Object.keys(last?.vector ?? {}).length, versionBytes: last ? JSON.stringify(toWire(last)).length : 0 },
    rosterBytes: JSON.stringify(names.map((name, i): RosterMember => ({ name, id: '00000000-0000-4000-8000-000000000000', slot: i + 1, stride: replicas }))).length,
    heapMegabytes: Math.round(process.memoryUsage().heapUsed / 1e6),
  };
}

/** Each knows its neighbours, and is known to them: a ring, so that all are joined, and others by chance. */
function peersOf(names: readonly string[], neighbours: number, chance: Chance): ReadonlyMap<string, readonly string[]> {
  if (neighbours === 0 || neighbours >= names.length) return new Map();
  const peers = new Map(names.map((name, i) => [name, [names[(i + 1) % names.length] as string]]));
  for (const [name, known] of peers) {
    while (known.length < neighbours) {
      const other = chance.of(names);
      if (other !== name && !known.includes(other)) known.push(other);
    }
  }
  return peers;
}

/** Delivers a batch and its answer; tells the answer's bytes. */
function exchange(world: World, batch: Batch, sizeOf: (message: Pick<Batch, 'records'>) => number): number {
  const answer = world.deliver(batch);
  if (answer === null) return 0;
  world.take(answer);
  return sizeOf(answer);
}

/** One record from one replica to another, past the feed: stands for a long time in which it got there. */
function pass(world: World, from: string, to: string, key: string): void {
  const [receiver, sender] = [world.replica(to), world.replica(from)];
  const end = { incarnation: receiver.server, position: 0 };
  world.take({ batch: { sender: idOf(receiver), receiver: idOf(sender), start: null, end, records: [], generations: [0, 0], rootChanges: 0 }, records: [[key, world.state(from, key)]] });
}

/** Versions are the same objects wherever they are, so that each is measured once. */
function createScale(): (message: Pick<Batch, 'records'>) => number {
  const sizes = new WeakMap<Version, number>();
  const sizeOf = (version: Version): number => {
    const known = sizes.get(version) ?? JSON.stringify(toWire(version)).length;
    sizes.set(version, known);
    return known;
  };
  return ({ records }) => records.reduce((all, [key, state]) => all + key.length + 12 + state.reduce((sum, version) => sum + sizeOf(version) + 1, 0), 0);
}
