/**
 * Unique values in a replica in memory: which record's row has which value, as storage plays it.
 *
 * Storage asks only about values that are in question; here all records are looked at each time, which must come to the same.
 */
import type { State } from '../../src/replication/merge.ts';
import { uniqueValue, yieldValue, type Claim, type Masked, type UniqueKey } from '../../src/replication/unique.ts';
import { sameFields, type Fields } from '../../src/replication/version.ts';
import { rowOf, viewOf, type Replica, type StoredRecord } from './model.ts';
import type { Rules } from './rules.ts';

/** What becomes of a record's row. */
export interface Judgement {
  readonly row: Fields | null;
  readonly masked: Masked | undefined;
  /** It has no row, since another record holds its value and it can show nothing in its place. */
  readonly aside: boolean;
  /** Its row cannot be written now, and stays as it is. */
  readonly stays: boolean;
  /** Who holds what it claims in vain. */
  readonly lost: ReadonlyMap<UniqueKey, Claim>;
}

export interface Arbiter {
  readonly uniques: readonly UniqueKey[];
  /** What each record's row is to be; `given` are states that some come to have. */
  readonly judge: (replica: Replica, given?: ReadonlyMap<string, State>) => Map<string, Judgement>;
  /** True where the table's own index refuses these rows. */
  readonly refuses: (replica: Replica, rows: ReadonlyMap<string, Fields>) => boolean;
}

export function createArbiter(uniques: readonly UniqueKey[], { claimsOf, holderOf }: Pick<Rules, 'claimsOf' | 'holderOf'>): Arbiter {
  function judge(replica: Replica, given: ReadonlyMap<string, State> = new Map()): Map<string, Judgement> {
    const records = new Map(replica.database.records);
    for (const [key, state] of given) records.set(key, { ...(records.get(key) as StoredRecord), state, unconfirmed: undefined });
    const known = knownTo(replica);
    const claims = new Map(known.map((unique) => [unique, new Map<string, Claim[]>()]));
    for (const [unique, byValue] of claims) {
      for (const [key, { state }] of records) {
        for (const [value, claim] of claimsOf(unique, key, state)) byValue.set(value, [...(byValue.get(value) ?? []), claim]);
      }
    }
    const judged = new Map<string, Judgement>();
    for (const [key, record] of records) {
      if (record.unconfirmed) continue;
      const { fields } = viewOf(replica, record, record.state);
      const lost = new Map<UniqueKey, Claim>();
      for (const unique of known) {
        const value = uniqueValue(unique, fields);
        const holder = value === null ? null : holderOf(claims.get(unique)?.get(value) ?? []);
        if (holder !== null && holder.key !== key) lost.set(unique, holder);
      }
      judged.set(key, { ...giveWay(key, fields, lost, claims), lost, stays: false });
    }
    for (const [key, judgement] of judged) judged.set(key, { ...judgement, row: rowOf(replica, judgement.row) });
    leaveUnconfirmed(replica, records, judged, known);
    leaveRefused(replica, records, judged, known);
    return judged;
  }

  function knownTo({ database }: Replica): UniqueKey[] {
    return uniques.filter(({ fields }) => fields.every((name) => database.fields.includes(name)));
  }

  return {
    uniques,
    judge,
    refuses: (replica, rows) =>
      knownTo(replica).some((unique) => {
        const others = new Set([...replica.database.records].flatMap(([key, { row }]) => (rows.has(key) ? [] : [uniqueValue(unique, row)])));
        return [...rows.values()].some((row) => uniqueValue(unique, row) !== null && others.has(uniqueValue(unique, row)));
      }),
  };
}

/** What a record shows instead of the values that it lost. */
function giveWay(key: string, fields: Fields | null, lost: ReadonlyMap<UniqueKey, Claim>, claims: ReadonlyMap<UniqueKey, ReadonlyMap<string, readonly Claim[]>>): Pick<Judgement, 'row' | 'masked' | 'aside'> {
  if (fields === null || lost.size === 0) return { row: fields, masked: undefined, aside: false };
  let shown: Fields | null = fields;
  for (const unique of lost.keys()) {
    const given: boolean = shown !== null && unique.yields !== null && shown[unique.yields.field] !== fields[unique.yields.field];
    // A field that gives way for two constraints is marked once.
    if (shown !== null && !given) shown = yieldValue(unique, key, shown);
  }
  const taken = [...claims].some(([unique, byValue]) => {
    const value = uniqueValue(unique, shown);
    return value !== null && value !== uniqueValue(unique, fields) && byValue.get(value)?.some((claim) => claim.key !== key);
  });
  if (shown === null || taken) return { row: null, masked: undefined, aside: true };
  return { row: shown, masked: Object.fromEntries([...lost.keys()].flatMap(({ name, yields }) => (yields ? [[name, yields.field]] : []))), aside: false };
}

/** The row of what no peer has confirmed yet stays, unless another record is to have its value. */
function leaveUnconfirmed({ blocked }: Replica, records: ReadonlyMap<string, StoredRecord>, judged: Map<string, Judgement>, known: readonly UniqueKey[]): void {
  for (const [key, { unconfirmed, row }] of records) {
    if (!unconfirmed || blocked.has(key)) continue;
    if ([...judged.values()].some((other) => clash(known, row, other.row))) judged.set(key, { row: null, masked: undefined, aside: false, stays: false, lost: new Map() });
  }
}

/** Rows that refuse to be written stay, and so do those that were to have a value which one of them still has. */
function leaveRefused(replica: Replica, records: ReadonlyMap<string, StoredRecord>, judged: Map<string, Judgement>, known: readonly UniqueKey[]): void {
  const staying = new Map([...records].filter(([key, { row }]) => (judged.has(key) ? replica.blocked.has(key) && !sameFields(row, judged.get(key)?.row ?? null) : true)).map(([key, { row }]) => [key, row]));
  for (let before = -1; before < staying.size; ) {
    before = staying.size;
    for (const [key, { row }] of judged) {
      if (!staying.has(key) && [...staying.values()].some((other) => clash(known, row, other))) staying.set(key, records.get(key)?.row ?? null);
    }
  }
  const rows: (Fields | null)[] = [];
  for (const [key, judgement] of judged) judged.set(key, { ...judgement, stays: staying.has(key) });
  for (const [key] of records) rows.push(staying.has(key) ? (staying.get(key) ?? null) : (judged.get(key)?.row ?? null));
  if (rows.some((row, i) => rows.slice(0, i).some((other) => clash(known, row, other)))) throw new Error(`${replica.name} is to show one value in two rows`);
}

function clash(known: readonly UniqueKey[], a: Fields | null, b: Fields | null): boolean {
  return known.some((unique) => uniqueValue(unique, a) !== null && uniqueValue(unique, a) === uniqueValue(unique, b));
}
