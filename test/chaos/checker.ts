/**
 * What must hold when all faults are healed and every replica has everything. Pure: the evidence comes in, the violations go out.
 *
 * The history is Elle's idea: a value tells which writes its writer had seen, so that what was lost, made up or held against itself can be told from values alone, without trusting any
 * clock, vector or log of the product.
 */
import { lastTokens, sameValues, tokensOf, type Values } from './values.ts';

/** One write as its client saw it. */
export interface Operation {
  readonly id: number;
  readonly replica: string;
  readonly via: string;
  readonly kind: 'create' | 'update' | 'delete' | 'resolve';
  /** Null where nobody told. */
  readonly key: string | null;
  /** What it wrote; a deletion writes none. */
  readonly token: string | null;
  /** `unknown`: the answer never came. */
  readonly outcome: 'ok' | 'failed' | 'unknown';
  /** The list that its writer had read, where the write was to succeed only over that. */
  readonly expected?: string;
}

/** One write as its transaction noted it beside: it is there exactly if the write was committed. */
export interface Capture {
  readonly replica: string;
  readonly key: string;
  readonly before: Values | null;
  readonly after: Values | null;
}

export interface RecordState {
  readonly key: string;
  /** The vectors, in one form on every replica. */
  readonly version: string;
  readonly sides: readonly (Values | null)[];
  readonly row: Values | null;
  readonly waiting: boolean;
}

export interface LogEntry {
  readonly id: number;
  readonly key: string;
  readonly kind: string;
  readonly pending: boolean;
  readonly sides: readonly (Values | null)[];
  readonly resolved: Values | null;
}

/** What one subscriber heard, in order. */
export interface Hearing {
  readonly replica: string;
  readonly who: string;
  /** The last conflict that was there before it listened. */
  readonly from: number;
  readonly ids: readonly number[];
}

export interface Evidence {
  readonly manual: boolean;
  readonly operations: readonly Operation[];
  readonly captures: readonly Capture[];
  /** By replica. */
  readonly states: ReadonlyMap<string, readonly RecordState[]>;
  readonly logs: ReadonlyMap<string, readonly LogEntry[]>;
  /** Entries of logs that a restore threw away. */
  readonly formerLogs: readonly LogEntry[];
  readonly hearings: readonly Hearing[];
  /** Tokens that a restore may have taken with it: no other replica had them. */
  readonly forgiven: ReadonlySet<string>;
  /** Records whose deletion a restore may have taken with it. */
  readonly forgivenDeletions: ReadonlySet<string>;
}

export interface Violation {
  readonly rule: 'convergence' | 'loss' | 'resurrection' | 'false conflict' | 'invention' | 'log' | 'subscription' | 'expected version' | 'quiet' | 'process';
  readonly message: string;
  /** The record it is about. */
  readonly key?: string;
}

export function check(evidence: Evidence): Violation[] {
  const records = gather(evidence);
  const outcomes = outcomesOf(evidence.operations);
  return [
    ...convergence(evidence),
    ...[...records.values()].flatMap((record) => [...losses(record, evidence), ...falseConflicts(record, evidence), ...inventions(record, outcomes)]),
    ...logEntries(evidence),
    ...subscriptions(evidence),
    ...expectedVersions(evidence),
  ];
}

/** What there is to say of one record. */
interface Dossier {
  readonly key: string;
  readonly captures: Capture[];
  readonly states: (RecordState & { readonly replica: string })[];
  readonly entries: LogEntry[];
}

function gather({ captures, states, logs, formerLogs }: Evidence): Map<string, Dossier> {
  const records = new Map<string, Dossier>();
  const of = (key: string): Dossier => {
    const known = records.get(key) ?? { key, captures: [], states: [], entries: [] };
    records.set(key, known);
    return known;
  };
  for (const capture of captures) of(capture.key).captures.push(capture);
  for (const [replica, own] of states) for (const state of own) of(state.key).states.push({ ...state, replica });
  for (const entry of [...formerLogs, ...[...logs.values()].flat()]) of(entry.key).entries.push(entry);
  return records;
}

