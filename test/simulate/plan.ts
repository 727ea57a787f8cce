/**
 * A history by chance, as data: who takes part and what happens.
 *
 * Each history has a character of its own: some kinds of fault are frequent in it, others absent. Were all of them in all, none would have the quiet that others need to show.
 */
import type { Policy } from '../../src/replication/policy.ts';
import type { UniqueKey } from '../../src/replication/unique.ts';
import { KEYS, POLICIES, type Step } from '../replication/player.ts';
import { linked, type Topology } from '../replication/steps.ts';
import { createChance, type Chance } from './chance.ts';

export interface Plan {
  readonly policies: readonly Policy[];
  readonly topology: Topology;
  readonly fields: readonly string[];
  readonly unique: readonly UniqueKey[];
  /** Tombstones are dropped. */
  readonly collects: boolean;
  readonly steps: readonly Step[];
}

export interface Size {
  /** How many replicas there are at first; 2 to 6 by chance unless told. */
  readonly replicas?: number | undefined;
  readonly steps: number;
}

const TOPOLOGIES: readonly Topology[] = ['mesh', 'ring', 'chain', 'star', 'random'];

/** Ways in which values may be unique: what gives way is marked, has no row, or is null; two fields together, beside one by itself. */
const MARKED: UniqueKey = { name: 'f1_key', fields: ['f1'], nullsClaim: false, yields: { field: 'f1', as: 'mark', longest: null } };
const UNIQUE: readonly (readonly UniqueKey[])[] = [
  [MARKED],
  [{ ...MARKED, yields: { field: 'f1', as: 'mark', longest: 3 } }],
  [{ ...MARKED, yields: { field: 'f1', as: 'null', longest: null } }],
  [MARKED, { name: 'f1_f2_key', fields: ['f1', 'f2'], nullsClaim: false, yields: { field: 'f2', as: 'null', longest: null } }],
  [{ name: 'f1_f2_key', fields: ['f1', 'f2'], nullsClaim: false, yields: { field: 'f1', as: 'mark', longest: null } }],
];

/** The same of a field that replicas come to know one after another. */
const UNIQUE_LATER: readonly UniqueKey[] = ['f3', 'f1 f3'].map((names): UniqueKey => ({ name: 'f3_key', fields: names.split(' '), nullsClaim: false, yields: { field: 'f3', as: 'null', longest: null } }));

/** Two clocks in three differ by less than a history takes; the others by hours, in microseconds. */
const HOUR = 3_600_000_000;

export function planOf(seed: number, { replicas, steps: length }: Size): Plan {
  const chance = createChance(seed);
  const count = replicas ?? 2 + chance.below(5);
  const one = chance.of(POLICIES);
  const mixed = chance.once(3);
  const topology = chance.of(TOPOLOGIES);
  const unique = [...(chance.once(3) ? chance.of(UNIQUE) : [])];
  const most = Math.max(1, ...unique.map((each) => each.fields.length));
  const upgrades = chance.once(4);
  const fields = ['f1', 'f2', 'f3'].slice(0, most + chance.below((upgrades ? 3 : 4) - most));
  if (upgrades && chance.once(3)) unique.push(chance.of(UNIQUE_LATER));
  const keys = unique.length > 0 ? 2 + chance.below(KEYS.length - 1) : 1 + chance.below(KEYS.length);
  const policies = Array.from({ length: count }, () => (mixed ? chance.of(POLICIES) : one));
  const collects = chance.once(3);
  const kinds = weights(chance, { mixed, collects, unique: unique.length > 0, upgrades });
  const between = 20 + chance.below(80);

  // Chance of its own: histories without newcomers stay what they are.
  const newcomers = createChance(~seed >>> 0);
  const seeded = collects && newcomers.once(2);
  let joined = count;
  const steps: Step[] = [];
  for (let i = 1; i <= length; i++) {
    if (i % between === 0 || i === length) {
      steps.push({ do: 'rest' });
      continue;
    }
    // Before anybody has met it who forgot deletions since its backup, a newcomer takes its feed.
    if (seeded && joined < count + 3 && newcomers.once(30)) {
      const { to: source } = link(newcomers, joined, joined + 1, topology);
      steps.push({ do: 'restore', on: source }, { do: 'join', policy: POLICIES.indexOf(mixed ? newcomers.of(POLICIES) : one) }, { do: 'sync', on: source, to: joined, limit: limitOf(newcomers), fates: [] });
      joined++;
    }
    const kind = pick(chance, kinds);
    if (kind === 'join' && joined >= count + 3) continue;
    if (kind === 'join') joined++;
    steps.push(stepOf(kind, chance, { replicas: joined, topology, keys, one, mixed }));
  }
  // In the end everybody knows the field.
  if (upgrades) for (let on = 0; on < joined; on++) steps.splice(-1, 0, { do: 'addField', on });
  return { policies, topology, fields, unique, collects, steps };
}

