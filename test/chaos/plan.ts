/** What a seed stands for: which replicas there are, who is whose peer, and how they are set. */
import type { ConflictPolicy, SyncMode } from '../../src/config.ts';
import type { Random } from './random.ts';

export type Topology = (typeof TOPOLOGIES)[number];

export interface Plan {
  readonly names: readonly string[];
  readonly topology: Topology;
  /** Each pair once; both are the other's peer. */
  readonly edges: readonly (readonly [string, string])[];
  readonly policy: ConflictPolicy;
  readonly mode: SyncMode;
  /** Replicas that have two gateways from the beginning. */
  readonly doubled: ReadonlySet<string>;
  /** Seconds for which deletions are remembered (TOMBSTONE_RETENTION), where they are to be forgotten in the run; null: longer than it lasts. */
  readonly retention: number | null;
}

/** What is not left to the seed. */
export interface Fixed {
  readonly replicas?: number;
  readonly policy?: ConflictPolicy;
  readonly topology?: Topology;
  readonly mode?: SyncMode;
  readonly retention?: number | null;
}

export const TOPOLOGIES = ['pair', 'chain', 'ring', 'star', 'mesh'] as const;
const POLICIES: readonly ConflictPolicy[] = ['manual', 'manual', 'latest', 'field-wise'];
const RETENTION_SECONDS = 2;

export function drawPlan(random: Random, fixed: Fixed): Plan {
  const drawn = fixed.topology ?? random.pick(fixed.replicas === 2 ? ['pair' as const] : TOPOLOGIES);
  const count = drawn === 'pair' ? 2 : (fixed.replicas ?? 3);
  const names = Array.from({ length: count }, (_, n) => String.fromCharCode(97 + n));
  const policy = fixed.policy ?? random.pick(POLICIES);
  const mode = fixed.mode ?? (random.chance(0.8) ? 'continuous' : 'manual');
  const doubled = new Set(names.filter(() => random.chance(0.3)));
  const collecting = random.chance(0.4);
  const retention = fixed.retention !== undefined ? fixed.retention : collecting ? RETENTION_SECONDS : null;
  return { names, topology: drawn, edges: edgesOf(drawn, names), policy, mode, doubled, retention };
}

function edgesOf(topology: Topology, names: readonly string[]): Plan['edges'] {
  const pairs = names.flatMap((one, i) => names.slice(i + 1).map((other) => [one, other] as const));
  const next = names.slice(1).map((name, i) => [names[i] as string, name] as const);
  switch (topology) {
    case 'pair':
    case 'chain':
      return next;
    case 'ring':
      return names.length > 2 ? [...next, [names[0] as string, names.at(-1) as string]] : next;
    case 'star':
      return names.slice(1).map((name) => [names[0] as string, name]);
    case 'mesh':
      return pairs;
  }
}
