/**
 * Who holds a unique value, where that is in question: finding all that claim it, and what each of them shows.
 *
 * In normal times the tables' own indices say all there is to say. Only where one of them refuses a row, or a record is written whose claims its row does not tell (sides that claim
 * different values, masked, waiting), or whose values such a record claims, are the claimants gathered and the values given to their holders.
 */
import { createHash } from 'node:crypto';

import { sameFields, type Fields } from '../replication/version.ts';
import { claimsAlike, claimsOf, holderOf, uniqueValue, yieldValue, type Claim, type UniqueKey } from '../replication/unique.ts';
import type { Change } from './changes.ts';
import { sqlState, type Transaction } from './database.ts';
import { originOf, readLocked, viewOf } from './records.ts';
import type { Now, Replica } from './replica.ts';
import { showFields, type ModelTable } from './tables.ts';

/** What became of a record's value: `holder` has it; null where the record itself does, or shows none. */
export interface Verdict {
  readonly change: Change;
  readonly unique: UniqueKey;
  /** The record's value. */
  readonly value: string | null;
  readonly holder: Claim | null;
}

/** The changes with what each is to show, those of other records among them whose rows follow. */
export interface Arbitrated {
  readonly changes: readonly Change[];
  readonly verdicts: readonly Verdict[];
}

/** Those of the changes whose values are in question without a look at the tables. */
export async function contested(tx: Transaction, now: Pick<Now, 'claimed'>, changes: readonly Change[]): Promise<readonly Change[]> {
  const able = changes.filter(({ before }) => before.table.unique.length > 0);
  if (able.length === 0) return [];
  const hits = now.claimed ? await claimedElsewhere(tx, able) : new Set<Change>();
  return able.filter((change) => hits.has(change) || isHidden(change) || wasHidden(change));
}

/** Gives the values that the `disputed` changes claim, or claimed, to their holders. */
export async function arbitrate(tx: Transaction, replica: Replica, changes: readonly Change[], disputed: readonly Change[]): Promise<Arbitrated> {
  if (disputed.length === 0) return { changes, verdicts: [] };
  const judged = new Map<string, Change>();
  const verdicts: Verdict[] = [];
  for (const table of replica.tables.values()) {
    const own = disputed.filter(({ before }) => before.table === table);
    if (own.length === 0) continue;
    const court = createCourt(table, own);
    /** What a local write has taken off its row is nowhere else: with each record those are heard whose stored claims are against its own. */
    const hear = async (keys: readonly string[]): Promise<void> => {
      for (let next = keys; next.length > 0; ) {
        court.hear(await partiesOf(tx, replica, table, changes, next.filter((key) => !court.has(key))));
        next = (await claimsAgainst(tx, table, next)).filter((key) => !court.has(key));
      }
    };
    await hear(own.map(({ before }) => before.key));
    // What comes in the same batch is in no table yet.
    const coming = claimsOfAll(court.uniques, changes.filter(({ before }) => before.table === table));
    for (let round = court.open(); round.length > 0; round = court.open()) {
      const keys = new Set<string>();
      for (const { unique, values } of round) {
        for (const key of await claimants(tx, table, unique, values)) keys.add(key);
        for (const value of values) for (const key of coming.get(unique)?.get(value) ?? []) keys.add(key);
      }
      await hear([...keys].filter((key) => !court.has(key)));
    }
    for (const { change, fields, lost } of court.judge()) {
      judged.set(`${table.name} ${change.before.key}`, change);
      verdicts.push(...court.uniques.map((unique) => ({ change, unique, value: uniqueValue(unique, fields), holder: lost.get(unique) ?? null })));
    }
  }
  const result = changes.map((change) => {
    const id = `${change.before.table.name} ${change.before.key}`;
    const own = judged.get(id) ?? change;
    judged.delete(id);
    return own;
  });
  return { changes: [...result, ...[...judged.values()].filter(isMoved)], verdicts };
}

