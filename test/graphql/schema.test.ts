import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { conflictOf, NOW } from '../support/fake-services.ts';
import { startEdges, type Edges } from '../support/edges.ts';

let edges: Edges;
beforeAll(async () => {
  edges = await startEdges();
});
afterAll(() => edges.close());
beforeEach(() => {
  edges.users.clear();
  edges.conflicts.clear();
  edges.batches.length = 0;
});

const create = async (nom: string): Promise<string> => {
  const { data } = await edges.graphql('mutation($input: CreateUserInput!) { createUser(input: $input) { id } }', {
    input: { nom, email: `${nom}@x.org` },
  });
  return (data as unknown as { createUser: { id: string } }).createUser.id;
};

const errorsOf = async (query: string, variables?: object) => (await edges.graphql(query, variables)).errors;
const code = async (query: string, variables?: object) => (await errorsOf(query, variables))?.[0]?.extensions.code;

/** Documents of as many aliases, levels of depth, and tokens. */
const aliases = (count: number) => `{ ${Array.from({ length: count }, (_, n) => `x${n}: replica { name }`).join(' ')} }`;
// Nothing of the schema itself is that deep, but types of types are.
const types = (levels: number) => `${'ofType { '.repeat(levels)}name${' }'.repeat(levels)}`;
const deep = (levels: number) => `{ __type(name: "User") { fields { type { ${types(levels - 4)} } } } }`;
const viaFragment = (levels: number) => `{ __type(name: "User") { fields { type { ...T } } } } fragment T on __Type { ${types(levels - 4)} }`;
// 16 tokens and the ids; they are of no conflict.
const long = (tokens: number) => `mutation { resolveConflicts(strategy: LATEST, ids: [${'9 '.repeat(tokens - 16)}]) { resolved } }`;

describe('users', () => {
  it('creates, reads, changes and deletes one', async () => {
    const id = await create('ada');
    expect(await edges.graphql('query($id: ID!) { user(id: $id) { id nom email telephone createdAt updatedAt version conflict { id } } }', { id })).toEqual({
      data: {
        user: {
          id,
          nom: 'ada',
          email: 'ada@x.org',
          telephone: null,
          createdAt: '2026-01-02T03:04:05.678Z',
          updatedAt: NOW,
          version: { a: id },
          conflict: null,
        },
      },
    });
    expect(
      await edges.graphql('mutation($id: ID!, $v: VersionVector) { updateUser(id: $id, input: {telephone: "1"}, expectedVersion: $v) { telephone nom } }', {
        id,
        v: { a: id },
      }),
    ).toEqual({ data: { updateUser: { telephone: '1', nom: 'ada' } } });
    expect(await edges.graphql('mutation($id: ID!) { deleteUser(id: $id) { id nom telephone } }', { id })).toEqual({
      data: { deleteUser: { id, nom: 'ada', telephone: '1' } },
    });
    expect(await edges.graphql('query($id: ID!) { user(id: $id) { id } }', { id })).toEqual({ data: { user: null } });
  });

  it('pages in order of id', async () => {
    for (const nom of ['a', 'b', 'c']) await create(nom);
    const first = await edges.graphql('{ users(first: 2) { id nom } }');
    const users = (first.data as unknown as { users: { id: string; nom: string }[] }).users;
    expect(users.map(({ nom }) => nom)).toEqual(['a', 'b']);
    expect(await edges.graphql('query($after: ID) { users(after: $after) { nom } }', { after: users[1]?.id })).toEqual({
      data: { users: [{ nom: 'c' }] },
    });
  });

  it('asks for all versions of a page at once', async () => {
    for (const nom of ['a', 'b', 'c']) await create(nom);
    edges.batches.length = 0;
    await edges.graphql('{ users { version updatedAt conflict { id } } }');
    expect(edges.batches.map((keys) => keys.length)).toEqual([3, 3]);
  });
});

