/**
 * Conflicts over unique values in the log: at most one pending entry a record and constraint, beside its ordinary one. It stands on the record that does not hold the value, whatever the policy,
 * and closes when nothing collides any more, however that came about.
 */
import { latest, livingSides } from '../replication/policy.ts';
import { uniqueOutcome, uniqueValue } from '../replication/unique.ts';
import { compare, sameFields, type Version } from '../replication/version.ts';
import type { Change } from './changes.ts';
import { closeEntries, openEntries, updateEntries, type ClosedEntry, type OpenedEntry, type UpdatedEntry } from './conflict-entries.ts';
import { encodeHolder, NO_CHANGES, pendingUnique, type ConflictChanges, type ConflictEntry } from './conflicts.ts';
import type { Transaction } from './database.ts';
import { encodeState, originOf, readLocked, viewOf } from './records.ts';
import type { Now, Replica } from './replica.ts';
import type { ModelTable } from './tables.ts';
import type { Verdict } from './unique.ts';

/**
 * Brings the log up to date with what was found of unique values.
 *
 * @param more - The peer whose batch this is, where more of its batches follow: what they may settle is not told yet.
 */
export async function logVerdicts(tx: Transaction, now: Now, verdicts: readonly Verdict[], more: string | null): Promise<ConflictChanges> {
  if (verdicts.length === 0) return NO_CHANGES;
  const keys = verdicts.map(({ change: { before } }) => ({ m: before.table.name, k: before.key }));
  const pending = new Map((await pendingUnique(tx, keys)).map((entry) => [idOf(entry.model, entry.key, entry.name), entry]));
  const states = new Map(verdicts.map(({ change }) => [idOf(change.before.table.name, change.before.key), change.state]));
  const opened: OpenedEntry[] = [];
  const updated: UpdatedEntry[] = [];
  const closed: ClosedEntry[] = [];
  for (const verdict of verdicts) {
    const { change, unique, holder } = verdict;
    const { before: { table, key } } = change;
    const entry = pending.get(idOf(table.name, key, unique.name));
    const own = losingVersion(verdict);
    if (holder !== null && own !== null) {
      const told = { kind: 'UNIQUE' as const, fields: unique.fields, sides: encodeState([own], null), holder: encodeHolder(holder.key, holder.version) };
      if (entry === undefined) opened.push({ model: table.name, key, name: unique.name, ...told });
      else if (!isSame(entry, own, holder.key, holder.version)) updated.push({ id: entry.id, ...told });
    } else if (entry !== undefined) {
      const sides = sidesOf(entry);
      const after = [...change.state, ...(states.get(idOf(table.name, entry.holder?.key ?? '')) ?? [])];
      closed.push({
        id: entry.id,
        kind: 'UNIQUE',
        fields: entry.fields,
        sides: null,
        values: change.view.fields && JSON.stringify(change.view.fields),
        ...uniqueOutcome(sides, after),
      });
    }
  }
  await updateEntries(tx, updated);
  const resolved = await closeEntries(tx, now.clock, closed);
  const detected = await openEntries(tx, now.clock, await withoutDeferred(tx, now, opened, more));
  return { detected, resolved };
}

/** Closes the entries whose constraint is gone: nothing collides there any more, by the hand of whoever changed the schema here. */
export async function closeDropped(tx: Transaction, replica: Replica, { name: model, unique }: ModelTable, clock: number): Promise<ConflictChanges> {
  const rows = await tx.query(`SELECT key FROM replication.conflict WHERE status = 'PENDING' AND kind = 'UNIQUE' AND model = $1 AND name <> ALL ($2)`, [model, unique.map(({ name }) => name)]);
  const closed: ClosedEntry[] = [];
  for (const entry of await pendingUnique(tx, rows.map(([key]) => ({ m: model, k: key as string })))) {
    if (unique.some(({ name }) => name === entry.name)) continue;
    const [own] = entry.sides;
    closed.push({ id: entry.id, kind: entry.kind, fields: entry.fields, sides: null, values: own?.fields ? JSON.stringify(own.fields) : null, strategy: 'manual', by: replica.name });
  }
  return { detected: [], resolved: await closeEntries(tx, clock, closed) };
}

