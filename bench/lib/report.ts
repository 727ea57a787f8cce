/** What a run has found, as a table and as a chart. Figures of different runs are never put side by side: a report is made of one run's samples alone. */
import type { Machine } from './machine.ts';
import type { Measure, Sample } from './measure.ts';
import { US } from './measure.ts';

export interface Run {
  readonly id: string;
  readonly startedAt: string;
  readonly machine: Machine;
  readonly repeats: number;
  readonly results: readonly Result[];
}

export interface Result {
  readonly measure: string;
  readonly title: string;
  /** Of the machine as the measure began, what was measured before included. */
  readonly load: number;
  readonly figures: readonly Figure[];
}

/** The median of one subject's samples. */
export interface Figure {
  readonly label: string;
  readonly unit: string;
  readonly better: 'more' | 'less';
  readonly subject: string;
  readonly median: number;
  readonly lowest: number;
  readonly highest: number;
  /** How many times as good as each baseline of the same run; none for a baseline itself. */
  readonly ratios: Readonly<Record<string, number>>;
}

export function summarise({ name, title, labels }: Measure, samples: readonly Sample[], load: number): Result {
  const figures = Object.entries(labels).flatMap(([label, { unit, better, baseline = [] }]) => {
    const bySubject = grouped(samples.filter((sample) => sample.label === label), ({ subject }) => subject);
    const medians = new Map([...bySubject].map(([subject, own]) => [subject, median(own.map(({ value }) => value))]));
    const bases = baseline.flatMap((subject) => (medians.has(subject) ? [[subject, medians.get(subject) as number] as const] : []));
    return [...bySubject].map(([subject, own]): Figure => {
      const values = own.map(({ value }) => value);
      const middle = medians.get(subject) as number;
      const ratios = baseline.includes(subject) ? {} : Object.fromEntries(bases.map(([other, base]) => [other, better === 'more' ? middle / base : base / middle]));
      return { label, unit, better, subject, median: middle, lowest: Math.min(...values), highest: Math.max(...values), ratios };
    });
  });
  return { measure: name, title, load, figures };
}

function grouped<T>(items: readonly T[], keyOf: (item: T) => string): Map<string, T[]> {
  const groups = new Map<string, T[]>();
  for (const item of items) groups.set(keyOf(item), [...(groups.get(keyOf(item)) ?? []), item]);
  return groups;
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? (sorted[middle] as number) : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2;
}

/** @param part - 0.99 for the least value that 99 of a hundred do not pass. */
export function quantile(values: readonly number[], part: number): number {
  const sorted = values.toSorted((a, b) => a - b);
  return sorted[Math.max(0, Math.ceil(sorted.length * part) - 1)] ?? Number.NaN;
}

export function table({ id, startedAt, machine, repeats, results }: Run): string {
  const head = [
    `Run ${id}, ${startedAt}: ${machine.processor}, ${machine.cores} cores, ${machine.memoryGiB} GiB, ${machine.system}, Node ${machine.node}, PostgreSQL 18, commit ${machine.commit}.`,
    `Medians of ${repeats}; in brackets the lowest and the highest. Load before it began: ${machine.load}. fsync on for everybody.`,
  ];
  const parts = results.map(({ title, load, figures }) => {
    const rows = figures.map((figure) => [
      figure.label,
      figure.subject,
      `${number(figure.median)} ${figure.unit}`.trim(),
      figure.lowest === figure.highest ? '' : `(${number(figure.lowest)} to ${number(figure.highest)})`,
      ratiosOf(figure),
    ]);
    const widths = [0, 1, 2, 3, 4].map((column) => Math.max(...rows.map((row) => (row[column] as string).length)));
    const lines = rows.map((row) => `  ${row.map((cell, column) => (column < 2 ? cell.padEnd(widths[column] as number) : cell.padStart(widths[column] as number))).join('  ')}`.trimEnd());
    return [`${title} (load ${load})`, ...lines].join('\n');
  });
  return [head.join('\n'), ...parts].join('\n\n');
}

/** Whom a ratio is to goes without saying where there is one baseline only. */
function ratiosOf({ ratios }: Figure): string {
  const all = Object.entries(ratios);
  return all.map(([subject, ratio]) => `${ratio.toFixed(2)} ×${all.length > 1 ? ` ${subject}` : ''}`).join(', ');
}

const BAR = { height: 18, gap: 6, left: 260, width: 420, right: 180 };

/** Bars of each figure that somebody else has too, as an SVG. */
export function chart({ id, machine, results }: Run): string {
  const compared = results.flatMap(({ title, figures }) =>
    [...grouped(figures, ({ label }) => label)].filter(([, group]) => group.length > 1).map(([label, group]) => ({ title: `${title}: ${label}`, group })),
  );
  let y = 40;
  const bars: string[] = [];
  for (const { title, group } of compared) {
    bars.push(`<text x="10" y="${y + 13}" font-weight="bold">${escape(title)} (${group[0]?.better === 'less' ? 'less' : 'more'} is better)</text>`);
    y += BAR.height + BAR.gap;
    const most = Math.max(...group.map((figure) => figure.median), Number.MIN_VALUE);
    for (const { subject, median: value, unit } of group) {
      const width = Math.max(1, (value / most) * BAR.width);
      bars.push(
        `<text x="${BAR.left - 10}" y="${y + 13}" text-anchor="end">${escape(subject)}</text>`,
        `<rect x="${BAR.left}" y="${y}" width="${width.toFixed(1)}" height="${BAR.height}" fill="${subject === US ? '#2563eb' : '#94a3b8'}"/>`,
        `<text x="${(BAR.left + width + 8).toFixed(1)}" y="${y + 13}">${escape(`${number(value)} ${unit}`)}</text>`,
      );
      y += BAR.height + BAR.gap;
    }
    y += 10;
  }
  const width = BAR.left + BAR.width + BAR.right;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${y}" font-family="sans-serif" font-size="13">`,
    `<rect width="${width}" height="${y}" fill="white"/>`,
    `<text x="10" y="20">Run ${escape(id)}: ${escape(machine.processor)}, ${machine.cores} cores, commit ${escape(machine.commit)}</text>`,
    ...bars,
    '</svg>',
    '',
  ].join('\n');
}

function number(value: number): string {
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return Number.isInteger(value) ? value.toLocaleString('en') : value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

function escape(text: string): string {
  return text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('"', '&quot;');
}
