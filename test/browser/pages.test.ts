import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { chromiumPath, openPage, type OpenPage } from '../support/browser.ts';
import { startEdges, until, type Edges } from '../support/edges.ts';
import { conflictOf } from '../support/fake-services.ts';

/** A folder for pictures of the pages, to look at. */
const pictures = process.env['SCREENSHOTS'];

describe.skipIf(!chromiumPath)('in a browser', () => {
  let edges: Edges;
  let open: OpenPage;
  beforeEach(async () => {
    edges = await startEdges();
    open = await openPage(edges.url);
    await edges.rest('POST', '/api/v1/users', { nom: 'Ada', email: 'ada@x.org' });
  });
  afterEach(async () => {
    await open.close();
    await edges.close();
  });
  const picture = async (name: string): Promise<void> => {
    if (pictures) await open.page.screenshot({ path: `${pictures}/${name}.png` });
  };

  it('/graphql runs queries', async () => {
    const { page, foreign, errors } = open;
    await page.goto(`${edges.url}/graphql`);
    await page.getByRole('button', { name: /execute query/i }).click();
    await page.getByText('ada@x.org').waitFor();
    await picture('graphiql');
    expect({ foreign, errors }).toEqual({ foreign: [], errors: [] });
  });

  it('/graphql follows subscriptions over WebSocket', async () => {
    const { page, foreign } = open;
    await page.goto(`${edges.url}/graphql?query=${encodeURIComponent('subscription { conflictDetected { id model } }')}`);
    await page.getByRole('button', { name: /execute query/i }).click();
    await until(() => edges.subscribers() === 1, 10_000);
    edges.detect(conflictOf('4711'));
    await page.getByText('4711').waitFor();
    await picture('graphiql-subscription');
    expect(foreign).toEqual([]);
    await page.goto('about:blank');
    await until(() => edges.subscribers() === 0);
  });

  it('/docs shows every call, and makes one', async () => {
    const { page, foreign, errors } = open;
    await page.goto(`${edges.url}/docs`);
    await page.getByText('/api/v1/resolve-conflicts').waitFor();
    await picture('docs');
    await page.locator('#operations-Users-get_api_v1_users').click();
    await page.getByRole('button', { name: 'Try it out' }).click();
    await page.getByRole('button', { name: 'Execute' }).click();
    await page.locator('.live-responses-table').waitFor();
    await picture('docs-answer');
    expect(await page.locator('.live-responses-table').textContent()).toContain('ada@x.org');
    expect({ foreign, errors }).toEqual({ foreign: [], errors: [] });
  });
});