describe('conflicts', () => {
  it('shows both sides', async () => {
    edges.detect(conflictOf('7'));
    const fields = 'id model recordId kind status fields detectedAt resolvedAt resolution resolvedBy resolvedValues versions { recordId replica values deleted changedFields updatedAt version }';
    const { data } = await edges.graphql(`{ conflict(id: 7) { ${fields} } conflicts(status: PENDING) { id } none: conflict(id: 8) { id } }`);
    expect(data).toMatchObject({ conflict: conflictOf('7'), conflicts: [{ id: '7' }], none: null });
  });

  it('resolves by strategy and by hand', async () => {
    edges.detect(conflictOf('1'));
    edges.detect(conflictOf('2'));
    expect(
      await edges.graphql('mutation { resolveConflicts(strategy: LATEST, ids: [1]) { resolved remaining durationMs conflicts(first: 1) { id resolution } undelivered { peer reason } } }'),
    ).toEqual({
      data: {
        resolveConflicts: {
          resolved: 1,
          remaining: 0,
          durationMs: 1.5,
          conflicts: [{ id: '1', resolution: 'latest' }],
          undelivered: [{ peer: 'b', reason: 'it does not answer' }],
        },
      },
    });
    expect(await edges.graphql('mutation($v: JSON) { resolveConflict(id: 2, values: $v) { resolvedValues } }', { v: { telephone: null } })).toMatchObject({
      data: { resolveConflict: { resolvedValues: { nom: 'Ada', telephone: null } } },
    });
    const again = await edges.graphql('mutation { resolveConflict(id: 2, chosenVersion: "a") { id } }');
    expect(again.errors?.[0]?.extensions.code).toBe('ALREADY_RESOLVED');
  });

  it('takes JSON in literals, with variables in it', async () => {
    edges.detect(conflictOf('1'));
    const { data } = await edges.graphql(
      'mutation($t: String) { resolveConflict(id: 1, values: {telephone: $t, nom: "N", list: [1, 2.5, true, null]}) { resolvedValues } }',
      { t: '9' },
    );
    expect(data).toMatchObject({ resolveConflict: { resolvedValues: { telephone: '9', nom: 'N', list: [1, 2.5, true, null] } } });
  });
});

describe('the replica', () => {
  it('synchronises', async () => {
    edges.detect(conflictOf('1'));
    expect(await edges.graphql('mutation { syncTo(peer: "b") { peer sent applied skipped conflictsDetected conflicts { id } durationMs } }')).toEqual({
      data: { syncTo: { peer: 'b', sent: 3, applied: 2, skipped: 1, conflictsDetected: 1, conflicts: [{ id: '1' }], durationMs: 2.5 } },
    });
  });

  it('shows its peers and what waits', async () => {
    const { data } = await edges.graphql(
      '{ replica { name records pendingConflicts waiting(first: 5) { model recordId reason values } peers { name url state lastSyncAt pendingChanges lagSeconds consistency } } }',
    );
    expect(data).toEqual({
      replica: {
        name: 'a',
        records: 0,
        pendingConflicts: 0,
        waiting: [{ model: 'User', recordId: '9', reason: 'the email is taken', values: { nom: 'X' } }],
        peers: [
          { name: 'b', url: 'http://127.0.0.1:8002', state: 'CONNECTED', lastSyncAt: NOW, pendingChanges: 4, lagSeconds: 1.5, consistency: 0.5 },
        ],
      },
    });
  });
});

