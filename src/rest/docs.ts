/** Interactive documentation. Its assets come from here: the page loads nothing from elsewhere. */
import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

import type { Route } from './route.ts';

const ASSETS: Readonly<Record<string, string>> = {
  'swagger-ui.css': 'text/css; charset=utf-8',
  'swagger-ui-bundle.js': 'text/javascript; charset=utf-8',
  'favicon-32x32.png': 'image/png',
};

/** Addresses are relative, so that the page works behind a proxy that adds a path. */
const PAGE = `<!doctype html>
<html lang="en">
  <head>
    <meta charset="utf-8">
    <meta name="viewport" content="width=device-width, initial-scale=1">
    <title>Replique REST</title>
    <link rel="icon" href="docs/favicon-32x32.png">
    <link rel="stylesheet" href="docs/swagger-ui.css">
  </head>
  <body>
    <div id="docs"></div>
    <script src="docs/swagger-ui-bundle.js"></script>
    <script src="docs/start.js"></script>
  </body>
</html>
`;

const START = `SwaggerUIBundle({
  url: 'openapi.json',
  dom_id: '#docs',
  deepLinking: true,
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});
`;

/** Swagger UI sets styles on elements, and draws its icons from data addresses. */
const POLICY = "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'";

/** @returns `/docs`, what it loads, and the document it shows. */
export function docRoutes(openapi: () => object): Route[] {
  const folder = dirname(createRequire(import.meta.url).resolve('swagger-ui-dist/package.json'));
  return [
    page('/docs', ({ html }) => html(PAGE, 200, { 'content-security-policy': POLICY })),
    page('/docs/start.js', ({ body }) => body(START, 200, { 'content-type': 'text/javascript; charset=utf-8' })),
    page('/docs/{asset}', async ({ req, body, notFound }) => {
      const name = req.param('asset') ?? '';
      const type = Object.hasOwn(ASSETS, name) ? ASSETS[name] : undefined;
      if (!type) return notFound();
      const content = await readFile(join(folder, name));
      return body(new Uint8Array(content), 200, { 'content-type': type, 'cache-control': 'max-age=3600' });
    }),
    page('/openapi.json', () => Response.json(openapi())),
  ];
}

function page(path: string, handle: Route['handle']): Route {
  return { method: 'get', path, hide: true, responses: { 200: { description: 'Documentation.' } }, handle };
}
