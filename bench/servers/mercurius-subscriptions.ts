/** Mercurius telling its subscribers of what a mutation announces: `mercurius-subscriptions.ts`. Tells its port on stdout. */
import type { AddressInfo } from 'node:net';

import fastify from 'fastify';
import mercurius from 'mercurius';

const SCHEMA = `
  type Version { replica: String! nom: String! telephone: String! }
  type Conflict { id: ID! model: String! recordId: ID! detectedAt: String! fields: [String!]! versions: [Version!]! }
  type Query { subscribed: Int! }
  type Mutation { announce(id: ID!): Boolean! }
  type Subscription { conflictDetected: Conflict! }`;

interface PubSub {
  publish(message: { readonly topic: string; readonly payload: object }): void;
  subscribe(topic: string): Promise<AsyncIterable<unknown>>;
}

let subscribed = 0;

const resolvers = {
  Query: { subscribed: () => subscribed },
  Mutation: {
    announce(_: unknown, { id }: { id: string }, { pubsub }: { pubsub: PubSub }) {
      const versions = ['a', 'b'].map((replica) => ({ replica, nom: `Nom ${id}`, telephone: `+${replica} ${id}` }));
      pubsub.publish({ topic: 'conflicts', payload: { conflictDetected: { id, model: 'User', recordId: id, detectedAt: new Date().toISOString(), fields: ['telephone'], versions } } });
      return true;
    },
  },
  Subscription: {
    conflictDetected: {
      async subscribe(_: unknown, __: unknown, { pubsub }: { pubsub: PubSub }) {
        const queue = await pubsub.subscribe('conflicts');
        subscribed++;
        return queue;
      },
    },
  },
};

const app = fastify();
await app.register(mercurius, { schema: SCHEMA, resolvers, jit: 1, subscription: true });
await app.listen({ port: 0, host: '127.0.0.1' });
process.stdout.write(`${(app.server.address() as AddressInfo).port}\n`);
process.on('SIGTERM', () => process.exit());
