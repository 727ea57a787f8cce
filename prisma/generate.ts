/**
 * Makes the Prisma client and the Pothos types from `schema.prisma`, after `npm install` and before type checks.
 *
 * Generating needs no schema engine, but the Prisma command downloads one first unless it is told of another program. Any
 * existing program does, so that installing works without a network: it is never run here.
 */
import { spawnSync } from 'node:child_process';
import { createRequire } from 'node:module';
import { delimiter, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('..', import.meta.url));
const cli = createRequire(import.meta.url).resolve('prisma/build/index.js');

const { status } = spawnSync(process.execPath, [cli, 'generate', '--no-hints', '--schema', join(root, 'prisma/schema.prisma')], {
  cwd: root,
  stdio: ['ignore', process.env['CI'] ? 'inherit' : 'ignore', 'inherit'],
  env: {
    PRISMA_SCHEMA_ENGINE_BINARY: process.execPath,
    ...process.env,
    // Prisma finds the generators of other packages on PATH.
    PATH: `${join(root, 'node_modules/.bin')}${delimiter}${process.env['PATH'] ?? ''}`,
  },
});
process.exitCode = status ?? 1;
