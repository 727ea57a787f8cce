import { describe, expect, test } from 'vitest';

import type { Measure, Sample } from '../../bench/lib/measure.ts';
import { chart, quantile, summarise, table, type Run } from '../../bench/lib/report.ts';

const measure: Measure = {
  name: 'reads',
  title: 'Reads',
  labels: { rate: { unit: '/s', better: 'more', baseline: ['Other', 'Third', 'Absent'] }, delay: { unit: 'ms', better: 'less', baseline: ['Other'] } },
  run: () => Promise.resolve([]),
};

function samplesOf(label: string, subject: string, values: readonly number[]): Sample[] {
  return values.map((value) => ({ label, subject, value }));
}

const samples = [
  ...samplesOf('rate', 'Replique', [100, 900, 200]),
  ...samplesOf('rate', 'Other', [100, 100, 100]),
  ...samplesOf('rate', 'Third', [400, 400, 400]),
  ...samplesOf('delay', 'Replique', [5, 5, 5]),
  ...samplesOf('delay', 'Other', [10, 10, 10]),
];

function runOf(): Run {
  return {
    id: '1',
    startedAt: '2026-01-01T00:00:00.000Z',
    machine: { processor: 'x', cores: 2, memoryGiB: 4, system: 'linux', node: 'v20', commit: 'abc', load: 0.5 },
    repeats: 3,
    results: [summarise(measure, samples, 1.5)],
  };
}

describe('a report', () => {
  test('has the median of each subject, and how many times as good it is as each other that was measured', () => {
    const [rate] = summarise(measure, samples, 1.5).figures;
    expect(rate).toMatchObject({ subject: 'Replique', median: 200, lowest: 100, highest: 900, ratios: { Other: 2, Third: 0.5 } });
  });

  test('counts less as better where it is', () => {
    const delay = summarise(measure, samples, 1.5).figures.find(({ label, subject }) => label === 'delay' && subject === 'Replique');
    expect(delay?.ratios).toEqual({ Other: 2 });
  });

  test('has no ratio for those that others are compared with', () => {
    const others = summarise(measure, samples, 1.5).figures.filter(({ subject }) => subject !== 'Replique');
    expect(others.map(({ ratios }) => ratios)).toEqual([{}, {}, {}]);
  });

  test('says how busy the machine was, and whom a ratio is to where there are several', () => {
    const text = table(runOf());
    expect(text).toContain('Reads (load 1.5)');
    expect(text).toContain('2.00 × Other, 0.50 × Third');
    expect(text).toMatch(/delay\s+Replique\s+5 ms\s+2\.00 ×$/m);
  });

  test('draws every subject', () => {
    expect(chart(runOf()).match(/<rect x=/g)).toHaveLength(samples.length / 3);
  });
});

test('a quantile is the value that so many do not pass', () => {
  const values = Array.from({ length: 100 }, (_, index) => 100 - index);
  expect(quantile(values, 0.5)).toBe(50);
  expect(quantile(values, 0.99)).toBe(99);
  expect(quantile([7], 0.99)).toBe(7);
  expect(quantile([], 0.5)).toBeNaN();
});
