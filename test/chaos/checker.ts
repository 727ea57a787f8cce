/**
 * What must hold when all faults are healed and every replica has everything. Pure: the evidence comes in, the violations go out.
 *
 * The history is Elle's idea: a value tells which writes its writer had seen, so that what was lost, made up or held against itself can be told from values alone, without trusting any
 * clock, vector or log of the product.
 */
import type { AsideRecord, Capture, Evidence, LogEntry, Operation, RecordState, Violation } from './facts.ts';
import { uniqueValues } from './unique-values.ts';
import { lastTokens, sameValues, tokensOf, type Values } from './values.ts';

export function check(evidence: Evidence): Violation[] {
  const records = gather(evidence);
  const writers = writersOf(evidence.operations);
  return [
    ...convergence(evidence),
    ...[...records.values()].flatMap((record) => [...losses(record, evidence), ...falseConflicts(record, evidence), ...inventions(record, writers)]),
    ...logEntries(evidence),
    ...uniqueValues(evidence),
    ...setAside(evidence),
    ...subscriptions(evidence),
    ...expectedVersions(evidence),
  ];
}

/** What there is to say of one record. */
interface Dossier {
  readonly key: string;
  readonly captures: Capture[];
  readonly states: (RecordState & { readonly replica: string })[];
  readonly entries: Pick<LogEntry, 'kind' | 'pending' | 'sides' | 'resolved'>[];
  /** Set aside. */
  readonly asides: AsideRecord[];
}

