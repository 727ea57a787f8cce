/** Every measure, in the order of the table. */
import { withMemory, type Measure } from '../lib/measure.ts';
import { api } from './api.ts';
import { capture } from './capture.ts';
import { createConflicts } from './conflicts.ts';
import { createCopy } from './copy.ts';
import { createDelta } from './delta.ts';
import { live } from './live.ts';
import { createMemory } from './memory.ts';
import { createResolve } from './resolve.ts';
import { start } from './start.ts';
import { subscribers } from './subscribers.ts';

export const MEASURES: readonly Measure[] = [
  ...[
    createCopy(10_000, { peers: true }),
    createCopy(100_000, { peers: true }),
    createDelta(100_000, { peers: true }),
    createConflicts(10_000),
    createResolve(10_000),
    api,
    live,
    capture,
    subscribers,
  ].map(withMemory),
  createMemory('memory', [10_000, 100_000], { peers: true }),
  start,
];

/** These take minutes each, and are run where they are asked for. */
export const LONG: readonly Measure[] = [...[createCopy(1_000_000, { peers: false }), createDelta(1_000_000, { peers: false })].map(withMemory), createMemory('memory-1000000', [10_000, 1_000_000], { peers: false })];
