/** Two people are given one address on two replicas, from the API's side: who keeps it, what the other shows, and every way of settling it. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import {
  ConflictsDocument, CreateUserDocument, DeleteUserDocument, ResolveConflictDocument, ResolveConflictsDocument, SyncToDocument, UpdateUserDocument, UsersDocument,
} from '../../src/generated/graphql/graphql.ts';
import { startFleet, type Fleet, type FleetReplica } from '../support/fleet.ts';

let fleet: Fleet;
let a: FleetReplica;
let b: FleetReplica;
/** Ids: Ada had the address first, on b; Bob was given it on a. */
let ada: string;
let bob: string;

const EMAIL = 'one@x.org';
const create = async (on: FleetReplica, nom: string, email: string): Promise<string> => (await on.run(CreateUserDocument, { input: { nom, email } })).createUser.id;
const emails = async (on: FleetReplica): Promise<Record<string, string>> => Object.fromEntries((await on.run(UsersDocument, {})).users.map(({ nom, email }) => [nom, email]));
const pending = async (on: FleetReplica) => (await on.run(ConflictsDocument, { status: 'PENDING' })).conflicts;

async function exchange(): Promise<void> {
  for (let round = 0; round < 2; round++) {
    await a.run(SyncToDocument, { peer: 'b' });
    await b.run(SyncToDocument, { peer: 'a' });
  }
}

/** Both replicas show this, and nothing is left to settle. */
async function settled(shown: Readonly<Record<string, string>>): Promise<void> {
  await exchange();
  for (const on of [a, b]) expect([await emails(on), await pending(on)], on.name).toEqual([shown, []]);
}

beforeEach(async () => {
  fleet = await startFleet({ a: {}, b: {} });
  [a, b] = [fleet.of('a'), fleet.of('b')];
  ada = await create(b, 'Ada', EMAIL);
  bob = await create(a, 'Bob', EMAIL);
});
afterEach(() => fleet.close());

it('the first claim keeps it on every replica, whichever is heard of first; the other is marked, and both are named', async () => {
  await exchange();
  for (const on of [a, b]) {
    expect(await emails(on)).toEqual({ Ada: EMAIL, Bob: `${EMAIL}#${bob}` });
    const [conflict, ...others] = await pending(on);
    expect(others).toEqual([]);
    expect(conflict).toMatchObject({ kind: 'UNIQUE', recordId: bob, fields: ['email'] });
    expect(conflict?.versions.map(({ recordId, values }) => [recordId, (values as { email: string }).email]).toSorted()).toEqual([[ada, EMAIL], [bob, EMAIL]].toSorted());
  }
  // Here it is taken, as it would be without any replica.
  await expect(create(a, 'Cid', EMAIL)).rejects.toThrow();
});

describe('it is settled', () => {
  beforeEach(exchange);

  it('by another address for the one who waits', async () => {
    await b.run(UpdateUserDocument, { id: bob, input: { email: 'bob@x.org' } });
    await settled({ Ada: EMAIL, Bob: 'bob@x.org' });
  });

  it('by another address for the one who has it: the value that waited is shown again', async () => {
    await a.run(UpdateUserDocument, { id: ada, input: { email: 'ada@x.org' } });
    await settled({ Ada: 'ada@x.org', Bob: EMAIL });
  });

  it('by the deletion of the one who has it', async () => {
    await a.run(DeleteUserDocument, { id: ada });
    await settled({ Bob: EMAIL });
  });

  it('by either strategy, which leaves it to its holder', async () => {
    const { resolveConflicts } = await b.run(ResolveConflictsDocument, { strategy: 'LATEST' });
    expect([resolveConflicts.resolved, resolveConflicts.remaining]).toEqual([1, 0]);
    const { Bob } = await emails(b);
    await settled({ Ada: EMAIL, Bob: Bob as string });
  });

  it('by choosing a side, which takes it', async () => {
    const [conflict] = await pending(a);
    const side = conflict?.versions.find(({ recordId }) => recordId === bob)?.replica ?? '';
    await a.run(ResolveConflictDocument, { id: conflict?.id ?? '', chosenVersion: side });
    await exchange();
    const { Ada, Bob } = await emails(b);
    expect([Bob, Ada === EMAIL]).toEqual([EMAIL, false]);
    await settled({ Ada: Ada as string, Bob: EMAIL });
  });

  it('by values for the one who waits', async () => {
    const [conflict] = await pending(a);
    await a.run(ResolveConflictDocument, { id: conflict?.id ?? '', values: { email: 'bob@x.org' } });
    await settled({ Ada: EMAIL, Bob: 'bob@x.org' });
  });
});
