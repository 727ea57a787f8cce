/** The checker can fail: a sound history passes, and each way of breaking it is told. */
import { describe, expect, it } from 'vitest';

import { check } from './checker.ts';
import type { Evidence, LogEntry, Operation, RecordState } from './facts.ts';
import type { Values } from './values.ts';

const values = (nom: string, telephone: string | null = null, email = 'e0@x.org'): Values => ({ nom, telephone, email });
const write = (replica: string, token: string, over: Partial<Operation> = {}): Operation => ({ id: 0, replica, via: 'sql', kind: 'update', key: '1', token, outcome: 'ok', ...over });
const state = (sides: readonly (Values | null)[], over: Partial<RecordState> = {}): RecordState => ({ key: '1', version: `v${sides.length}`, sides, claims: claimsOf(sides), row: sides[0] ?? null, waiting: false, ...over });
const claimsOf = (sides: readonly (Values | null)[]): RecordState['claims'] => sides.flatMap((side) => (side ? [{ email: side.email, by: ['a', 1] as const }] : []));
const entry = (sides: readonly (Values | null)[], over: Partial<LogEntry> = {}): LogEntry => ({ id: 1, key: '1', kind: 'UPDATE_UPDATE', pending: true, sides, resolved: null, holder: null, ...over });

/** On a `t0`, then `t1` on a and `t2` on b, neither knowing of the other. */
const sides = [values('t0 t1'), values('t0 t2')];
const sound: Evidence = {
  manual: true,
  operations: [write('a', 't0', { kind: 'create', email: 'e0@x.org' }), write('a', 't1'), write('b', 't2')],
  captures: [
    { replica: 'a', key: '1', before: null, after: values('t0') },
    { replica: 'a', key: '1', before: values('t0'), after: values('t0 t1') },
    { replica: 'b', key: '1', before: values('t0'), after: values('t0 t2') },
  ],
  states: new Map([
    ['a', [state(sides)]],
    ['b', [state(sides, { row: sides[1] as Values })]],
  ]),
  logs: new Map([
    ['a', [entry(sides)]],
    ['b', [entry(sides)]],
  ]),
  formerLogs: [],
  hearings: [{ replica: 'a', who: 'somebody', from: 0, ids: [1] }],
  forgiven: new Set(),
  asides: new Map(),
  reseeded: new Set(),
  forgivenDeletions: new Set(),
  broughtBack: new Set(),
};
const everywhere = (of: RecordState): Evidence['states'] => new Map([['a', [of]], ['b', [of]]]);
const nothingLogged: Evidence['logs'] = new Map([['a', []], ['b', []]]);
/** All is settled: one side, nothing in the logs. */
const settled = (over: Partial<Evidence>, side: Values | null): Evidence => ({ ...sound, logs: nothingLogged, hearings: [], states: everywhere(state([side])), ...over });
const rules = (evidence: Evidence): string[] => check(evidence).map(({ rule }) => rule);

it('passes a sound history', () => {
  expect(check(sound)).toEqual([]);
});

