/** GraphQL over HTTP and WebSocket, for a node:http server to hand its requests and upgrades to. */
import { setMaxListeners } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Duplex } from 'node:stream';

import { GraphQLError } from 'graphql';
import { createYoga, type Plugin } from 'graphql-yoga';

import type { PrismaClient } from '../generated/prisma/client.ts';
import type { Services } from '../services/services.ts';
import { createLoaders, type Context } from './context.ts';
import { createDirect } from './direct.ts';
import { presentError, type ErrorLogger } from './errors.ts';
import { limits } from './limits.ts';
import { schema } from './schema.ts';
import { createWebSockets } from './websocket.ts';

export interface GraphQLOptions {
  readonly services: Services;
  /** Read from directly; only `user` is used. */
  readonly prisma: PrismaClient;
  readonly logger: ErrorLogger;
}

export interface GraphQLEdge {
  /** Answers a request to `/graphql`; its body's size is the caller's to limit. Never rejects. */
  handle(request: IncomingMessage, response: ServerResponse): Promise<void>;
  /** Takes over a socket that asks for the subprotocol graphql-transport-ws. */
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  /** Ends every subscription, closes every WebSocket with 1001, and waits for what their operations are at. */
  close(): Promise<void>;
}

const WELCOME = `# This replica, its peers, its data.
query Overview {
  replica {
    name
    records
    pendingConflicts
    peers {
      name
      state
      pendingChanges
      lagSeconds
      consistency
    }
  }
  users(first: 10) {
    id
    nom
    email
    telephone
  }
}
`;

/** @returns the GraphQL edge of one replica. */
export function createGraphQL({ services, prisma, logger }: GraphQLOptions): GraphQLEdge {
  const closing = new AbortController();
  // One listener a subscription, however many there are.
  setMaxListeners(0, closing.signal);
  const present = (error: unknown) => presentError(error, logger);
  const context = ({ request }: { readonly request?: Request }): Context => ({
    services,
    prisma,
    loaders: createLoaders(services),
    authorization: request?.headers.get('authorization') ?? null,
    closing: closing.signal,
  });

  const yoga = createYoga<object, Context>({
    schema,
    context,
    plugins: [onlyJson, explained, ...limits()],
    maskedErrors: { maskError: present },
    // Faults are logged where they are masked; what Yoga adds would log every expected error once more.
    logging: false,
    graphiql: { subscriptionsProtocol: 'WS', title: 'Replique', defaultQuery: WELCOME },
    // The page is 9 MB of text: read when somebody opens it.
    renderGraphiQL: async (options) => (await import('@graphql-yoga/render-graphiql')).renderGraphiQL(options),
    landingPage: false,
    // A page of another origin has no business here, and asking Yoga to limit bodies costs a third of its speed.
    cors: false,
    maxRequestBodySize: false,
    multipart: false,
  });
  const direct = createDirect(yoga, async (request, response) => void (await yoga(request, response)));
  const sockets = createWebSockets({ schema, getEnveloped: (initial) => yoga.getEnveloped(initial), present, logger });

  return {
    async handle(request, response) {
      try {
        await direct(request, response);
      } catch (error) {
        logger.error({ err: error }, 'a GraphQL request failed');
        if (!response.headersSent) response.writeHead(500);
        response.end();
      }
    },
    upgrade: sockets.upgrade,
    async close() {
      closing.abort();
      await sockets.close();
    },
  };
}

/**
 * Bodies are JSON and nothing else: a form or plain text could be posted by any page in the user's browser without asking first.
 */
const onlyJson: Plugin = {
  onRequestParse({ request }) {
    if (request.method !== 'POST') return;
    const type = request.headers.get('content-type')?.split(';', 1)[0]?.trim().toLowerCase();
    if (type === 'application/json' || type === 'application/graphql+json') return;
    throw new GraphQLError(`the body is ${type ? `"${type}"` : 'of no named type'}; send it as application/json`, {
      extensions: { code: 'UNSUPPORTED_MEDIA_TYPE', http: { status: 415 } },
    });
  },
};

/** Yoga says 406 with nothing else. */
const explained: Plugin = {
  onResponse({ response, setResponse, fetchAPI }) {
    if (response.status !== 406) return;
    const message = 'answers are application/json, application/graphql-response+json or, for subscriptions, text/event-stream';
    const body = JSON.stringify({ errors: [{ message, extensions: { code: 'NOT_ACCEPTABLE' } }] });
    setResponse(new fetchAPI.Response(body, { status: 406, headers: { 'content-type': 'application/json; charset=utf-8' } }));
  },
};
