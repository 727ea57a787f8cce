/** What a measure is: something that is done by several subjects in turn, in one run, on the same servers. */

export interface Bench {
  /** The project's folder. */
  readonly root: string;
  /** For files of this run alone. */
  readonly folder: string;
  /** Two databases on a server each, the same servers for all subjects, dropped when `work` is done. */
  withDatabases<T>(work: (a: string, b: string) => Promise<T>): Promise<T>;
  /** Told what is being done. */
  say(text: string): void;
  /** Told of each replica, as it is stopped, how many MiB its process held at most. */
  held(mebibytes: number): void;
}

/** One measured value. */
export interface Sample {
  /** What was measured, the same for all subjects: `records/s`. */
  readonly label: string;
  readonly subject: string;
  readonly value: number;
}

export interface Label {
  readonly unit: string;
  readonly better: 'more' | 'less';
  /** The subjects that ratios are to. */
  readonly baseline?: readonly string[];
}

export interface Measure {
  readonly name: string;
  readonly title: string;
  /** Labels in the order of the table. */
  readonly labels: Readonly<Record<string, Label>>;
  /** Done once a repetition; every subject within it, one after the other. */
  run(bench: Bench): Promise<readonly Sample[]>;
}

export const US = 'Replique';
export const MOST_MEMORY = 'most memory of a replica';

/** The same measure, which tells besides what the largest of its replicas' processes held. */
export function withMemory(measure: Measure): Measure {
  return {
    ...measure,
    labels: { ...measure.labels, [MOST_MEMORY]: { unit: 'MiB', better: 'less' } },
    async run(bench) {
      const held: number[] = [];
      const samples = await measure.run({ ...bench, held: (mebibytes) => void held.push(mebibytes) });
      return held.length === 0 ? samples : [...samples, { label: MOST_MEMORY, subject: US, value: Math.max(...held) }];
    },
  };
}
