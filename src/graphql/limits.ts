/** How much one document may ask for; the same over HTTP and WebSocket. */
import { maxAliasesPlugin } from '@escape.tech/graphql-armor-max-aliases';
import { maxDepthPlugin } from '@escape.tech/graphql-armor-max-depth';
import { maxTokensPlugin } from '@escape.tech/graphql-armor-max-tokens';
import type { GraphQLError, ValidationContext } from 'graphql';

export const LIMITS = { depth: 15, aliases: 100, tokens: 5000 } as const;

/** @returns plugins for Yoga; a document past a limit is refused as one that does not parse or validate. */
export function limits(): object[] {
  // Thrown from a rule, an error would pass by the other rules and by the status of a document that does not validate.
  const reported = {
    propagateOnRejection: false,
    onReject: [(context: ValidationContext | null, error: GraphQLError) => context?.reportError(error)],
  };
  return [
    maxDepthPlugin({ n: LIMITS.depth, flattenFragments: true, ...reported }),
    maxAliasesPlugin({ n: LIMITS.aliases, ...reported }),
    maxTokensPlugin({ n: LIMITS.tokens }),
  ];
}
