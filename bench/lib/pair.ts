/** Two replicas of Replique that know each other, over two databases. */
import { freePorts, startReplica, type BenchReplica } from './replica.ts';
import type { Bench } from './measure.ts';

export interface Pair {
  readonly a: BenchReplica;
  readonly b: BenchReplica;
}

export interface PairOptions {
  readonly env?: Readonly<Record<string, string>>;
}

export async function withPair<T>(bench: Bench, { env = {} }: PairOptions, work: (pair: Pair) => Promise<T>): Promise<T> {
  return bench.withDatabases(async (first, second) => {
    const [portA, portB] = (await freePorts(2)) as [number, number];
    const a = await startReplica({ bench, name: 'a', port: portA, databaseUrl: first, peers: { b: portB }, env });
    try {
      const b = await startReplica({ bench, name: 'b', port: portB, databaseUrl: second, peers: { a: portA }, env });
      try {
        return await work({ a, b });
      } finally {
        await b.stop();
      }
    } finally {
      await a.stop();
    }
  });
}

export interface Synced {
  readonly sent: number;
  readonly applied: number;
  readonly conflictsDetected: number;
}

/** `syncTo`, and how long it took, in milliseconds. */
export async function timedSync(from: BenchReplica, to: BenchReplica): Promise<Synced & { readonly ms: number }> {
  const began = performance.now();
  const { syncTo } = await from.ask<{ syncTo: Synced }>('mutation ($peer: String!) { syncTo(peer: $peer) { sent applied conflictsDetected } }', { peer: to.name });
  return { ...syncTo, ms: performance.now() - began };
}
