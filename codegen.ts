/** Types for the operations that the demo, tests and tools run, from the published schema: no server and no network needed. */
import type { CodegenConfig } from '@graphql-codegen/cli';

const config: CodegenConfig = {
  schema: 'schema/schema.graphql',
  documents: ['src/operations/*.graphql'],
  importExtension: '.ts',
  generates: {
    'src/generated/graphql/': {
      preset: 'client',
      presetConfig: { fragmentMasking: false },
      config: {
        documentMode: 'string',
        enumsAsTypes: true,
        useTypeImports: true,
        scalars: {
          ID: { input: 'string', output: 'string' },
          DateTime: 'string',
          JSON: 'unknown',
          VersionVector: 'Record<string, string>',
        },
      },
    },
  },
};

export default config;