/** Equal states everywhere, and equal rows where no replica keeps to a side of its own. */
function* convergence({ states, manual }: Evidence): Generator<Violation> {
  const keys = new Set([...states.values()].flatMap((own) => own.map(({ key }) => key)));
  const byReplica = new Map([...states].map(([replica, own]) => [replica, new Map(own.map((state) => [state.key, state]))]));
  for (const key of keys) {
    const found = [...byReplica].map(([replica, own]) => ({ replica, state: own.get(key) }));
    const versions = new Set(found.map(({ state }) => state?.version));
    if (versions.size > 1) {
      yield { rule: 'convergence', key, message: `record ${key} has different states: ${found.map(({ replica, state }) => `${replica} ${state?.version ?? 'none'}`).join('; ')}` };
      continue;
    }
    const alone = found.every(({ state }) => state?.sides.length === 1);
    if ((manual && !alone) || found.some(({ state }) => state?.waiting)) continue;
    const rows = found.map(({ state }) => state?.row ?? null);
    if (rows.some((row) => !sameValues(row, rows[0] ?? null))) {
      yield { rule: 'convergence', key, message: `record ${key} has equal states and is shown differently: ${found.map(({ replica, state }) => `${replica} ${JSON.stringify(state?.row ?? null)}`).join('; ')}` };
    }
  }
}

/** Every committed or acknowledged write is in some side, or was seen by what is, or was deleted by who saw it, or is in the log. */
function* losses(record: Dossier, { operations, forgiven, forgivenDeletions }: Evidence): Generator<Violation> {
  const { key, captures, states, entries } = record;
  const deletions = captures.filter(({ after }) => after === null);
  const there = [
    ...states.flatMap(({ sides, row }) => [...sides, row]),
    ...entries.flatMap(({ sides, resolved }) => [...sides, resolved]),
    ...deletions.map(({ before }) => before),
  ].filter((values) => values !== null);
  const seen = closure(there.flatMap(tokensOf), seenBy(captures));
  const acknowledged = operations.filter(({ key: own, outcome, token }) => own === key && outcome === 'ok' && token !== null).map(({ token }) => token as string);
  for (const token of new Set([...acknowledged, ...captures.flatMap(writtenBy)])) {
    if (!seen.has(token) && !forgiven.has(token)) yield { rule: 'loss', key, message: `the write ${token} to record ${key} is nowhere: in no side, seen by no write over it, in no log` };
  }
  if (deletions.length === 0 || forgivenDeletions.has(key) || states.length === 0) return;
  const told = [...states, ...entries].some(({ sides }) => sides.includes(null));
  // A restored replica may give a key out again: what lives under it then is another record, made where the deletion was already shown.
  const deleted = closure(deletions.flatMap(({ before }) => (before === null ? [] : tokensOf(before))), seenBy(captures));
  const lives = states.some(({ sides, row }) => [...sides, row].some((values) => values !== null && tokensOf(values).some((token) => deleted.has(token))));
  if (!told && lives) yield { rule: 'resurrection', key, message: `record ${key} was deleted on ${deletions[0]?.replica}, and lives without anyone having seen the deletion` };
}

/** No side holds all that another's writer had seen. A person's decision may show an old value anew, beside a write over that value: such records are passed over. */
function* falseConflicts({ key, captures, states, entries }: Dossier, { manual }: Evidence): Generator<Violation> {
  const [state] = states;
  if (state === undefined || state.sides.length < 2 || (manual && entries.some(({ pending }) => !pending))) return;
  const seen = seenBy(captures);
  const living = state.sides.filter((side) => side !== null);
  for (const [i, side] of living.entries()) {
    const last = lastTokens(side);
    for (const [j, other] of living.entries()) {
      if (i === j) continue;
      const known = closure(lastTokens(other), seen);
      if (last.every((token) => known.has(token))) {
        yield { rule: 'false conflict', key, message: `record ${key}: the side ${JSON.stringify(side)} had been seen by the writer of the side ${JSON.stringify(other)}` };
        return;
      }
    }
  }
}

