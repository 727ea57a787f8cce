/** One history from beginning to end: plays a plan in a world of its own and tells what promise it broke, if any. */
import { createPlayer, nameAt } from '../replication/player.ts';
import { syncAll } from '../replication/steps.ts';
import { createWorld } from '../support/world.ts';
import { createJudge, type Violation } from './judge.ts';
import type { Plan } from './plan.ts';
import type { Plant } from './plants.ts';

export interface Outcome {
  readonly violation: Violation | null;
  /** The number of steps until the violation, or all. */
  readonly steps: number;
  /** What happened, by kind. */
  readonly counts: ReadonlyMap<string, number>;
  readonly rests: number;
}

/** Whatever the steps, the world comes to rest after the last of them. */
export function runPlan({ policies, topology, fields, unique, collects, steps }: Plan, plant?: Plant, tell?: (text: string) => void): Outcome {
  const setup = Object.fromEntries(policies.map((policy, i) => [nameAt(i), policy]));
  const bare = createWorld(setup, { fields, unique, rules: plant?.rules ?? {} });
  const world = plant?.around?.(bare) ?? bare;
  let violation: Violation | null = null;
  let rests = 0;
  const player = createPlayer(world, {
    ...(plant?.sessions && { sessions: plant.sessions }),
    ...(tell && { tell }),
    rest: () => {
      rests++;
      violation = judge.rest();
    },
  });
  // Nothing is forgotten before all have met.
  if (collects) for (let round = 0; round < 2 * policies.length; round++) syncAll(world, topology);
  const judge = createJudge(world, { topology, collects }, player.arrived);
  let taken = 0;
  try {
    for (const step of steps) {
      player.take(step);
      taken++;
      if (violation !== null) break;
    }
    if (violation === null && steps.at(-1)?.do !== 'rest') player.take({ do: 'rest' });
  } catch (error) {
    violation = { promise: 'nothing fails', detail: error instanceof Error ? (error.stack ?? error.message) : String(error) };
  }
  return { violation, steps: taken, counts: player.counts, rests };
}