describe('loss', () => {
  const lonely = settled({}, values('t0 t1'));

  it('is a write that is nowhere', () => {
    expect(check(lonely)).toMatchObject([{ rule: 'loss', key: '1', message: expect.stringContaining('t2') as string }]);
  });

  it('is also one that its client never heard of, once it was committed', () => {
    expect(rules({ ...lonely, operations: lonely.operations.map((each) => ({ ...each, outcome: 'unknown' as const })) })).toEqual(['loss']);
  });

  it('is none where a later write had seen it, however long ago', () => {
    const later = [...Array(12).keys()].map((n) => `s${n}`);
    const nom = (upTo: number): string => ['t0', 't1', 't2', ...later.slice(0, upTo)].slice(-2).join(' ');
    const captures = [...sound.captures, { replica: 'b', key: '1', before: values('t0 t2'), after: values('t1 t2') }, ...later.map((_, n) => ({ replica: 'a', key: '1', before: values(nom(n)), after: values(nom(n + 1)) }))];
    const operations = [...sound.operations, ...later.map((token) => write('a', token))];
    expect(check(settled({ captures, operations }, values(nom(12))))).toEqual([]);
  });

  it('is none where it is set aside', () => {
    expect(check({ ...lonely, asides: new Map([['b', { records: [{ key: '1', sides: [values('t0 t2')] }], listed: ['1'] }]]) })).toEqual([]);
  });

  it('is also an address that is nowhere, whoever else has it', () => {
    const operations = [...lonely.operations.slice(0, 2), write('a', 't3', { email: 'e3@x.org' }), write('b', 't4', { key: '2', kind: 'create', email: 'e3@x.org' })];
    const other = state([values('t4', null, 'e3@x.org')], { key: '2' });
    const states = new Map(['a', 'b'].map((name) => [name, [state([values('t0 t1 t3')]), other]]));
    expect(check({ ...lonely, captures: sound.captures.slice(0, 2), operations, states })).toMatchObject([{ rule: 'loss', key: '1', message: expect.stringContaining('e3@x.org') as string }]);
  });

  it('is none where the log has it, or a restore took it with it', () => {
    const resolved = entry(sides, { pending: false, resolved: values('t0 t1') });
    expect(check({ ...lonely, logs: new Map([['a', [resolved]], ['b', []]]) })).toEqual([]);
    expect(check({ ...lonely, formerLogs: [resolved] })).toEqual([]);
    expect(check({ ...lonely, forgiven: new Set(['1 t2']) })).toEqual([]);
  });

  it('is none where a person brought back what was there before it, and that, or what was written over it, is there', () => {
    const first = values('t0');
    const captures = [{ replica: 'a', key: '1', before: null, after: first }, { replica: 'a', key: '1', before: first, after: values('t0', 't1') }, { replica: 'a', key: '1', before: values('t0', 't1'), after: first }];
    const operations = sound.operations.slice(0, 2);
    const brought = { captures, operations, broughtBack: new Set(['1']) };
    expect(check(settled(brought, first))).toEqual([]);
    expect(rules(settled({ ...brought, broughtBack: new Set() }, first))).toEqual(['loss']);
    const later = { captures: [...captures, { replica: 'b', key: '1', before: first, after: values('t0 t3') }], operations: [...operations, write('b', 't3')] };
    expect(check(settled({ ...brought, ...later }, values('t0 t3')))).toEqual([]);
    // What was brought back is not there either.
    expect(rules(settled({ ...brought, captures: [...captures, { replica: 'b', key: '1', before: null, after: values('t9') }], operations: [...operations, write('b', 't9')] }, values('t9')))).toContain('loss');
  });

  it('is none where a deletion had seen it', () => {
    const captures = [...sound.captures.slice(0, 2), { replica: 'a', key: '1', before: values('t0 t1'), after: null }];
    expect(check(settled({ captures, operations: sound.operations.slice(0, 2) }, null))).toEqual([]);
    expect(rules(settled({ captures, operations: sound.operations }, null))).toEqual(['loss']);
  });
});

describe('resurrection', () => {
  const captures = [sound.captures[0]!, { replica: 'a', key: '1', before: values('t0'), after: null }];
  const operations = sound.operations.slice(0, 1);

  it('is a deleted record that lives', () => {
    expect(rules(settled({ captures, operations }, values('t0')))).toEqual(['resurrection']);
  });

  it('is none where the key was given out again: nothing of what was deleted lives', () => {
    const again = [...captures, { replica: 'b', key: '1', before: null, after: values('t9', null, 'e9@x.org') }];
    expect(check(settled({ captures: again, operations: [...operations, write('b', 't9', { kind: 'create', email: 'e9@x.org' })] }, values('t9', null, 'e9@x.org')))).toEqual([]);
  });

  it('is none where the deletion is a side, was decided on, or is gone for good', () => {
    const against = [null, values('t0')];
    expect(check({ ...settled({ captures, operations, states: everywhere(state(against)), logs: new Map([['a', [entry(against)]], ['b', [entry(against)]]]) }, null) })).toEqual([]);
    expect(check(settled({ captures, operations, logs: new Map([['a', [entry(against, { pending: false })]], ['b', []]]) }, values('t0')))).toEqual([]);
    expect(check(settled({ captures, operations, states: new Map([['a', []], ['b', []]]) }, null))).toEqual([]);
  });
});

