/** The contract's scalars. */
import { GraphQLError, valueFromASTUntyped } from 'graphql';

import { builder } from './builder.ts';

const STAMP = /^\d{1,20}$/;
const INSTANT = /^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,9})?(Z|[+-]\d{2}:\d{2})$/;

builder.scalarType('DateTime', {
  description: 'ISO 8601 instant, UTC, microseconds kept.',
  // Strings pass as they are: a Date would cut them to milliseconds.
  serialize: (value) => (value instanceof Date ? value.toISOString() : value),
  parseValue: (value) => {
    if (typeof value === 'string' && INSTANT.test(value) && !Number.isNaN(Date.parse(value))) return value;
    throw badInput('DateTime must be an ISO 8601 instant, such as "2026-01-31T12:00:00.000000Z"');
  },
});

builder.scalarType('JSON', {
  description: 'Any JSON value.',
  serialize: (value) => value,
  parseValue: (value) => value,
  parseLiteral: (node, variables) => valueFromASTUntyped(node, variables),
});

builder.scalarType('VersionVector', {
  description: 'For each replica whose write is known, the stamp of its last write: {"a": "1764000000000000"}.',
  serialize: (value) => value,
  parseValue: parseVector,
  parseLiteral: (node, variables) => parseVector(valueFromASTUntyped(node, variables)),
});

function parseVector(value: unknown): Record<string, string> {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) {
    const entries = Object.entries(value);
    if (entries.every((entry): entry is [string, string] => typeof entry[1] === 'string' && STAMP.test(entry[1]))) {
      return Object.fromEntries(entries);
    }
  }
  throw badInput('VersionVector must map names of replicas to stamps in decimal digits, such as {"a": "1764000000000000"}');
}

function badInput(message: string): GraphQLError {
  return new GraphQLError(message, { extensions: { code: 'BAD_USER_INPUT' } });
}
