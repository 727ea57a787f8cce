import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';

import { SyncToDocument } from '../../src/generated/graphql/graphql.ts';
import type { Introduction } from '../../src/replication/protocol.ts';
import { createIntroductions, type Introductions } from '../../src/services/introductions.ts';
import { lockKnowledge } from '../../src/storage/knowledge.ts';
import { readRoster, type Replica } from '../../src/storage/replica.ts';
import { startFleet, type Fleet, type Member } from '../support/fleet.ts';
import { createParties, text, USER, type Parties, type Setup } from './parties.ts';

interface Party {
  readonly replica: Replica;
  readonly introductions: Introductions;
  readonly warnings: string[];
  readonly skews: number[];
}
let parties: Parties;
beforeAll(() => {
  parties = createParties();
});
afterEach(() => parties.giveBack());
afterAll(() => parties.close());

async function party(name: string, setup: Setup): Promise<Party> {
  const replica = await parties.open(name, setup);
  const warnings: string[] = [];
  const skews: number[] = [];
  const introductions = createIntroductions(replica, { skew: (_peer, seconds) => skews.push(seconds), warn: (message) => warnings.push(message) });
  return { replica, introductions, warnings, skews };
}

const reason = (attempt: Promise<unknown>): Promise<string | null> => attempt.then(() => null, (error: Error) => error.message);

/** What each says where `caller` calls `called`: first the one called, then, as if that one had let it pass, the caller. */
async function meet(caller: Party, called: Party, expected = called.replica.name, forge: (own: Introduction) => Introduction = (own) => own) {
  return {
    told: await reason(called.introductions.accept(null, forge(await caller.introductions.own()), 0)),
    found: await reason(caller.introductions.accept(expected, await called.introductions.own(), 0)),
  };
}
const rosterOf = async ({ replica }: Party) => (await readRoster(replica.db)).map(({ name }) => name);

describe('two replicas that fit', () => {
  it('get to know each other and all those each knows', async () => {
    const [a, b, c] = [await party('a', { slot: 1 }), await party('b', { slot: 2 }), await party('c', { slot: 3 })];
    expect(await meet(a, b)).toEqual({ told: null, found: null });
    expect(await meet(c, b)).toEqual({ told: null, found: null });
    expect(await rosterOf(c)).toEqual(['a', 'b', 'c']);
    expect(await rosterOf(a)).toEqual(['a', 'b']);
    expect(await meet(a, b)).toEqual({ told: null, found: null });
    expect(await rosterOf(a)).toEqual(['a', 'b', 'c']);
    expect([...a.warnings, ...b.warnings, ...c.warnings]).toEqual([]);
  });
});