describe('errors', () => {
  it.each([
    ['{ users(first: 0) { id } }', 'BAD_USER_INPUT'],
    ['{ users(first: 1001) { id } }', 'BAD_USER_INPUT'],
    ['{ users(after: "x") { id } }', 'BAD_USER_INPUT'],
    ['{ user(id: "x") { id } }', 'BAD_USER_INPUT'],
    ['{ user(id: 0) { id } }', 'BAD_USER_INPUT'],
    ['{ conflicts(first: 0) { id } }', 'BAD_USER_INPUT'],
    ['{ conflict(id: "x") { id } }', 'BAD_USER_INPUT'],
    ['{ replica { waiting(first: 0) { model } } }', 'BAD_USER_INPUT'],
    ['mutation { syncTo(peer: "b") { conflicts(first: 1001) { id } } }', 'BAD_USER_INPUT'],
    ['mutation { syncTo(peer: "x") { peer } }', 'UNKNOWN_PEER'],
    ['mutation { deleteUser(id: 99) { id } }', 'NOT_FOUND'],
    ['mutation { resolveConflicts(strategy: LATEST, ids: [99]) { resolved } }', 'NOT_FOUND'],
    ['mutation { resolveConflicts(strategy: NEWEST) { resolved } }', 'GRAPHQL_VALIDATION_FAILED'],
    ['{ nothing }', 'GRAPHQL_VALIDATION_FAILED'],
    ['{ user(id: 1) { id }', 'GRAPHQL_PARSE_FAILED'],
    ['query A { __typename } query B { __typename }', 'BAD_USER_INPUT'],
    ['mutation { updateUser(id: 1, input: {}, expectedVersion: {a: 1}) { id } }', 'BAD_USER_INPUT'],
  ])('%s: %s', async (query, expected) => {
    expect(await code(query)).toBe(expected);
  });

  it('gives a code for variables that do not fit', async () => {
    expect(await code('query($id: ID!) { user(id: $id) { id } }', {})).toBe('BAD_USER_INPUT');
    expect(await code('query($id: ID! = 1) { user(id: $id) { id } }', { id: null })).toBe('BAD_USER_INPUT');
    expect(await code('query($id: ID = 1) { user(id: $id) { id } }', { id: null })).toBe('BAD_USER_INPUT');
    expect(await code('mutation($s: ResolutionStrategy!) { resolveConflicts(strategy: $s) { resolved } }', { s: 'NEWEST' })).toBe('BAD_USER_INPUT');
    expect(await code('mutation($v: VersionVector) { updateUser(id: 1, input: {nom: "x"}, expectedVersion: $v) { id } }', { v: { a: 1 } })).toBe(
      'BAD_USER_INPUT',
    );
  });

  it('lists each field of the input and why', async () => {
    const { errors } = await edges.graphql('mutation { createUser(input: {nom: " ", email: "x"}) { id } }');
    expect(errors?.[0]?.extensions).toEqual({
      code: 'BAD_USER_INPUT',
      errors: [
        { field: 'nom', message: 'must not be blank' },
        { field: 'email', message: 'must be an email address' },
      ],
    });
    expect(errors?.[0]?.path).toEqual(['createUser']);
  });

  it('says nothing of a fault of ours, and logs it', async () => {
    const broken = await startEdges();
    broken.fail('user', new Error('password of the database is hunter2'));
    const answer = await broken.graphql('{ users { id } }');
    expect(answer.errors?.[0]?.extensions).toEqual({ code: 'INTERNAL_SERVER_ERROR' });
    expect(JSON.stringify(answer)).not.toContain('hunter2');
    expect(broken.logged).toHaveLength(1);
    await broken.close();
  });
});

describe('limits', () => {
  it('takes 100 aliases and refuses 101', async () => {
    expect(await errorsOf(aliases(100))).toBeUndefined();
    expect((await errorsOf(aliases(101)))?.[0]).toMatchObject({ extensions: { code: 'GRAPHQL_VALIDATION_FAILED' } });
  });

  it('takes a document 15 deep and refuses one of 16, also through fragments', async () => {
    expect(await errorsOf(deep(15))).toBeUndefined();
    expect((await errorsOf(deep(16)))?.[0]?.message).toContain('depth limit of 15');
    expect(await errorsOf(viaFragment(15))).toBeUndefined();
    expect((await errorsOf(viaFragment(16)))?.[0]?.extensions.code).toBe('GRAPHQL_VALIDATION_FAILED');
  });

  it('takes 5000 tokens and refuses 5001', async () => {
    expect((await errorsOf(long(5000)))?.[0]?.extensions.code).toBe('NOT_FOUND');
    expect((await errorsOf(long(5001)))?.[0]).toMatchObject({
      message: expect.stringContaining('Token limit of 5000'),
      extensions: { code: 'GRAPHQL_PARSE_FAILED' },
    });
  });

  it('answers an introspection of the whole schema', async () => {
    const { getIntrospectionQuery } = await import('graphql');
    expect(await errorsOf(getIntrospectionQuery())).toBeUndefined();
  });
});
