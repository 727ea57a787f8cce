/**
 * Makes all the code that is generated, after `npm install` and before type checks; needs no database and no network.
 *
 *     prisma/schema.prisma → src/generated/prisma, src/generated/pothos.ts
 *     codegen.ts           → src/generated/graphql
 *     src                  → build (bin/build.js)
 *
 * The second is for the demo and the tests, and is left out where only what a replica needs is installed; the third, where the sources are not there yet, as in a Docker image whose packages are installed first.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { buildSources } from '../bin/build.js';

const root = fileURLToPath(new URL('..', import.meta.url));
const { resolve } = createRequire(import.meta.url);

await Promise.all([generateClient(), generateTypes()]);
if (process.exitCode === undefined && existsSync(join(root, 'src/cli.ts'))) await buildSources();

/**
 * Generating needs no schema engine, but the Prisma command downloads one first unless it is told of another program. Any
 * existing program does, so that installing works without a network: it is never run here.
 */
async function generateClient(): Promise<void> {
  const cli = resolve('prisma/build/index.js');
  const child = spawn(process.execPath, [cli, 'generate', '--no-hints', '--schema', join(root, 'prisma/schema.prisma')], {
    cwd: root,
    stdio: ['ignore', 'pipe', 'pipe'],
    env: {
      PRISMA_SCHEMA_ENGINE_BINARY: process.execPath,
      ...process.env,
      // Prisma finds the generators of other packages on PATH.
      PATH: `${join(root, 'node_modules/.bin')}${delimiter}${process.env['PATH'] ?? ''}`,
    },
  });
  const said: Buffer[] = [];
  for (const stream of [child.stdout, child.stderr]) stream.on('data', (text: Buffer) => said.push(text));
  const [code] = (await once(child, 'close')) as [number | null];
  if (code === 0) return;
  process.stderr.write(Buffer.concat(said));
  process.stderr.write('The Prisma client could not be made from prisma/schema.prisma. Its message is above; npm run generate tries again.\n');
  process.exitCode = 1;
}

async function generateTypes(): Promise<void> {
  if (!isInstalled('@graphql-codegen/core')) {
    process.stderr.write('The typed GraphQL operations are left out, and npm run demo with them: they need the development packages.\n');
    return;
  }
  const { generateOperations } = await import('../codegen.ts');
  try {
    await generateOperations();
  } catch (error) {
    const causes = error instanceof AggregateError ? error.errors : [error];
    for (const cause of causes) process.stderr.write(`The typed operations could not be made from src/operations: ${cause instanceof Error ? cause.message : String(cause)}\n`);
    process.exitCode = 1;
  }
}

function isInstalled(name: string): boolean {
  try {
    resolve(name);
    return true;
  } catch {
    return false;
  }
}
