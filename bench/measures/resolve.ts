/** Pending conflicts, resolved by one call, until both replicas have settled them. */
import { US, type Measure } from '../lib/measure.ts';
import { timedSync, withPair } from '../lib/pair.ts';
import { contents } from '../lib/records.ts';
import { opposed } from './conflicts.ts';

export function createResolve(records: number): Measure {
  return {
    name: 'resolve',
    title: `${records.toLocaleString('en')} pending conflicts resolved, both replicas settled`,
    labels: { 'conflicts a second': { unit: '/s', better: 'more' } },
    run: (bench) =>
      withPair(bench, {}, async (pair) => {
        const { a, b } = pair;
        await opposed(pair, records);
        await timedSync(a, b);
        bench.say(`${US}: resolving`);
        const began = performance.now();
        const { resolveConflicts } = await a.ask<{ resolveConflicts: { resolved: number; remaining: number } }>('mutation { resolveConflicts(strategy: FIELD_WISE) { resolved remaining } }');
        const ms = performance.now() - began;
        const { replica } = await b.ask<{ replica: { pendingConflicts: number } }>('{ replica { pendingConflicts } }');
        if (resolveConflicts.resolved !== records || replica.pendingConflicts !== 0) throw new Error(`resolved ${resolveConflicts.resolved} of ${records}, ${replica.pendingConflicts} pending on b`);
        if ((await contents(a.databaseUrl)) !== (await contents(b.databaseUrl))) throw new Error('the replicas differ');
        return [{ label: 'conflicts a second', subject: US, value: records / (ms / 1000) }];
      }),
  };
}
