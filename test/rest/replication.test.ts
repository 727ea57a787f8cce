import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { ServiceError } from '../../src/services/errors.ts';
import { startEdges, type Edges } from '../support/edges.ts';
import { conflictOf } from '../support/fake-services.ts';

let edges: Edges;
beforeAll(async () => {
  edges = await startEdges();
});
afterAll(() => edges.close());
beforeEach(() => edges.conflicts.clear());

const resolve = (body: unknown) => edges.rest('POST', '/api/v1/resolve-conflicts', body);

describe('POST /api/v1/sync-to-{peer}', () => {
  it('says what was sent', async () => {
    edges.detect(conflictOf('1'));
    const response = await edges.rest('POST', '/api/v1/sync-to-b');
    expect(response.status).toBe(200);
    expect(await response.json()).toEqual({ peer: 'b', sent: 3, applied: 2, skipped: 1, conflicts: 1, duration_ms: 2.5 });
  });

  it('needs no body, and does not mind one', async () => {
    expect((await edges.rest('POST', '/api/v1/sync-to-b', { any: 'thing' })).status).toBe(200);
  });

  it('knows its peers', async () => {
    expect(await (await edges.rest('POST', '/api/v1/sync-to-nobody')).json()).toMatchObject({ status: 404, code: 'UNKNOWN_PEER' });
    expect(await (await edges.rest('POST', '/api/v1/sync-to-')).json()).toMatchObject({ status: 404, code: 'NOT_FOUND' });
  });

  it('passes on why a peer could not be reached', async () => {
    const broken = await startEdges();
    broken.fail('sync', new ServiceError('PEER_REJECTED', 'it uses id stride 16, this replica 10'));
    expect(await (await broken.rest('POST', '/api/v1/sync-to-b')).json()).toEqual({
      type: 'about:blank',
      title: 'Bad Gateway',
      status: 502,
      detail: 'it uses id stride 16, this replica 10',
      code: 'PEER_REJECTED',
    });
    await broken.close();
  });
});

describe('POST /api/v1/resolve-conflicts', () => {
  it.each(['latest', 'field-wise'])('resolves by %s', async (strategy) => {
    edges.detect(conflictOf('1'));
    edges.detect(conflictOf('2'));
    expect(await (await resolve({ strategy })).json()).toEqual({
      strategy,
      resolved: 2,
      remaining: 0,
      undelivered: [{ peer: 'b', reason: 'it does not answer' }],
      duration_ms: 1.5,
    });
    expect(edges.conflicts.get('1')?.resolution).toBe(strategy);
  });

  it('resolves only those named', async () => {
    edges.detect(conflictOf('1'));
    edges.detect(conflictOf('2'));
    expect(await (await resolve({ strategy: 'latest', ids: [2] })).json()).toMatchObject({ resolved: 1 });
    expect(edges.conflicts.get('1')?.status).toBe('PENDING');
  });

  it.each<[unknown, number, string]>([
    [{ strategy: 'newest' }, 400, 'BAD_USER_INPUT'],
    [{}, 400, 'BAD_USER_INPUT'],
    [{ strategy: 'latest', ids: ['x'] }, 400, 'BAD_USER_INPUT'],
    [{ strategy: 'latest', ids: [0] }, 400, 'BAD_USER_INPUT'],
    [{ strategy: 'latest', force: true }, 400, 'BAD_USER_INPUT'],
    [{ strategy: 'latest', ids: [99] }, 404, 'NOT_FOUND'],
  ])('refuses %j', async (body, status, code) => {
    expect(await (await resolve(body)).json()).toMatchObject({ status, code });
  });
});