describe('convergence', () => {
  it('is missed where states differ', () => {
    expect(rules({ ...sound, states: new Map([['a', [state(sides)]], ['b', [state(sides, { version: 'other' })]]]) })).toEqual(['convergence']);
    expect(rules({ ...sound, states: new Map([['a', [state(sides)]], ['b', []]]), logs: new Map([['a', [entry(sides)]], ['b', []]]) })).toEqual(['convergence']);
  });

  it('is missed where equal states are shown differently, but for sides kept to by hand', () => {
    const shown = new Map([['a', [state(sides)]], ['b', [state(sides, { row: sides[1] as Values })]]]);
    expect(rules({ ...sound, manual: false, states: shown, logs: nothingLogged, hearings: [] })).toEqual(['convergence']);
  });
});

it('tells a false conflict: a side that the other side had seen', () => {
  const older = [values('t0'), values('t0 t1')];
  expect(rules({ ...sound, captures: sound.captures.slice(0, 2), operations: sound.operations.slice(0, 2), states: everywhere(state(older)) })).toEqual(['false conflict']);
});

it('tells what nobody wrote, and what had failed', () => {
  expect(rules({ ...sound, operations: sound.operations.slice(0, 2) })).toEqual(['invention']);
  expect(rules({ ...sound, operations: [...sound.operations.slice(0, 2), write('b', 't2', { outcome: 'failed' })] })).toEqual(['invention']);
});

it('knows what was written since an earlier check of the same history', () => {
  const operations = [...sound.operations];
  expect(check({ ...sound, operations })).toEqual([]);
  operations.push(write('a', 't3'));
  const later = [...sound.captures, { replica: 'a', key: '1', before: values('t0 t1'), after: values('t0 t1 t3') }];
  expect(check({ ...sound, operations, captures: later, states: everywhere(state([values('t0 t1 t3'), values('t0 t2')])) })).toEqual([]);
});

it('tells a log with an entry missing, or one too many', () => {
  expect(rules({ ...sound, logs: new Map([['a', []], ['b', [entry(sides)]]]), hearings: [] })).toEqual(['log']);
  expect(rules({ ...sound, logs: new Map([['a', [entry(sides), entry(sides, { id: 2 })]], ['b', [entry(sides)]]]), hearings: [] })).toEqual(['log']);
  expect(rules(settled({ captures: sound.captures.slice(0, 2), operations: sound.operations.slice(0, 2), logs: new Map([['a', [entry(sides)]], ['b', []]]) }, values('t0 t1')))).toEqual(['log']);
});

it.each([[[]], [[1, 1]], [[2]]])('tells a subscriber who heard %j of conflict 1', (ids: number[]) => {
  expect(rules({ ...sound, hearings: [{ replica: 'a', who: 'somebody', from: 0, ids }] })).toEqual(['subscription']);
});

it('tells a write that overwrote what it did not expect', () => {
  expect(check({ ...sound, operations: [...sound.operations.slice(0, 2), write('b', 't2', { expected: 't0' })] })).toEqual([]);
  expect(rules({ ...sound, operations: [...sound.operations.slice(0, 2), write('b', 't2', { expected: 'older' })] })).toEqual(['expected version']);
});

