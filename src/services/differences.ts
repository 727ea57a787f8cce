/** What two replicas' looks into the same buckets tell, decided purely. */
import type { RecordLook } from '../storage/states.ts';

/** A record that is not the same and not on its way either. */
export interface Suspect {
  readonly model: string;
  readonly key: string;
  readonly difference: 'DIFFERING' | 'CORRUPTED';
  /** What both sides said of it: another text once either has moved. */
  readonly said: string;
}

export interface Differences {
  readonly records: number;
  readonly same: number;
  readonly onTheirWay: number;
  readonly suspects: readonly Suspect[];
}

export function compareLooks(here: readonly RecordLook[], there: readonly RecordLook[]): Differences {
  const theirs = new Map(there.map((look) => [nameOf(look), look]));
  const onlyThere = new Map(theirs);
  const suspects: Suspect[] = [];
  let same = 0;
  let onTheirWay = 0;
  const judge = (mine: RecordLook | undefined, other: RecordLook | undefined): void => {
    const [model, key] = (mine ?? other) as RecordLook;
    const equal = mine !== undefined && other !== undefined && mine[2] === other[2];
    const difference = equal ? 'CORRUPTED' : 'DIFFERING';
    if (equal && (mine[4] === other[4] || mine[4] === null || other[4] === null)) same++;
    else if (mine?.[3] === true || other?.[3] === true) onTheirWay++;
    else suspects.push({ model, key, difference, said: JSON.stringify([mine?.[2], other?.[2], mine?.[4], other?.[4]]) });
  };
  for (const look of here) {
    onlyThere.delete(nameOf(look));
    judge(look, theirs.get(nameOf(look)));
  }
  for (const look of onlyThere.values()) judge(undefined, look);
  return { records: same + onTheirWay + suspects.length, same, onTheirWay, suspects };
}

/** Two looks one after the other: a suspect that moved in between, on either side, is on its way. */
export function settleLooks(before: Differences, now: Differences): Differences {
  const earlier = new Map(before.suspects.map((suspect) => [`${suspect.model} ${suspect.key}`, suspect.said]));
  const suspects = now.suspects.filter(({ model, key, said }) => earlier.get(`${model} ${key}`) === said);
  return { ...now, suspects, onTheirWay: now.onTheirWay + now.suspects.length - suspects.length };
}

function nameOf([model, key]: RecordLook): string {
  return `${model} ${key}`;
}
