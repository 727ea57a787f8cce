/**
 * Prints the published contract from the code: `schema.graphql` and `openapi.json`. Needs no database and no network.
 *
 *     npm run schema
 */
import { writeFile } from 'node:fs/promises';
import { pathToFileURL } from 'node:url';

import { printSchema } from 'graphql';

import { schema } from '../src/graphql/schema.ts';
import { createRest } from '../src/rest/app.ts';
import type { Services } from '../src/services/services.ts';

/** @returns the text of each file of this folder that is printed. */
export function printAll(): Readonly<Record<'schema.graphql' | 'openapi.json', string>> {
  const rest = createRest({
    // Routes are described here, never called.
    services: {} as Services,
    metrics: { contentType: 'text/plain', scrape: async () => '' },
    logger: { error() {} },
  });
  return {
    'schema.graphql': `${printSchema(schema)}\n`,
    'openapi.json': `${JSON.stringify(rest.openapi(), null, 2)}\n`,
  };
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  for (const [name, text] of Object.entries(printAll())) await writeFile(new URL(name, import.meta.url), text);
}
