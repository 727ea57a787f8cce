import { defineConfig } from 'vitest/config';

export default defineConfig({
  // Yoga loads graphql's CommonJS build; a second copy of it beside that one is "another module or realm".
  resolve: { alias: [{ find: /^graphql$/, replacement: 'graphql/index.js' }] },
  test: {
    include: ['test/**/*.test.ts'],
    globalSetup: ['test/support/postgres-server.ts'],
    pool: 'forks',
    // Each file waits for the database most of its time: two share a core well.
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 120_000,
  },
});