/** The changes of these records: as they are given, or of none. */
async function partiesOf(tx: Transaction, replica: Replica, table: ModelTable, changes: readonly Change[], keys: readonly string[]): Promise<Change[]> {
  if (keys.length === 0) return [];
  const given = new Map(changes.filter(({ before }) => before.table === table).map((change) => [change.before.key, change]));
  const read = await readLocked(tx, replica, table, keys.filter((key) => !given.has(key)));
  return [
    ...keys.flatMap((key) => given.get(key) ?? []),
    ...read.map((before): Change => ({ before, state: before.settled, origin: originOf(before), view: viewOf(replica, before, before.settled) })),
  ];
}

/** Keeps the claims that rows do not tell where they are found, and those of the records that others give way to. */
export function storeClaims(tx: Transaction, now: Now, changes: readonly Change[], verdicts: readonly Verdict[], waiting: ReadonlyMap<Change, unknown>): void {
  const gone = [...changes.filter(wasHidden), ...verdicts.map(({ change }) => change)];
  if (gone.length > 0) {
    tx.post(
      `DELETE FROM replication.claim WHERE ctid = ANY (ARRAY(
         SELECT c.ctid FROM json_to_recordset($1) AS x (model text, key text) CROSS JOIN LATERAL (SELECT ctid FROM replication.claim c WHERE c.model = x.model AND c.key = x.key OFFSET 0) c))`,
      [JSON.stringify(gone.map(({ before }) => ({ model: before.table.name, key: before.key })))],
    );
  }
  const hidden = new Set([...changes, ...verdicts.map(({ change }) => change)].filter((change) => isHidden(change) || waiting.has(change)));
  const claims = [...hidden].flatMap(({ before: { table, key }, state }) =>
    table.unique.flatMap((unique) => [...claimsOf(unique, key, state).keys()].map((value) => ({ model: table.name, name: unique.name, value: hashOf(value), key }))),
  );
  for (const { change, unique, holder, value } of verdicts) {
    if (holder !== null && value !== null) claims.push({ model: change.before.table.name, name: unique.name, value: hashOf(value), key: holder.key });
  }
  if (claims.length === 0) return;
  now.claimed = true;
  tx.post(
    `INSERT INTO replication.claim (model, name, value, key)
     SELECT model, name, value, key FROM json_to_recordset($1) AS x (model text, name text, value text, key text) ON CONFLICT DO NOTHING`,
    [JSON.stringify(claims)],
  );
}

/** True where a record's row does not tell what it claims. */
function isHidden({ before: { table }, state, masked, aside }: Change): boolean {
  return masked !== undefined || aside !== undefined || !claimsAlike(table.unique, state);
}

function wasHidden({ before: { table, state, masked, waiting } }: Change): boolean {
  return masked !== null || waiting !== null || !claimsAlike(table.unique, state);
}

/** True where a record that nobody changed shows something else, or waits otherwise, than before. */
function isMoved({ before, view, masked, aside }: Change): boolean {
  const same = JSON.stringify(masked ?? null) === JSON.stringify(before.masked) && (aside ?? null) === before.waiting;
  return before.writes.length > 0 || !same || !sameFields(view.fields && showFields(before.table, view.fields), before.row);
}

interface Judged {
  readonly change: Change;
  /** The record's own values. */
  readonly fields: Fields | null;
  readonly lost: ReadonlyMap<UniqueKey, Claim>;
}