describe('two replicas that do not fit', () => {
  it.each<[string, readonly [string, Setup], readonly [string, Setup], RegExp]>([
    ['id stride', ['a', { slot: 1, stride: 10 }], ['b', { slot: 2, stride: 16 }], /^it uses id stride 16, this replica 10\. Give both the same ID_STRIDE$/],
    ['name', ['a', { slot: 1 }], ['a', { slot: 2 }], /named "a"\. Give one of them another REPLICA name and an empty database/],
    ['slot', ['a', { slot: 3 }], ['b', { slot: 3 }], /"a" and "b"|"b" and "a".* SLOT 3\. Give one of them another SLOT and an empty database/],
    ['fields', ['a', { slot: 1 }], ['b', { slot: 2, models: [{ ...USER, fields: [text('nom')] }] }], /^it lacks field User\.email, which must be written here\. Give User\.email a constant default here or let it be null, or upgrade that replica$/],
    ['nullability', ['a', { slot: 1, models: [{ ...USER, fields: [{ ...text('nom'), nullable: true }] }] }], ['b', { slot: 2, models: [{ ...USER, fields: [text('nom')] }] }], /^its field User\.nom may be null here, but not there\. Give User\.nom a constant default there/],
    ['models', ['a', { slot: 1 }], ['b', { slot: 2, models: [] }], /^it does not replicate model User\. Bring both/],
    ['models the other way', ['a', { slot: 1, models: [] }], ['b', { slot: 2 }], /^it replicates model User, which this replica does not\. Bring both/],
  ])('in their %s: the caller reads the same whoever noticed, and nobody learns anything', async (_what, one, other, message) => {
    const [a, b] = [await party(...one), await party(...other)];
    const { told, found } = await meet(a, b);
    expect(told).toMatch(message);
    expect(found).toMatch(message);
    expect([await rosterOf(a), await rosterOf(b)]).toEqual([[a.replica.name], [b.replica.name]]);
  });

  it('in the protocol', async () => {
    const [a, b] = [await party('a', { slot: 1 }), await party('b', { slot: 2 })];
    const { told } = await meet(a, b, 'b', (own) => ({ ...own, protocol: 2 }));
    expect(told).toBe('it speaks protocol 1, this replica 2. Run the same version of Replique on both');
    const found = await reason(a.introductions.accept('b', { ...(await b.introductions.own()), protocol: 2 }, 0));
    expect(found).toBe('it speaks protocol 2, this replica 1. Run the same version of Replique on both');
  });

  it('in the name that PEERS gives', async () => {
    const [a, b] = [await party('a', { slot: 1 }), await party('b', { slot: 2 })];
    expect((await meet(a, b, 'c')).found).toBe('PEERS calls it "c", but its name is "b". Write b=… in PEERS');
  });

  it('since they are one', async () => {
    const a = await party('a', { slot: 1 });
    const { told, found } = await meet(a, a, 'b');
    for (const message of [told, found]) expect(message).toBe('it is this replica itself. Check PEERS, and give each replica a database of its own');
  });

  it('since one is not in its own roster', async () => {
    const [a, b] = [await party('a', { slot: 1 }), await party('b', { slot: 2 })];
    expect((await meet(a, b, 'b', (own) => ({ ...own, roster: [] }))).told).toContain('roster');
  });

  it.each<[string, Setup, string]>([
    ['slot', { slot: 1 }, 'SLOT 1'],
    ['name', { slot: 3 }, 'named "a"'],
  ])('in a %s at the ends of a chain, seen where the chain closes', async (what, setup, message) => {
    const [a, b, c] = [await party('a', { slot: 1 }), await party('b', { slot: 2 }), await party(what === 'name' ? 'a' : 'c', setup)];
    expect(await meet(a, b)).toEqual({ told: null, found: null });
    const { told, found } = await meet(c, b);
    expect(told).toContain(message);
    expect(found).toContain(message);
    expect(await rosterOf(b)).toEqual(['a', 'b']);
  });

  it('though only the rosters of their peers clash', async () => {
    const [a, b, c, d] = [await party('a', { slot: 1 }), await party('b', { slot: 2 }), await party('c', { slot: 3 }), await party('d', { slot: 1 })];
    await meet(a, b);
    await meet(c, d);
    expect((await meet(b, c)).told).toMatch(/"a" and "d"|"d" and "a"/);
  });
});