/** Nothing is there that nobody wrote, or whose write failed for good. */
function* inventions({ key, states }: Dossier, outcomes: ReadonlyMap<string, Operation['outcome']>): Generator<Violation> {
  const tokens = new Set(states.flatMap(({ sides, row }) => [...sides, row]).flatMap((values) => (values === null ? [] : tokensOf(values))));
  for (const token of tokens) {
    const outcome = outcomes.get(token);
    if (outcome === undefined) yield { rule: 'invention', key, message: `record ${key} holds ${JSON.stringify(token)}, which nobody wrote` };
    else if (outcome === 'failed') yield { rule: 'invention', key, message: `record ${key} holds ${token}, whose write failed` };
  }
}

function outcomesOf(operations: readonly Operation[]): Map<string, Operation['outcome']> {
  return new Map(operations.flatMap(({ token, outcome }) => (token === null ? [] : [[token, outcome] as const])));
}

/** One pending entry for each record of two values under `manual`, none otherwise. */
function* logEntries({ logs, states, manual }: Evidence): Generator<Violation> {
  for (const [replica, entries] of logs) {
    const pending = new Map<string, number>();
    for (const { key, kind, pending: open } of entries) if (open && kind !== 'UNIQUE') pending.set(key, (pending.get(key) ?? 0) + 1);
    const conflicting = new Set((states.get(replica) ?? []).filter(({ sides }) => isConflict(sides)).map(({ key }) => key));
    for (const key of new Set([...pending.keys(), ...conflicting])) {
      const wanted = manual && conflicting.has(key) ? 1 : 0;
      const found = pending.get(key) ?? 0;
      if (found !== wanted) yield { rule: 'log', key, message: `record ${key} has ${found} pending conflicts on ${replica} and should have ${wanted}` };
    }
  }
}

function isConflict(sides: readonly (Values | null)[]): boolean {
  return sides.some((side) => !sameValues(side, sides[0] ?? null));
}

/** Every conflict of its replica, each once, in order. */
function* subscriptions({ hearings, logs }: Evidence): Generator<Violation> {
  for (const { replica, who, from, ids } of hearings) {
    const due = (logs.get(replica) ?? []).map(({ id }) => id).filter((id) => id > from).toSorted((a, b) => a - b);
    const at = due.findIndex((id, i) => ids[i] !== id);
    if (at >= 0 || ids.length !== due.length) {
      const place = at < 0 ? due.length : at;
      yield { rule: 'subscription', message: `${who} on ${replica} heard ${ids.length} conflicts of ${due.length}; the ${place + 1}th was ${ids[place] ?? 'none'} and should have been ${due[place] ?? 'none'}` };
    }
  }
}

/** A write that was to succeed only over what its writer had read overwrote nothing else. */
function* expectedVersions({ operations, captures }: Evidence): Generator<Violation> {
  const overwritten = new Map(captures.flatMap((capture) => writtenBy(capture).map((token) => [token, capture] as const)));
  for (const { token, expected, key, via } of operations) {
    if (expected === undefined || token === null || key === null) continue;
    const before = overwritten.get(token)?.before;
    if (before && before.nom !== expected) yield { rule: 'expected version', key, message: `record ${key}: ${token} (${via}) expected the version of "${expected}" and overwrote "${before.nom}"` };
  }
}

/** The tokens that a write put into the row. */
function writtenBy({ before, after }: Capture): string[] {
  if (after === null) return [];
  return lastTokens(after).filter((token) => before === null || !tokensOf(before).includes(token));
}

/** For each write the tokens that it had before it. */
function seenBy(captures: readonly Capture[]): Map<string, string[]> {
  const seen = new Map<string, string[]>();
  for (const capture of captures) {
    const had = capture.before === null ? [] : tokensOf(capture.before);
    for (const token of writtenBy(capture)) seen.set(token, [...(seen.get(token) ?? []), ...had, ...(capture.after === null ? [] : tokensOf(capture.after))]);
  }
  return seen;
}

/** What can be reached from tokens by what their writers had seen. */
function closure(from: readonly string[], seen: ReadonlyMap<string, readonly string[]>): Set<string> {
  const reached = new Set(from);
  const open = [...from];
  for (let token = open.pop(); token !== undefined; token = open.pop()) {
    for (const before of seen.get(token) ?? []) {
      if (reached.has(before)) continue;
      reached.add(before);
      open.push(before);
    }
  }
  return reached;
}
