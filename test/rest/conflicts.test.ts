import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { startEdges, type Edges } from '../support/edges.ts';
import { conflictOf, NOW } from '../support/fake-services.ts';

let edges: Edges;
beforeAll(async () => {
  edges = await startEdges();
});
afterAll(() => edges.close());
beforeEach(() => edges.conflicts.clear());

const CONFLICTS = '/api/v1/conflicts';
const get = async (path: string): Promise<unknown> => (await edges.rest('GET', path)).json();

describe('a conflict over REST', () => {
  it('has a member for each side', async () => {
    edges.detect(conflictOf('7'));
    const response = await edges.rest('GET', `${CONFLICTS}/7`);
    const side = { id: 1, nom: 'Ada', email: 'ada@x.org', created_at: NOW, updated_at: NOW };
    expect(await response.json()).toEqual({
      id: 7,
      timestamp: NOW,
      model: 'User',
      record_id: 1,
      kind: 'update_update',
      status: 'pending',
      fields: ['telephone'],
      version_a: { ...side, telephone: '1' },
      version_b: { ...side, telephone: '2' },
      resolution: null,
      resolved_at: null,
    });
  });

  it('shows a deletion as null, a second side of one replica, and keys that are no numbers', async () => {
    const [a, b] = conflictOf('1').versions;
    if (!a || !b) throw new Error('no sides');
    const key = '9007199254740993';
    edges.detect(
      conflictOf('1', {
        recordId: key,
        fields: ['createdAt'],
        kind: 'UPDATE_DELETE',
        versions: [a, { ...b, replica: 'a~2', values: null, deleted: true }],
      }),
    );
    expect(await get(`${CONFLICTS}/1`)).toMatchObject({
      record_id: key,
      kind: 'update_delete',
      fields: ['created_at'],
      version_a: { telephone: '1' },
      'version_a~2': null,
    });
  });

  it('is listed by status', async () => {
    edges.detect(conflictOf('1', { status: 'RESOLVED', resolution: 'latest', resolvedAt: NOW }));
    edges.detect(conflictOf('2'));
    expect(await get(CONFLICTS)).toMatchObject([{ id: 2 }, { id: 1, resolution: 'latest', resolved_at: NOW }]);
    expect(await get(`${CONFLICTS}?status=pending`)).toMatchObject([{ id: 2 }]);
    expect(await get(`${CONFLICTS}?status=resolved&first=1`)).toMatchObject([{ id: 1 }]);
    expect(await get(`${CONFLICTS}?status=open`)).toMatchObject({ status: 400, code: 'BAD_USER_INPUT' });
  });

  it.each([
    [{ chosen_version: 'node_a' }, { telephone: '1' }],
    [{ chosen_version: 'b' }, { telephone: '2' }],
    [{ values: { telephone: '3', created_at: 'then' } }, { telephone: '3', createdAt: 'then' }],
  ])('is resolved by %j', async (body, values) => {
    edges.detect(conflictOf('1'));
    const response = await edges.rest('POST', `${CONFLICTS}/1/resolve`, body);
    expect(response.status).toBe(200);
    expect(await response.json()).toMatchObject({ id: 1, status: 'resolved', resolution: 'manual', resolved_at: NOW });
    expect(edges.conflicts.get('1')?.resolvedValues).toMatchObject(values);
    expect(await (await edges.rest('POST', `${CONFLICTS}/1/resolve`, body)).json()).toMatchObject({ status: 409, code: 'ALREADY_RESOLVED' });
  });

  it('takes a replica that is itself called node_a at its word', async () => {
    const [a, b] = conflictOf('1').versions;
    if (!a || !b) throw new Error('no sides');
    edges.detect(conflictOf('1', { versions: [a, { ...b, replica: 'node_a' }] }));
    await edges.rest('POST', `${CONFLICTS}/1/resolve`, { chosen_version: 'node_a' });
    expect(edges.conflicts.get('1')?.resolvedValues).toMatchObject({ telephone: '2' });
  });

  it.each<[string, unknown, number, string]>([
    ['99', { chosen_version: 'a' }, 404, 'NOT_FOUND'],
    ['x', { chosen_version: 'a' }, 400, 'BAD_USER_INPUT'],
    ['1', {}, 400, 'BAD_USER_INPUT'],
    ['1', { chosen_version: 'z' }, 400, 'BAD_USER_INPUT'],
    ['1', { chosen_version: 'a', values: { nom: 'x' } }, 400, 'BAD_USER_INPUT'],
    ['1', { chosen: 'a' }, 400, 'BAD_USER_INPUT'],
    ['1', { values: [1] }, 400, 'BAD_USER_INPUT'],
  ])('%s is not resolved by %j', async (id, body, status, code) => {
    edges.detect(conflictOf('1'));
    const response = await edges.rest('POST', `${CONFLICTS}/${id}/resolve`, body);
    expect(await response.json()).toMatchObject({ status, code });
  });
});