describe('what is only reported', () => {
  it('another policy, once until it changes', async () => {
    const [a, b] = [await party('a', { slot: 1 }), await party('b', { slot: 2, policy: 'latest' })];
    for (let i = 0; i < 3; i++) expect(await meet(a, b)).toEqual({ told: null, found: null });
    expect(a.warnings).toEqual([expect.stringContaining('peer "b" has CONFLICT_POLICY latest, this replica manual')]);
    expect(b.warnings).toEqual([expect.stringContaining('peer "a" has CONFLICT_POLICY manual, this replica latest')]);
    const theirs = await b.introductions.own();
    await a.introductions.accept('b', { ...theirs, policy: 'manual' }, 0);
    await a.introductions.accept('b', theirs, 0);
    expect(a.warnings).toHaveLength(2);
  });

  it('a unique constraint that one of them lacks, to each in its own words', async () => {
    const [a, b] = [await party('a', { slot: 1 }), await party('b', { slot: 2 })];
    await meet(a, b);
    expect([...a.warnings, ...b.warnings]).toEqual([]);
    const without = (own: Introduction): Introduction => ({ ...own, unique: { User: [] } });
    for (let i = 0; i < 2; i++) await a.introductions.accept('b', without(await b.introductions.own()), 0);
    expect(a.warnings).toEqual([
      'peer "b" shows other rows than this replica where values collide: it has no unique constraint on User (email), which this replica has: values that it gives twice are UNIQUE conflicts here. Once there are none, upgrade it.',
    ]);
    await b.introductions.accept(null, { ...(await a.introductions.own()), unique: { User: [['email'], ['nom', 'telephone']] } }, 0);
    expect(b.warnings).toEqual([
      'peer "a" shows other rows than this replica where values collide: it has a unique constraint on User (nom, telephone), which this replica lacks: values that are given twice here are UNIQUE conflicts there. Once there are none, upgrade this replica.',
    ]);
    // An older peer says nothing of them.
    const { unique: _unique, ...silent } = await b.introductions.own();
    expect(await reason(a.introductions.accept('b', silent, 0))).toBeNull();
  });

  it('a clock that is wrong: its skew always, a warning past five seconds', async () => {
    const [a, b] = [await party('a', { slot: 1 }), await party('b', { slot: 2 })];
    const own = await b.introductions.own();
    const skewed = async (seconds: number, delay = 0): Promise<number> => {
      await a.introductions.accept('b', { ...own, clock: (await b.introductions.own()).clock + seconds * 1e6 }, delay);
      return a.skews.at(-1) ?? Number.NaN;
    };
    expect(Math.abs(await skewed(0))).toBeLessThan(2);
    expect(a.warnings).toEqual([]);
    expect(await skewed(3_600)).toBeCloseTo(3_600, -1);
    expect(await skewed(3_700)).toBeCloseTo(3_700, -1);
    expect(a.warnings).toEqual([expect.stringMatching(/clock of peer "b" is 3(599|600)\.\d s ahead of this one's/)]);
    await skewed(0);
    // What was under way for a minute was a minute younger when it was sent.
    expect(await skewed(-7_260, 60_000)).toBeCloseTo(-7_200, -1);
    expect(a.warnings.slice(1)).toEqual([expect.stringContaining('behind')]);
  });
});

describe('the skew of a clock', () => {
  const HOUR_LATER = `CREATE OR REPLACE FUNCTION replication.clock() RETURNS bigint VOLATILE LANGUAGE sql AS 'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + 3600000000'`;

  /** Does `work` where all that is known is locked meanwhile, until an hour has passed. */
  async function waitingAnHour<T>({ replica: { db } }: Party, work: () => Promise<T>): Promise<T> {
    const { done } = await db.transaction(async (tx) => {
      await lockKnowledge(tx);
      const begun = work();
      await tx.query(`DO $$ BEGIN FOR n IN 1..2000 LOOP
        IF EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock') THEN RETURN; END IF;
        PERFORM pg_sleep(0.005), pg_stat_clear_snapshot();
      END LOOP; RAISE 'nobody waits for a lock'; END $$`);
      await tx.query(HOUR_LATER);
      return { done: begun };
    });
    return done;
  }

  it('does not count how long it takes to hear a peer', async () => {
    const [a, b] = [await party('a', { slot: 1 }), await party('b', { slot: 2 })];
    await meet(a, b);
    const own = await b.introductions.own();
    await waitingAnHour(a, () => a.introductions.accept('b', own, 0));
    expect(Math.abs(a.skews.at(-1) ?? Number.NaN)).toBeLessThan(60);
  });

  it('nor how long it takes to tell it', async () => {
    const [a, b] = [await party('a', { slot: 1 }), await party('b', { slot: 2 })];
    await meet(a, b);
    const told = await waitingAnHour(b, () => b.introductions.own());
    await a.introductions.accept('b', { ...told, clock: told.clock - 3_600_000_000 }, 0);
    expect(Math.abs(a.skews.at(-1) ?? Number.NaN)).toBeLessThan(60);
  });
});

describe('at the API', () => {
  let fleet: Fleet | undefined;
  afterEach(() => fleet?.close());

  const refusal = async (caller: string, peer: string) => {
    const { status, body } = (await fleet?.of(caller).rest<{ code: string; detail: string }>('POST', `/api/v1/sync-to-${peer}`)) ?? {};
    return { status, code: body?.code, detail: body?.detail };
  };
  const refused = (detail: string): object => ({ status: 502, code: 'PEER_REJECTED', detail: expect.stringContaining(detail) as string });

  it.each<[string, Record<string, Member>, string, string]>([
    ['another stride', { a: {}, b: { stride: 16 } }, 'refused the handshake: it uses id stride 16, this replica 10. Give both the same ID_STRIDE', 'refused the handshake: it uses id stride 10, this replica 16. Give both'],
    ['a shared slot', { a: {}, b: { slot: 1 } }, 'both use SLOT 1', 'both use SLOT 1'],
  ])('%s is refused from either side with what to change', async (_what, members, fromA, fromB) => {
    fleet = await startFleet(members);
    await fleet.of('a').rest('POST', '/api/v1/users', { nom: 'A', email: 'a@x.org' });
    expect(await refusal('a', 'b')).toEqual(refused(fromA));
    expect(await refusal('b', 'a')).toEqual(refused(fromB));
    expect((await fleet.of('b').rest<unknown[]>('GET', '/api/v1/users')).body).toEqual([]);
  });

  it('itself, a misnamed peer, and a clash at the other end of a chain are refused', async () => {
    fleet = await startFleet({ a: { peers: { a: 'me', b: 'bob' } }, b: { peers: ['c'] }, c: { slot: 1, peers: { b: 'b', a: 'x' } } });
    expect(await refusal('a', 'me')).toEqual(refused('it is this replica itself'));
    expect(await refusal('a', 'bob')).toEqual(refused('PEERS calls it "bob", but its name is "b"'));
    // The misnamed peer knows a by now, and c must not come in beside it.
    expect(await refusal('b', 'c')).toEqual(refused('both use SLOT 1'));
    expect(await refusal('c', 'b')).toEqual(refused('both use SLOT 1'));
  });

  it('another policy only warns, and both replicas go on', async () => {
    fleet = await startFleet({ a: {}, b: { conflictPolicy: 'field-wise' } });
    const [a, b] = [fleet.of('a'), fleet.of('b')];
    await a.rest('POST', '/api/v1/users', { nom: 'A', email: 'a@x.org' });
    expect((await a.run(SyncToDocument, { peer: 'b' })).syncTo).toMatchObject({ sent: 1 });
    for (const replica of [a, b]) expect(replica.log.map(({ msg }) => msg)).toContainEqual(expect.stringContaining('CONFLICT_POLICY'));
    await Promise.all([a, b].map((replica) => replica.rest('PUT', '/api/v1/users/1', { telephone: replica.name })));
    // b settles it in its view at once, and its log holds it, resolved; a waits for a person.
    const { syncTo } = await a.run(SyncToDocument, { peer: 'b' });
    expect(syncTo).toMatchObject({ conflictsDetected: 1, conflicts: [{ recordId: '1', status: 'PENDING' }] });
    const onB = (await b.rest<{ status: string; resolution: string }[]>('GET', '/api/v1/conflicts')).body;
    expect(onB).toMatchObject([{ status: 'resolved', resolution: 'field-wise' }]);
    expect((await a.rest<unknown[]>('GET', '/api/v1/conflicts?status=pending')).body).toHaveLength(1);
    // A sync's result lists what it detected, resolved though it is.
    await a.rest('POST', '/api/v1/resolve-conflicts', { strategy: 'latest' });
    await Promise.all([a, b].map((replica) => replica.rest('PUT', '/api/v1/users/1', { nom: replica.name })));
    const fromB = (await b.run(SyncToDocument, { peer: 'a' })).syncTo;
    expect(fromB).toMatchObject({ conflictsDetected: 1, conflicts: [{ recordId: '1', status: 'RESOLVED', resolution: 'field-wise' }] });
  });
});
