/** Types for the operations that tests and tools run, from the published schema: no server and no network needed. */
import type { CodegenConfig } from '@graphql-codegen/cli';

const config: CodegenConfig = {
  schema: 'schema/schema.graphql',
  documents: ['test/operations/*.graphql', 'src/**/*.graphql'],
  ignoreNoDocuments: true,
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
