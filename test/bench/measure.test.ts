import { expect, test } from 'vitest';

import { MOST_MEMORY, withMemory, type Bench, type Measure } from '../../bench/lib/measure.ts';
import { summarise } from '../../bench/lib/report.ts';

const bench: Bench = { root: '', folder: '', withDatabases: (work) => work('', ''), say: () => {}, held: () => {} };

function measureOf(held: readonly number[]): Measure {
  return {
    name: 'reads',
    title: 'Reads',
    labels: { rate: { unit: '/s', better: 'more', baseline: ['Other'] } },
    run({ held: note }) {
      held.forEach(note);
      return Promise.resolve([
        { label: 'rate', subject: 'Replique', value: 100 },
        { label: 'rate', subject: 'Other', value: 200 },
      ]);
    },
  };
}

async function figuresOf(measure: Measure): Promise<string[]> {
  const samples = [...(await measure.run(bench)), ...(await measure.run(bench))];
  return summarise(measure, samples, 0).figures.map(({ label, subject, median, unit }) => `${label}, ${subject}: ${median} ${unit}`);
}

test('a measure tells what the largest of its replicas held, after its own figures', async () => {
  expect(await figuresOf(withMemory(measureOf([98.5, 122, 80])))).toEqual(['rate, Replique: 100 /s', 'rate, Other: 200 /s', `${MOST_MEMORY}, Replique: 122 MiB`]);
});

test('a measure that starts no replica tells nothing of one', async () => {
  expect(await figuresOf(withMemory(measureOf([])))).toEqual(await figuresOf(measureOf([])));
});
