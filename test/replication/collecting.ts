/** Worlds in which deletions are forgotten. */
import { standing } from '../../src/replication/merge.ts';
import type { Policy } from '../../src/replication/policy.ts';
import { KEY, type World } from '../support/world.ts';
import { syncAll, worldOf, type Topology } from './steps.ts';

/** A world in which all hold the record and know of each other. */
export function holding(count: number, topology: Topology = 'mesh'): World {
  const world = worldOf(Array<Policy>(count).fill('manual'));
  world.write('a', { f1: '0', f2: '0' });
  spread(world, topology);
  return world;
}

/** Everybody tells everybody, until all know what all have. */
export function spread(world: World, topology: Topology = 'mesh'): void {
  for (let round = 0; round < 2 * world.replicas.length; round++) syncAll(world, topology);
}

/** Collects everywhere until nothing is left to collect. @throws Error where that never ends. */
export function collectAll(world: World, topology: Topology = 'mesh'): void {
  for (let round = 0; round < 12; round++) {
    spread(world, topology);
    const changed = world.replicas.reduce((sum, { name }) => sum + world.collect(name), 0);
    if (changed === 0) return;
  }
  throw new Error('collection never comes to rest');
}

/** As `collectAll`, of some alone: the others are met by nobody. */
export function collectAllOf(world: World, names: readonly string[]): void {
  for (let round = 0; round < 12; round++) {
    for (let again = 0; again < 4; again++) for (const from of names) for (const to of names) if (from !== to) world.sync(from, to);
    const changed = names.reduce((sum, name) => sum + world.collect(name), 0);
    if (changed === 0) return;
  }
  throw new Error('collection never comes to rest');
}

export function values(world: World, name = 'a'): string[] {
  return [...new Set(standing(world.state(name)).map(({ fields }) => (fields === null ? 'deleted' : `${fields['f1']},${fields['f2']}`)))].toSorted();
}

export function isHeld(world: World, name: string): boolean {
  return world.replica(name).database.records.has(KEY);
}