function gather({ captures, states, logs, formerLogs, asides }: Evidence): Map<string, Dossier> {
  const records = new Map<string, Dossier>();
  const of = (key: string): Dossier => {
    const known = records.get(key) ?? { key, captures: [], states: [], entries: [], asides: [] };
    records.set(key, known);
    return known;
  };
  for (const capture of captures) of(capture.key).captures.push(capture);
  for (const [replica, own] of states) for (const state of own) of(state.key).states.push({ ...state, replica });
  for (const entry of [...formerLogs, ...[...logs.values()].flat()]) {
    const { key, holder } = entry;
    of(key).entries.push(entry);
    if (holder !== null) of(holder.key).entries.push({ ...entry, sides: [holder.values], resolved: null });
  }
  for (const { records: own } of asides.values()) for (const aside of own) of(aside.key).asides.push(aside);
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

/** Every committed or acknowledged write is in some side, or was seen by what is, or was deleted by who saw it, or is in the log, or set aside. */
function* losses(record: Dossier, { operations, forgiven, forgivenDeletions, broughtBack }: Evidence): Generator<Violation> {
  const { key, captures, states, entries, asides } = record;
  const deletions = captures.filter(({ after }) => after === null);
  const there = [
    ...states.flatMap(({ sides, row }) => [...sides, row]),
    ...entries.flatMap(({ sides, resolved }) => [...sides, resolved]),
    ...asides.flatMap(({ sides }) => sides),
    ...deletions.map(({ before }) => before),
  ].filter((values) => values !== null);
  const known = seenBy(captures);
  const told = closure(there.flatMap(tokensOf), known);
  const seen = broughtBack.has(key) ? closure([...told, ...writtenOver(captures, there, told)], known) : told;
  const acknowledged = operations.filter(({ key: own, outcome }) => own === key && outcome === 'ok').flatMap(tokensWritten);
  for (const token of new Set([...acknowledged, ...captures.flatMap(writtenBy)])) {
    if (!seen.has(token) && !forgiven.has(`${key} ${token}`)) yield { rule: 'loss', key, message: `the write ${token} to record ${key} is nowhere: in no side, seen by no write over it, in no log, not set aside` };
  }
  if (deletions.length === 0 || forgivenDeletions.has(key) || states.length === 0) return;
  const isTold = [...states, ...entries].some(({ sides }) => sides.includes(null));
  // A restored replica may give a key out again: what lives under it then is another record, made where the deletion was already shown.
  const deleted = closure(deletions.flatMap(({ before }) => (before === null ? [] : tokensOf(before))), known);
  const lives = states.some(({ sides, row }) => [...sides, row].some((values) => values !== null && tokensOf(values).some((token) => deleted.has(token))));
  if (!isTold && lives) yield { rule: 'resurrection', key, message: `record ${key} was deleted on ${deletions[0]?.replica}, and lives without anyone having seen the deletion` };
}

/** What was seen by whoever wrote old values anew, with no token of its own: where those values are there, or a write that is known of began with them. */
function writtenOver(captures: readonly Capture[], there: readonly Values[], told: ReadonlySet<string>): string[] {
  const anew = captures.filter((capture) => capture.before !== null && capture.after !== null && writtenBy(capture).length === 0);
  const begun = captures.filter((capture) => writtenBy(capture).some((token) => told.has(token))).map(({ before }) => before);
  return anew.filter(({ after }) => [...there, ...begun].some((values) => sameValues(values, after))).flatMap(({ before }) => (before === null ? [] : tokensOf(before)));
}

/** No side holds all that another's writer had seen. A person's decision may show an old value anew, beside a write over that value: such records are passed over. */
function* falseConflicts({ key, captures, states, entries }: Dossier, { manual, broughtBack }: Evidence): Generator<Violation> {
  const [state] = states;
  if (state === undefined || state.sides.length < 2 || broughtBack.has(key) || entries.some(({ pending, kind }) => !pending && (manual || kind === 'UNIQUE'))) return;
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
function* inventions({ key, states }: Dossier, writers: ReadonlyMap<string, readonly Operation[]>): Generator<Violation> {
  const tokens = new Set(states.flatMap(({ sides, row }) => [...sides, row]).flatMap((values) => (values === null ? [] : tokensOf(values))));
  for (const token of tokens) {
    // Of a creation that was not answered nobody knows the key.
    const own = (writers.get(token) ?? []).filter((operation) => operation.key === key || operation.key === null);
    if (own.length === 0) yield { rule: 'invention', key, message: `record ${key} holds ${JSON.stringify(token)}, which nobody wrote` };
    else if (own.every(({ outcome }) => outcome === 'failed')) yield { rule: 'invention', key, message: `record ${key} holds ${token}, whose write failed` };
  }
}

function writersOf(operations: readonly Operation[]): Map<string, Operation[]> {
  const writers = new Map<string, Operation[]>();
  for (const operation of operations) {
    for (const token of tokensWritten(operation)) {
      const known = writers.get(token);
      if (known) known.push(operation);
      else writers.set(token, [operation]);
    }
  }
  return writers;
}

function tokensWritten({ token, email }: Operation): string[] {
  return [...(token === null ? [] : [token]), ...(email === undefined ? [] : [email])];
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
function* subscriptions({ hearings, logs, reseeded }: Evidence): Generator<Violation> {
  for (const { replica, who, from, ids: all } of hearings) {
    const known = new Set((logs.get(replica) ?? []).map(({ id }) => id));
    const ids = reseeded.has(replica) ? all.filter((id) => known.has(id)) : all;
    const due = [...known].filter((id) => id > from).toSorted((a, b) => a - b);
    const at = due.findIndex((id, i) => ids[i] !== id);
    if (at >= 0 || ids.length !== due.length) {
      const place = at < 0 ? due.length : at;
      yield { rule: 'subscription', message: `${who} on ${replica} heard ${ids.length} conflicts of ${due.length}; the ${place + 1}th was ${ids[place] ?? 'none'} and should have been ${due[place] ?? 'none'}` };
    }
  }
}

/** At rest nothing waits to be shown, and all that is set aside is told of. */
function* setAside({ states, asides }: Evidence): Generator<Violation> {
  for (const [replica, own] of states) {
    for (const { key, waiting } of own) if (waiting) yield { rule: 'set aside', key, message: `record ${key} still waits to be shown on ${replica}` };
  }
  for (const [replica, { records, listed }] of asides) {
    const told = new Set(listed);
    for (const { key } of records) if (!told.has(key)) yield { rule: 'set aside', key, message: `record ${key} is set aside on ${replica}, which does not tell of it` };
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
