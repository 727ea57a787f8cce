/** A later version of the schema comes to one replica in memory: a column for one more field, as storage brings rows and states together for it. */
import { covers, type Fields } from '../../src/replication/version.ts';
import { asVersion, writeUnseen } from '../../src/replication/write.ts';
import type { Arbiter } from './arbiter.ts';
import { idOf, read, rowOf, sidesBehind, viewOf, type Model, type Replica, type StoredRecord } from './model.ts';
import type { Oracle } from './oracle.ts';
import type { Rules } from './rules.ts';

/** @returns The upgrade; false where the field is there. `fill` is what the migration puts into the column. */
export function createUpgrade(oracle: Oracle, model: Model, arbiter: Arbiter, { merge }: Pick<Rules, 'merge'>, now: (replica: Replica) => number): (replica: Replica, field: string, fill?: string) => boolean {
  return (replica, field, fill) => {
    const { database } = replica;
    if (database.fields.includes(field)) return false;
    model.foldAll(replica);
    database.fields = [...database.fields, field];
    for (const [key, record] of database.records) {
      const row = heldRow(replica, record);
      // Another row that cannot be written either has the same.
      const taken = row !== null && arbiter.refuses(replica, new Map([[key, row]]));
      database.records.set(key, { ...record, row: taken ? rowOf(replica, { ...row, [field]: null }) : row });
    }
    if (fill !== undefined) for (const [key, { row }] of database.records) if (row !== null) filled(replica, key, field, fill);
    model.foldAll(replica);
    model.showAgain(replica);
    return true;
  };

  /** What the migration put into a row counts as a write; where it says otherwise than what was carried, as one that has not seen that. */
  function filled(replica: Replica, key: string, field: string, fill: string): void {
    const record = read(replica, key);
    const { row, held, state, waiting, log } = record;
    const carries = state.some(({ fields }) => fields !== null && Object.hasOwn(fields, field));
    if (row === null || row[field] === fill || arbiter.refuses(replica, new Map([[key, { ...row, [field]: fill }]]))) return;
    if (!carries && (held === null || !Object.hasOwn(held.fields ?? {}, field))) {
      const write = { kind: 'update', replica: idOf(replica), clock: now(replica), changed: [field], bit: oracle.next(key) } as const;
      oracle.gave(key, { [field]: fill });
      replica.database.records.set(key, { ...record, row: { ...row, [field]: fill }, log: [...log, write] });
    } else if (!waiting) {
      const view = viewOf(replica, record, state);
      const written = writeUnseen(state, view, replica.database.policy, { [field]: fill }, idOf(replica), now(replica));
      const behind = sidesBehind(replica.database.policy, state, view);
      const shown = asVersion(behind, view);
      oracle.edited(key, written, shown && [shown], new Set([field]));
      // Of what a side that it covers had seen, a vector no longer tells what was forgotten.
      const covered = behind.filter((side) => covers(written.vector, side.vector));
      oracle.add(key, written, oracle.next(key) | oracle.pastOf(covered) | oracle.within(key, oracle.pastOf(behind), written.vector));
      oracle.gave(key, { [field]: fill });
      const next = merge(state, [written]);
      model.store(replica, key, record, next, null, viewOf(replica, record, next));
    }
  }
}

/** Where the state cannot be shown, the row shows all that it held; what gives way in it goes on giving way. */
function heldRow(replica: Replica, { row, held, masked = {} }: StoredRecord): Fields | null {
  const given = Object.values(masked).map((name) => [name, row?.[name] ?? null] as const);
  return row && rowOf(replica, { ...(held?.fields ?? row), ...Object.fromEntries(given) });
}