/**
 * Records whose collisions may be told now, as they are: those that a peer left whose feed is drained, or that has not been heard of for a while. They are no longer deferred.
 *
 * @param which - The peer, or how long ago the others were left, in microseconds.
 * @param changes - What is written anyway, which is not among them.
 */
export async function deferredChanges(tx: Transaction, replica: Replica, now: Pick<Now, 'deferred'>, which: { readonly sender: string } | { readonly age: number }, changes: readonly Change[]): Promise<Change[]> {
  if (!now.deferred) return [];
  const rows =
    'sender' in which
      ? await tx.query('DELETE FROM replication.deferral WHERE sender = $1 RETURNING model, key', [which.sender])
      : await tx.query('DELETE FROM replication.deferral WHERE since < replication.clock() - $1 RETURNING model, key', [which.age]);
  const found: Change[] = [];
  for (const table of replica.tables.values()) {
    const given = new Set(changes.filter(({ before }) => before.table === table).map(({ before }) => before.key));
    const keys = rows.flatMap(([model, key]) => (model === table.name && !given.has(key as string) ? [key as string] : []));
    for (const before of await readLocked(tx, replica, table, keys)) {
      found.push({ before, state: before.settled, origin: originOf(before), view: viewOf(replica, before, before.settled) });
    }
  }
  return found;
}

async function withoutDeferred(tx: Transaction, now: Now, opened: readonly OpenedEntry[], more: string | null): Promise<readonly OpenedEntry[]> {
  if (opened.length === 0) return opened;
  const records = JSON.stringify(opened.map(({ model, key }) => ({ model, key })));
  if (more !== null) {
    now.deferred = true;
    await tx.query(
      `INSERT INTO replication.deferral (model, key, sender, since)
       SELECT DISTINCT model, key, $2, $3::bigint FROM json_to_recordset($1) AS x (model text, key text) ON CONFLICT DO NOTHING`,
      [records, more, now.clock],
    );
    return [];
  }
  if (!now.deferred) return opened;
  const rows = await tx.query(
    `SELECT x.model, x.key FROM json_to_recordset($1) AS x (model text, key text) CROSS JOIN LATERAL (SELECT FROM replication.deferral d WHERE d.model = x.model AND d.key = x.key OFFSET 0) d`,
    [records],
  );
  const deferred = new Set(rows.map(([model, key]) => idOf(model as string, key as string)));
  return opened.filter(({ model, key }) => !deferred.has(idOf(model, key)));
}

/** The version whose value gives way; where what is shown is made of several, the latest living one that has the value, or of all where none has it alone. */
function losingVersion({ change: { state, view }, unique, value }: Verdict): Version | null {
  if (view.version?.fields) return view.version;
  const living = livingSides(state);
  const claiming = living.filter(({ fields }) => fields !== null && uniqueValue(unique, fields) === value);
  const among = claiming.length > 0 ? claiming : living;
  return among.length > 0 ? latest(among) : null;
}

function sidesOf({ sides, holder }: ConflictEntry): Version[] {
  return holder === null ? [...sides] : [...sides, holder.version];
}

function isSame(entry: ConflictEntry, own: Version, holderKey: string, holder: Version): boolean {
  const [side] = entry.sides;
  return side !== undefined && entry.holder?.key === holderKey && sameVersion(side, own) && sameVersion(entry.holder.version, holder);
}

function sameVersion(a: Version, b: Version): boolean {
  return compare(a.vector, b.vector) === 'equal' && sameFields(a.fields, b.fields);
}

function idOf(...parts: readonly string[]): string {
  return JSON.stringify(parts);
}