type Kind = Step['do'];

/** Kinds of step with how often they come. */
function weights(chance: Chance, { mixed, collects, unique, upgrades }: Readonly<Record<'mixed' | 'collects' | 'unique' | 'upgrades', boolean>>): readonly (readonly [Kind, number])[] {
  const some = (weight: number): number => (chance.once(2) ? weight * (1 + chance.below(3)) : 0);
  const sessions = some(2);
  const late = some(4);
  const blocked = some(1);
  const cuts = some(1);
  const restores = some(1);
  return [
    ['write', 14],
    ['sync', 6 + chance.below(14)],
    ['delete', some(2)],
    ['decide', some(3)],
    ['swap', unique ? some(2) : 0],
    ['award', unique ? some(3) : 0],
    ['addField', upgrades ? 1 : 0],
    ['open', sessions],
    ['commit', sessions],
    ['crash', some(1)],
    ['prepare', late],
    ['deliver', late * 2],
    ['answer', late],
    ['tear', late > 0 ? 1 : 0],
    ['block', blocked],
    ['unblock', blocked],
    ['backup', restores],
    ['restore', restores],
    ['restart', some(1)],
    ['skew', some(1)],
    ['policy', mixed ? some(1) : 0],
    ['cut', cuts],
    ['heal', cuts],
    ['join', !collects && chance.once(4) ? 1 : 0],
    ['collect', collects ? 4 + chance.below(8) : 0],
  ];
}

function pick(chance: Chance, kinds: readonly (readonly [Kind, number])[]): Kind {
  let left = chance.below(kinds.reduce((all, [, weight]) => all + weight, 0));
  for (const [kind, weight] of kinds) {
    left -= weight;
    if (left < 0) return kind;
  }
  throw new Error('chance is beyond what there is');
}

interface Surroundings {
  readonly replicas: number;
  readonly topology: Topology;
  readonly keys: number;
  readonly one: Policy;
  readonly mixed: boolean;
}

function stepOf(kind: Kind, chance: Chance, { replicas, topology, keys, one, mixed }: Surroundings): Step {
  const on = chance.below(replicas);
  const key = chance.below(keys);
  switch (kind) {
    case 'write':
    case 'open':
      return { do: kind, on, key, field: chance.below(3), value: chance.below(4), all: chance.once(4) };
    case 'delete':
    case 'block':
      return { do: kind, on, key };
    case 'decide':
      return { do: kind, on, key, how: chance.below(6) };
    case 'swap':
      return { do: kind, on, key, with: chance.below(keys), field: chance.below(2) };
    case 'award':
      return { do: kind, on, key, how: chance.below(6) };
    case 'addField':
      return { do: kind, on, fill: chance.once(3) ? chance.below(4) : undefined };
    case 'sync': {
      const fates = chance.once(3) ? Array.from({ length: 3 }, () => chance.below(10)) : [];
      return { do: kind, ...link(chance, on, replicas, topology), limit: limitOf(chance), fates };
    }
    case 'prepare':
      return { do: kind, ...link(chance, on, replicas, topology), limit: limitOf(chance) };
    case 'deliver':
    case 'answer':
      return { do: kind, which: chance.below(24), again: chance.once(3) };
    case 'tear':
      return { do: kind, which: chance.below(24), at: chance.below(1000) };
    case 'cut':
    case 'heal':
      return { do: kind, ...link(chance, on, replicas, topology) };
    case 'skew':
      return { do: kind, on, by: chance.once(3) ? (chance.below(7) - 3) * HOUR : chance.below(1800) - 900 };
    case 'policy':
      return { do: kind, on, to: chance.below(POLICIES.length) };
    case 'join':
      return { do: kind, policy: POLICIES.indexOf(mixed ? chance.of(POLICIES) : one) };
    case 'rest':
      return { do: kind };
    default:
      return { do: kind, on };
  }
}

function limitOf(chance: Chance): number {
  return chance.of([1, 2, 100]);
}

/** From a replica to one of those that it is linked to. */
function link(chance: Chance, on: number, replicas: number, topology: Topology): { readonly on: number; readonly to: number } {
  const start = chance.below(replicas);
  for (let i = 0; i < replicas; i++) {
    const to = (start + i) % replicas;
    if (to !== on && linked(topology, on, to, replicas)) return { on, to };
  }
  return { on, to: (on + 1) % replicas };
}