/** The records that claim some values of one table, and the values looked up. Grows until nothing more is in question. */
function createCourt(table: ModelTable, first: readonly Change[]): {
  readonly uniques: readonly UniqueKey[];
  has(key: string): boolean;
  hear(changes: readonly Change[]): void;
  /** Values in question whose claimants were not looked up yet; they count as looked up afterwards. */
  open(): { readonly unique: UniqueKey; readonly values: string[] }[];
  judge(): Judged[];
} {
  // Another process may change the description meanwhile.
  const uniques = table.unique;
  const parties = new Map<string, Change>();
  const claims = new Map(uniques.map((unique) => [unique, new Map<string, Claim[]>()]));
  const looked = new Map(uniques.map((unique) => [unique, new Set<string>()]));

  function hear(changes: readonly Change[]): void {
    for (const change of changes) {
      const { key } = change.before;
      if (parties.has(key)) continue;
      parties.set(key, change);
      for (const [unique, byValue] of claims) {
        for (const [value, claim] of claimsOf(unique, key, change.state)) {
          const others = byValue.get(value);
          if (others) others.push(claim);
          else byValue.set(value, [claim]);
        }
      }
    }
  }

  function judgeOne(change: Change): Judged {
    const { before, view } = change;
    const lost = new Map<UniqueKey, Claim>();
    if (view.fields === null) return { change: { before, state: change.state, origin: change.origin, view }, fields: view.fields, lost };
    let shown: Fields | null = view.fields;
    const masked: Record<string, string> = {};
    for (const [unique, byValue] of claims) {
      const value = uniqueValue(unique, view.fields);
      const holder = value === null ? null : holderOf(byValue.get(value) ?? []);
      if (holder === null || holder.key === before.key) continue;
      lost.set(unique, holder);
      if (shown !== null && unique.yields) masked[unique.name] = unique.yields.field;
      // A field that gives way for two constraints is marked once.
      const given: boolean = shown !== null && unique.yields !== null && shown[unique.yields.field] !== view.fields[unique.yields.field];
      if (shown !== null && !given) shown = yieldValue(unique, before.key, shown);
    }
    const { state, origin } = change;
    if (lost.size === 0) return { change: { before, state, origin, view }, fields: view.fields, lost };
    const taken = shown !== null && [...claims].some(([unique, byValue]) => {
      const value = uniqueValue(unique, shown);
      return value !== null && value !== uniqueValue(unique, view.fields) && byValue.get(value)?.some(({ key }) => key !== before.key);
    });
    if (shown !== null && !taken) return { change: { before, state, origin, view: { ...view, fields: shown }, masked }, fields: view.fields, lost };
    const [[unique, { key }]] = [...lost] as [[UniqueKey, Claim]];
    const aside = `record ${key} holds its value of ${unique.fields.join(', ')} (${unique.name}), and it can show nothing in its place. Change or delete one of the two.`;
    return { change: { before, state, origin, view: { ...view, fields: null }, aside }, fields: view.fields, lost };
  }

  hear(first);
  return {
    uniques,
    has: (key) => parties.has(key),
    hear,
    open() {
      const round = uniques.map((unique) => ({ unique, values: [] as string[] }));
      for (const party of parties.values()) {
        const { before, state, view } = party;
        const shown = judgeOne(party).change.view.fields;
        for (const { unique, values } of round) {
          const seen = looked.get(unique) as Set<string>;
          const own = [before.state, before.settled, state].flatMap((each) => [...claimsOf(unique, before.key, each).keys()]);
          for (const value of [...own, ...[view.fields, before.row, shown].map((fields) => uniqueValue(unique, fields))]) {
            if (value === null || seen.has(value)) continue;
            seen.add(value);
            values.push(value);
          }
        }
      }
      return round.filter(({ values }) => values.length > 0);
    },
    judge: () => [...parties.values()].map(judgeOne),
  };
}

/** By constraint and value, the keys of the changes that claim it. */
function claimsOfAll(uniques: readonly UniqueKey[], changes: readonly Change[]): ReadonlyMap<UniqueKey, ReadonlyMap<string, readonly string[]>> {
  return new Map(
    uniques.map((unique) => {
      const byValue = new Map<string, string[]>();
      for (const { before, state } of changes) {
        for (const value of claimsOf(unique, before.key, state).keys()) {
          const keys = byValue.get(value);
          if (keys) keys.push(before.key);
          else byValue.set(value, [before.key]);
        }
      }
      return [unique, byValue] as const;
    }),
  );
}

/** Keys of the records that claim what one of these is known to claim. */
async function claimsAgainst(tx: Transaction, { name }: ModelTable, keys: readonly string[]): Promise<string[]> {
  // Look-ups, as in `readRecords`: 5,000 keys joined and compared with 5,000 took 20 s.
  const rows = await tx.query(
    `SELECT DISTINCT other.key FROM unnest($2::text[]) AS k (key)
      CROSS JOIN LATERAL (SELECT name, value FROM replication.claim WHERE model = $1 AND key = k.key OFFSET 0) own
      CROSS JOIN LATERAL (SELECT key FROM replication.claim c WHERE model = $1 AND c.name = own.name AND c.value = own.value AND c.key <> k.key OFFSET 0) other`,
    [name, keys],
  );
  const asked = new Set(keys);
  return rows.flatMap(([key]) => (asked.has(key as string) ? [] : [key as string]));
}

