/** A hundred changed records of many: a sync costs what has changed, not what there is. */
import { US, type Bench, type Measure, type Sample } from '../lib/measure.ts';
import { timedSync, withPair } from '../lib/pair.ts';
import { fill, touch } from '../lib/records.ts';
import { RXDB, withRx } from '../lib/rxdb.ts';
import { deltaOfPouch, POUCH } from '../lib/pouch.ts';

const CHANGED = 100;
const ROUNDS = 10;

export function createDelta(records: number, options: { readonly peers: boolean }): Measure {
  return {
    name: `delta-${records}`,
    title: `${CHANGED} changed of ${records.toLocaleString('en')}: sync called to sync done`,
    labels: { median: { unit: 'ms', better: 'less', ...(options.peers && { baseline: [POUCH] }) }, slowest: { unit: 'ms', better: 'less', ...(options.peers && { baseline: [POUCH] }) } },
    run: async (bench) => [...(await ours(bench, records)), ...(options.peers ? [...samples(POUCH, await deltaOfPouch(bench, records, CHANGED, ROUNDS)), ...(await ofRx(bench, records))] : [])],
  };
}

async function ours(bench: Bench, records: number): Promise<Sample[]> {
  return withPair(bench, {}, async ({ a, b }) => {
    bench.say(`${US}: making ${records} records`);
    await fill(a.databaseUrl, 1, records);
    await timedSync(a, b);
    const times: number[] = [];
    // The first round warms both processes up.
    for (let round = 0; round <= ROUNDS; round++) {
      await touch(a.databaseUrl, 'telephone', `+${round}`, CHANGED);
      const { ms, applied } = await timedSync(a, b);
      if (applied !== CHANGED) throw new Error(`${US}: ${applied} of ${CHANGED} were applied`);
      if (round > 0) times.push(ms);
    }
    return samples(US, times);
  });
}

async function ofRx(bench: Bench, records: number): Promise<Sample[]> {
  return withRx(bench, async (rx) => {
    await rx.insert(1, records);
    bench.say(`${RXDB}: the first sync`);
    await rx.sync();
    const times: number[] = [];
    for (let round = 0; round <= ROUNDS; round++) {
      await rx.touch('telephone', `+${round}`, CHANGED);
      const ms = await rx.sync();
      if (round > 0) times.push(ms);
    }
    return samples(RXDB, times);
  });
}

function samples(subject: string, times: readonly number[]): Sample[] {
  const sorted = times.toSorted((x, y) => x - y);
  return [
    { label: 'median', subject, value: sorted[Math.floor(sorted.length / 2)] ?? Number.NaN },
    { label: 'slowest', subject, value: sorted.at(-1) ?? Number.NaN },
  ];
}
