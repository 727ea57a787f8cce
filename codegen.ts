/**
 * Types for the operations that the demo, tests and tools run, from the published schema. Needs no server and no network.
 *
 *     schema/schema.graphql, src/operations/*.graphql → src/generated/graphql
 *
 * GraphQL Codegen is used without its command, which brings loaders for schemas from elsewhere: half of all packages, for none of this.
 */
import { mkdir, readdir, readFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { preset } from '@graphql-codegen/client-preset';
import { codegen } from '@graphql-codegen/core';
import type { Types } from '@graphql-codegen/plugin-helpers';
import { buildASTSchema, parse, Source } from 'graphql';

const root = fileURLToPath(new URL('.', import.meta.url));
const imports = { importExtension: '.ts', emitLegacyCommonJSImports: false } as const;

const config: Types.PluginConfig = {
  ...imports,
  documentMode: 'string',
  enumsAsTypes: true,
  useTypeImports: true,
  scalars: {
    ID: { input: 'string', output: 'string' },
    DateTime: 'string',
    JSON: 'unknown',
    VersionVector: 'Record<string, string>',
  },
};

/** @throws Error that names each operation which does not fit the schema. */
export async function generateOperations(): Promise<void> {
  const schema = parse(await readFile(join(root, 'schema/schema.graphql'), 'utf8'));
  const files = await preset.buildGeneratesSection({
    baseOutputDir: 'src/generated/graphql/',
    presetConfig: { fragmentMasking: false },
    schema,
    schemaAst: buildASTSchema(schema),
    documents: await readOperations('src/operations'),
    config,
    plugins: [],
    pluginMap: {},
  });
  for (const file of files) {
    const path = join(root, file.filename);
    await mkdir(dirname(path), { recursive: true });
    await writeFile(path, await codegen({ ...file, ...imports }));
  }
}

async function readOperations(folder: string): Promise<Types.DocumentFile[]> {
  const names = (await readdir(join(root, folder))).filter((name) => name.endsWith('.graphql')).toSorted();
  return Promise.all(
    names.map(async (name) => {
      const location = `${folder}/${name}`;
      const rawSDL = await readFile(join(root, location), 'utf8');
      return { location, rawSDL, document: parse(new Source(rawSDL, location)) };
    }),
  );
}
