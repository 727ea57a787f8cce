/** A person's decision on who has a unique value, as storage carries it out: a write to the record that is to go without it, and to the one that is to have it. */
import { ordered, type State } from '../../src/replication/merge.ts';
import { yieldValue } from '../../src/replication/unique.ts';
import type { Fields, Strategy, Version } from '../../src/replication/version.ts';
import type { Arbiter } from './arbiter.ts';
import { begin, idOf, read, sidesBehind, viewOf, type Model, type Replica } from './model.ts';
import type { Oracle } from './oracle.ts';
import type { Rules } from './rules.ts';

/** The holder keeps the value, the record that claims it in vain takes it, or that record gets other values. */
export type Award = 'keep' | 'take' | { readonly values: Fields };

export function createAwards(
  oracle: Oracle,
  model: Model,
  arbiter: Arbiter,
  { writeLocally }: Pick<Rules, 'writeLocally'>,
  find: (name: string) => Replica,
  now: (replica: Replica) => number,
): (name: string, award: Award, key?: string) => boolean {
  return (name, award, key = 'r') => {
    const replica = find(name);
    begin(replica);
    model.foldAll(replica);
    const judged = arbiter.judge(replica);
    const [found] = judged.get(key)?.lost ?? [];
    if (found === undefined) return false;
    const [unique, { key: holder }] = found;
    const fieldsOf = (of: string): Fields | null => viewOf(replica, read(replica, of), read(replica, of).state).fields;
    const loser = fieldsOf(key) as Fields;
    const written = new Map<string, { state: State; version: Version }>();
    if (award === 'take') {
      const given = (fieldsOf(holder) && yieldValue(unique, holder, fieldsOf(holder) as Fields)) ?? null;
      if (given === null) return false;
      written.set(key, rewrite(replica, key, loser, 'manual'));
      written.set(holder, rewrite(replica, holder, given, 'manual'));
    } else {
      const left = yieldValue(unique, key, loser);
      if (award === 'keep' && left === null) return false;
      written.set(key, rewrite(replica, key, award === 'keep' ? (left as Fields) : { ...(left ?? loser), ...award.values }, award === 'keep' ? 'latest' : 'manual'));
    }
    const after = arbiter.judge(replica, new Map([...written].map(([of, { state }]) => [of, state])));
    if ([...written.keys()].some((of) => after.get(of)?.stays || after.get(of)?.aside || after.get(of)?.masked)) return false;
    for (const [of, { state, version }] of written) {
      const record = read(replica, of);
      const view = viewOf(replica, record, record.state);
      oracle.add(of, version, oracle.pastOf(sidesBehind(replica.database.policy, record.state, view)) | oracle.next(of));
      if (version.fields) oracle.gave(of, version.fields);
      model.store(replica, of, record, state, null, viewOf(replica, { ...record, shown: version.vector }, state));
    }
    model.showUnique(replica);
    return true;
  };

  function rewrite(replica: Replica, key: string, fields: Fields, strategy: Strategy): { state: State; version: Version } {
    const record = read(replica, key);
    const view = viewOf(replica, record, record.state);
    const changed = Object.keys(fields).filter((field) => fields[field] !== view.fields?.[field]);
    const self = idOf(replica);
    const state = writeLocally(record.state, view, replica.database.policy, [{ kind: 'update', replica: self, clock: now(replica), changed }], fields);
    const plain = state.find((version) => !record.state.includes(version)) as Version;
    const version: Version = { ...plain, resolution: [strategy, self, plain.vector[self] as number] };
    return { state: ordered(state.map((each) => (each === plain ? version : each))), version };
  }
}
