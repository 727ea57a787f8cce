/** What the simulator says: results on stdout, for a person or as JSON; while it runs, one line on stderr that tells how far it is. */
import type { Plan } from './plan.ts';
import type { GossipReport } from './gossip.ts';
import type { Violation } from './judge.ts';

export interface Totals {
  histories: number;
  steps: number;
  rests: number;
  readonly counts: Map<string, number>;
}

export interface Failure {
  readonly seed: number;
  readonly violation: Violation;
  /** The shrunk history, in words. */
  readonly history: readonly string[];
  readonly setup: Pick<Plan, 'policies' | 'topology'>;
  readonly command: string;
}

/** What counts as a fault; the rest is work. */
const WORK = new Set(['writes', 'deletions', 'decisions', 'swaps', 'awards', 'upgrades', 'syncs', 'transactions', 'joins', 'changes of policy', 'healed']);

export function createTotals(): Totals {
  return { histories: 0, steps: 0, rests: 0, counts: new Map() };
}

export function summary(totals: Totals): { readonly operations: number; readonly faults: number } {
  let [operations, faults] = [0, 0];
  for (const [kind, count] of totals.counts) {
    if (WORK.has(kind)) operations += count;
    else faults += count;
  }
  return { operations, faults };
}

export function reportText(totals: Totals, seconds: number, failure: Failure | null): string {
  const { operations, faults } = summary(totals);
  const kinds = [...totals.counts].toSorted((a, b) => b[1] - a[1]).map(([kind, count]) => `${kind} ${number(count)}`);
  const lines = [
    `${number(totals.histories)} histories, ${number(totals.steps)} steps, ${number(Math.round(totals.steps / seconds))} a second; came to rest ${number(totals.rests)} times`,
    `${number(operations)} operations, ${number(faults)} faults, ${failure ? 1 : 0} violations`,
    kinds.join(', '),
  ];
  return `${[...lines, ...(failure ? ['', ...failureLines(failure)] : [])].join('\n')}\n`;
}

export function gossipText(reports: readonly GossipReport[]): string {
  const head = ['replicas', 'neighbours', 'rounds', 'messages', 'KB', 'KB each', 'rounds, widest', 'KB each', 'vector entries', 'its version, KB', 'roster, KB', 'heap, MB'];
  const rows = reports.map(({ replicas, neighbours, spread, widest, rosterBytes, heapMegabytes }) => [
    replicas,
    neighbours === 0 ? 'anyone' : neighbours,
    spread.rounds,
    spread.messages,
    kilo(spread.bytes),
    kilo(spread.bytes / replicas),
    widest.rounds,
    kilo(widest.bytes / replicas),
    widest.vectorEntries,
    kilo(widest.versionBytes),
    kilo(rosterBytes),
    heapMegabytes,
  ]);
  return `${[head, ...rows].map((row) => row.map((cell, i) => String(cell).padStart((head[i] as string).length)).join('  ')).join('\n')}\n`;
}

/** One line on a terminal, written over; nothing where stderr is none, but for a line now and then. */
export function createLine(): { readonly show: (text: string) => void; readonly end: () => void } {
  const terminal = process.stderr.isTTY;
  const pause = terminal ? 100 : 15_000;
  let last = performance.now();
  return {
    show: (text) => {
      if (performance.now() - last < pause) return;
      last = performance.now();
      process.stderr.write(terminal ? `\r\u001b[K${text}` : `${text}\n`);
    },
    end: () => void (terminal && process.stderr.write('\r\u001b[K')),
  };
}

function failureLines({ seed, violation, history, setup, command }: Failure): string[] {
  const replicas = setup.policies.length;
  return [
    `Broken with seed ${seed}: ${violation.promise}.`,
    `  ${violation.detail}`,
    `The shortest history found (${replicas} replicas, ${setup.topology}, ${[...new Set(setup.policies)].join(' and ')}):`,
    ...history.map((line) => `  ${line}`),
    `Again: ${command}`,
  ];
}

function number(n: number): string {
  return n.toLocaleString('en');
}

function kilo(bytes: number): string {
  return (bytes / 1000).toFixed(1);
}
