import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { startEdges, type Edges } from '../support/edges.ts';

let edges: Edges;
beforeAll(async () => {
  edges = await startEdges();
});
afterAll(() => edges.close());

const text = async (path: string): Promise<string> => (await edges.rest('GET', path)).text();

describe('health', () => {
  it('lives and is ready', async () => {
    for (const path of ['/livez', '/readyz']) {
      const response = await edges.rest('GET', path);
      expect([response.status, await response.json()]).toEqual([200, { status: 'ok' }]);
    }
  });

  it('lives but is not ready without its database', async () => {
    const broken = await startEdges();
    broken.fail('ready', new Error('no database'));
    expect((await broken.rest('GET', '/livez')).status).toBe(200);
    const response = await broken.rest('GET', '/readyz');
    expect(response.status).toBe(503);
    expect(await response.json()).toMatchObject({ code: 'NOT_READY' });
    await broken.close();
  });

  it('shows its metrics', async () => {
    const response = await edges.rest('GET', '/metrics');
    expect(response.headers.get('content-type')).toContain('text/plain');
    expect(await response.text()).toContain('replication_syncs_total{peer="b",outcome="success"} 0');
  });
});

describe('documentation', () => {
  it('is served whole from here', async () => {
    const page = await edges.rest('GET', '/docs');
    expect(page.status).toBe(200);
    expect(page.headers.get('content-security-policy')).toContain("default-src 'self'");
    const html = await page.text();
    const loaded = [...html.matchAll(/(?:src|href)="([^"]+)"/g)].map((match) => match[1] ?? '');
    expect(loaded).toHaveLength(4);
    for (const path of loaded) {
      const asset = await fetch(new URL(path, `${edges.url}/docs`));
      expect([path, asset.status]).toEqual([path, 200]);
      expect((await asset.arrayBuffer()).byteLength).toBeGreaterThan(50);
    }
    expect(await text('/docs/start.js')).toContain('validatorUrl: null');
    expect((await edges.rest('GET', '/docs/package.json')).status).toBe(404);
    expect((await edges.rest('GET', '/docs/..%2fpackage.json')).status).toBe(404);
    expect((await edges.rest('GET', '/docs/constructor')).status).toBe(404);
  });

  it('describes every call in OpenAPI 3.1', async () => {
    const document = JSON.parse(await text('/openapi.json')) as { openapi: string; paths: Record<string, Record<string, unknown>> };
    expect(document.openapi).toBe('3.1.0');
    const calls = Object.entries(document.paths).flatMap(([path, methods]) => Object.keys(methods).map((method) => `${method} ${path}`));
    expect(calls.toSorted()).toEqual(
      [
        'post /api/v1/users',
        'get /api/v1/users',
        'get /api/v1/users/{id}',
        'put /api/v1/users/{id}',
        'delete /api/v1/users/{id}',
        'post /api/v1/sync-to-{peer}',
        'post /api/v1/resolve-conflicts',
        'get /api/v1/conflicts',
        'get /api/v1/conflicts/{id}',
        'post /api/v1/conflicts/{id}/resolve',
        'get /metrics',
        'get /livez',
        'get /readyz',
      ].toSorted(),
    );
  });
});

describe('what is not served', () => {
  it.each<[string, string, string]>([
    ['DELETE', '/api/v1/users', 'POST, GET, HEAD'],
    ['PATCH', '/api/v1/users/1', 'GET, HEAD, PUT, DELETE'],
    ['GET', '/api/v1/sync-to-b', 'POST'],
    ['GET', '/api/v1/resolve-conflicts', 'POST'],
    ['POST', '/livez', 'GET, HEAD'],
    ['POST', '/docs', 'GET, HEAD'],
    ['POST', '/openapi.json', 'GET, HEAD'],
  ])('%s %s is 405', async (method, path, allow) => {
    const response = await edges.rest(method, path);
    expect(response.status).toBe(405);
    expect(response.headers.get('allow')).toBe(allow);
    expect(await response.json()).toMatchObject({ code: 'METHOD_NOT_ALLOWED', status: 405 });
  });

  it.each(['/', '/nothing', '/api/v1', '/api/v1/users/1/2', '/api/v1/sync-to-b/c', '/graphql/', '//', '/api/v1/users/%E0%A4%A', '/%00'])('%s is 404 or 400', async (path) => {
    const response = await edges.rest('GET', path);
    expect([400, 404]).toContain(response.status);
    expect(response.headers.get('content-type')).toBe('application/problem+json');
  });

  it('answers HEAD without a body', async () => {
    const response = await edges.rest('HEAD', '/api/v1/users');
    expect([response.status, await response.text()]).toEqual([200, '']);
  });

  it('says nothing of a fault of ours, and logs it', async () => {
    const broken = await startEdges();
    broken.fail('list', new Error('hunter2'));
    const response = await broken.rest('GET', '/api/v1/users');
    expect(response.status).toBe(500);
    const body = await response.text();
    expect(body).toContain('INTERNAL_SERVER_ERROR');
    expect(body).not.toContain('hunter2');
    expect(broken.logged).toHaveLength(1);
    await broken.close();
  });
});