/** Keys of the records that claim one of these values, or whose rows have it. */
async function claimants(tx: Transaction, table: ModelTable, unique: UniqueKey, values: readonly string[]): Promise<string[]> {
  const hidden = await tx.query(
    `SELECT DISTINCT c.key FROM unnest($3::text[]) AS v (value) CROSS JOIN LATERAL (SELECT key FROM replication.claim c WHERE c.model = $1 AND c.name = $2 AND c.value = v.value OFFSET 0) c`,
    [table.name, unique.name, values.map(hashOf)],
  );
  return [...hidden.map(([key]) => key as string), ...(await holdersOfRows(tx, table, unique, values))];
}

async function holdersOfRows(tx: Transaction, table: ModelTable, unique: UniqueKey, values: readonly string[]): Promise<string[]> {
  const columns = unique.fields.map((name) => table.columns.find(({ field }) => field.name === name) as ModelTable['columns'][number]);
  const matches = columns.map(({ column, type }, i) => {
    const same = `t.${column} = x.c${i}::${type}`;
    return unique.nullsClaim ? `(${same} OR (t.${column} IS NULL AND x.c${i} IS NULL))` : same;
  });
  const rows = values.map((value) => Object.fromEntries((JSON.parse(value) as (string | null)[]).map((text, i) => [`c${i}`, text])));
  await tx.query('SAVEPOINT look');
  try {
    const found = await tx.query(
      `SELECT t.key FROM json_to_recordset($1) AS x (${columns.map((_, i) => `c${i} text`).join(', ')})
        CROSS JOIN LATERAL (SELECT t.${table.keyColumn.column}::text AS key FROM ${table.table} t WHERE ${matches.join(' AND ')} OFFSET 0) t`,
      [JSON.stringify(rows)],
    );
    await tx.query('RELEASE SAVEPOINT look');
    return found.map(([key]) => key as string);
  } catch (error) {
    if (sqlState(error)?.startsWith('22') !== true) throw error;
    // A peer's text that is no value of its type: no row has it.
    await tx.query('ROLLBACK TO SAVEPOINT look');
    if (values.length === 1) return [];
    const half = Math.ceil(values.length / 2);
    return [...(await holdersOfRows(tx, table, unique, values.slice(0, half))), ...(await holdersOfRows(tx, table, unique, values.slice(half)))];
  }
}

async function claimedElsewhere(tx: Transaction, changes: readonly Change[]): Promise<ReadonlySet<Change>> {
  const wanted = changes.flatMap(({ before, state }, n) =>
    before.table.unique.flatMap((unique) =>
      [before.state, state].flatMap((each) =>
        [...claimsOf(unique, before.key, each).keys()].map((value) => ({ n, key: before.key, model: before.table.name, name: unique.name, value: hashOf(value) })),
      ),
    ),
  );
  const rows = await tx.query(
    `SELECT DISTINCT x.n FROM json_to_recordset($1) AS x (n integer, key text, model text, name text, value text)
      CROSS JOIN LATERAL (SELECT FROM replication.claim c WHERE c.model = x.model AND c.name = x.name AND c.value = x.value AND c.key <> x.key OFFSET 0) other
     UNION
     SELECT k.n FROM json_to_recordset($2) AS k (n integer, model text, key text)
      CROSS JOIN LATERAL (SELECT FROM replication.claim c WHERE c.model = k.model AND c.key = k.key OFFSET 0) own`,
    [JSON.stringify(wanted), JSON.stringify(changes.map(({ before }, n) => ({ n, model: before.table.name, key: before.key })))],
  );
  return new Set(rows.map(([n]) => changes[Number(n)] as Change));
}

function hashOf(value: string): string {
  return createHash('md5').update(value).digest('hex');
}