describe('an address that two records claim', () => {
  const [first, second] = [values('t0', null, 'e1@x.org'), values('t5', null, 'e1@x.org')];
  const marked = values('t5', null, 'e1@x.org#2');
  const holder = state([first], { claims: [{ email: 'e1@x.org', by: ['b', 7] }], row: first });
  const loser = state([second], { key: '2', claims: [{ email: 'e1@x.org', by: ['a', 8] }], row: marked });
  const clash = entry([second], { key: '2', kind: 'UNIQUE', holder: { key: '1', values: first } });
  const both = (states: readonly RecordState[], log: readonly LogEntry[]): Evidence => ({
    ...sound,
    operations: [write('b', 't0', { kind: 'create', email: 'e1@x.org' }), write('a', 't5', { kind: 'create', key: '2', email: 'e1@x.org' })],
    captures: [
      { replica: 'b', key: '1', before: null, after: first },
      { replica: 'a', key: '2', before: null, after: second },
    ],
    states: new Map([['a', states], ['b', states]]),
    logs: new Map([['a', log], ['b', log]]),
    hearings: [],
  });
  const unique = (states: readonly RecordState[], log: readonly LogEntry[]): string[] => check(both(states, log)).map(({ rule, message }) => `${rule}: ${message}`);

  it('is held by the one that claimed it first; the other waits as a conflict that names both', () => {
    expect(unique([holder, loser], [clash])).toEqual([]);
  });

  it('is missed where the other shows it, or neither does', () => {
    expect(unique([{ ...holder, row: values('t0', null, 'e1@x.org#1') }, { ...loser, row: second }], [clash])).toEqual(
      ['a', 'b'].flatMap((name) => [
        `unique value: on ${name} record 1 claimed e1@x.org first and shows e1@x.org#1`,
        `unique value: on ${name} record 2 shows e1@x.org, which record 1 claimed before it`,
      ]),
    );
  });

  it('is missed where nobody waits for it, or the conflict names another', () => {
    expect(unique([holder, loser], [])).toHaveLength(2);
    expect(unique([holder, loser], [{ ...clash, holder: { key: '3', values: first } }])[0]).toContain('its conflict names');
    expect(unique([holder, loser], [{ ...clash, sides: [marked] }])[0]).toContain('its conflict names');
  });

  it('is shown by the one that waited once the other gives it up, and nothing is pending any more', () => {
    const gone = values('t0', null, 'e2@x.org');
    const left = state([gone], { claims: [{ email: 'e2@x.org', by: ['b', 9] }], row: gone });
    const given = { ...both([left, { ...loser, row: second }], [{ ...clash, pending: false }]), operations: [...both([], []).operations, write('b', 't0', { email: 'e2@x.org' })] };
    expect(check(given)).toEqual([]);
    expect(check({ ...given, states: new Map([['a', [left, loser]]]), logs: new Map([['a', []]]) }).map(({ message }) => message)).toEqual(['on a record 2 claimed e1@x.org first and shows e1@x.org#2']);
    expect(check({ ...given, logs: new Map([['a', [clash]]]) }).map(({ message }) => message)).toContain('on a record 2 has e1@x.org and waits for it all the same');
  });

  it('is no claim of a record that shows what nobody gave it', () => {
    expect(unique([holder, { ...loser, row: values('t5', null, 'e1@x.org#9') }], [clash])[0]).toContain('which none of its sides has');
  });
});

it('tells what is set aside and not told of, and what still waits', () => {
  const evidence = settled({ captures: sound.captures.slice(0, 2), operations: sound.operations.slice(0, 2) }, values('t0 t1'));
  expect(rules({ ...evidence, asides: new Map([['a', { records: [{ key: '1', sides: [values('t0')] }], listed: [] }]]) })).toEqual(['set aside']);
  expect(rules({ ...evidence, states: everywhere(state([values('t0 t1')], { waiting: true })) })).toEqual(['set aside', 'set aside']);
});

it('expects a replica that began anew to have forgotten conflicts that it had told of, and to have told of all others', () => {
  const hearings = [{ replica: 'a', who: 'somebody', from: 0, ids: [7, 1] }];
  expect(rules({ ...sound, hearings })).toEqual(['subscription']);
  expect(rules({ ...sound, hearings, reseeded: new Set(['a']) })).toEqual([]);
  expect(rules({ ...sound, hearings: [{ ...hearings[0]!, ids: [7] }], reseeded: new Set(['a']) })).toEqual(['subscription']);
});
