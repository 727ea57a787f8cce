/**
 * GraphQL over WebSocket (subprotocol graphql-transport-ws), on a server that somebody else listens with.
 *
 * Operations run through Yoga's plugins, so that limits and masking hold here too. A subscriber that reads slowly costs little:
 * an iterator is pulled again only when its last message has left, and a socket whose unsent bytes pass a mark is not read from, so that it
 * can ask for no more; it then answers no ping either, and is dropped.
 */
import type { IncomingMessage } from 'node:http';
import type { Duplex } from 'node:stream';

import { GraphQLError, type DocumentNode, type ExecutionArgs, type GraphQLSchema } from 'graphql';
import { CloseCode, handleProtocols, makeServer, type OperationResult } from 'graphql-ws';
import { WebSocketServer, type WebSocket } from 'ws';

import { formatError, type ErrorLogger } from './errors.ts';

export const WEBSOCKET_LIMITS = {
  /** Bytes of one message. */
  messageBytes: 1024 * 1024,
  /** Bytes waiting to be sent, above which a socket is not read from. */
  unsentBytes: 1024 * 1024,
  /** Operations of one socket at a time, subscriptions included. */
  operations: 100,
  /** Between pings; a socket that has not answered by the next one is dropped. */
  pingMs: 12_000,
  /** What a client has to answer a close. */
  closeMs: 1_000,
} as const;

/** What Yoga gives for one operation. */
interface Enveloped {
  parse(source: string): DocumentNode;
  validate(schema: GraphQLSchema, document: DocumentNode): readonly GraphQLError[];
  contextFactory(): unknown;
  execute(args: ExecutionArgs): OperationResult;
  subscribe(args: ExecutionArgs): OperationResult;
}

export interface WebSocketOptions {
  readonly schema: GraphQLSchema;
  readonly getEnveloped: (initial: object) => Enveloped;
  readonly present: (error: unknown) => GraphQLError;
  readonly logger: ErrorLogger;
}

export interface WebSockets {
  upgrade(request: IncomingMessage, socket: Duplex, head: Buffer): void;
  /** Closes every socket with 1001, cuts those that do not answer, and waits for what their operations are at: that may outlive a socket. */
  close(): Promise<void>;
}

export function createWebSockets({ schema, getEnveloped, present, logger }: WebSocketOptions): WebSockets {
  const running = new WeakMap<object, Enveloped>();
  const envelopedOf = (args: ExecutionArgs): Enveloped => {
    const enveloped = running.get(args.contextValue as object);
    if (!enveloped) throw new Error('an operation without its plugins');
    return enveloped;
  };

  const protocol = makeServer({
    async onSubscribe({ subscriptions }, _id, payload) {
      if (Object.keys(subscriptions).length > WEBSOCKET_LIMITS.operations) {
        const message = `this connection already runs ${WEBSOCKET_LIMITS.operations} operations; complete one first`;
        return [new GraphQLError(message, { extensions: { code: 'RATE_LIMITED' } })];
      }
      try {
        const enveloped = getEnveloped({});
        const document = enveloped.parse(payload.query);
        const errors = enveloped.validate(schema, document);
        if (errors.length > 0) return errors;
        const contextValue = (await enveloped.contextFactory()) as object;
        running.set(contextValue, enveloped);
        return {
          schema,
          document,
          contextValue,
          operationName: payload.operationName ?? null,
          variableValues: payload.variables ?? null,
        };
      } catch (error) {
        return [present(error)];
      }
    },
    execute: (args) => envelopedOf(args).execute(args),
    subscribe: (args) => envelopedOf(args).subscribe(args),
    onNext: (_context, _id, _payload, _args, { data, errors }) =>
      errors && { ...(data === undefined ? {} : { data }), errors: errors.map((error) => formatError(present(error))) },
    onError: (_context, _id, _payload, errors) => errors.map((error) => formatError(present(error))),
  });

  const server = new WebSocketServer({
    noServer: true,
    maxPayload: WEBSOCKET_LIMITS.messageBytes,
    perMessageDeflate: false,
    handleProtocols,
  });

  const underWay = new Set<Promise<void>>();

  server.on('connection', (socket: WebSocket) => {
    const stopPinging = keepAlive(socket);
    const closed = protocol.opened(
      {
        protocol: socket.protocol,
        send: (data) => send(socket, data),
        close: (code, reason) => socket.close(code, reason),
        onMessage: (receive) => {
          socket.on('message', (data) => {
            // Over when the operation that the message asks for is.
            const work = receive(String(data))
              .catch((error: unknown) => {
                logger.error({ err: error }, 'a WebSocket message failed');
                socket.close(CloseCode.InternalServerError, 'Internal server error');
              })
              .finally(() => underWay.delete(work));
            underWay.add(work);
          });
        },
      },
      undefined,
    );
    // A frame that is too large or malformed; ws closes the socket with the fitting code itself.
    socket.on('error', () => {});
    socket.once('close', (code, reason) => {
      stopPinging();
      closed(code, String(reason)).catch((error: unknown) => logger.error({ err: error }, 'a WebSocket did not end well'));
    });
  });

  return {
    upgrade(request, socket, head) {
      server.handleUpgrade(request, socket, head, (client) => server.emit('connection', client, request));
    },
    async close() {
      const clients = [...server.clients];
      const gone = clients.map((client) => new Promise((resolve) => client.once('close', resolve)));
      for (const client of clients) {
        client.resume();
        client.close(1001, 'Going away');
      }
      const cut = setTimeout(() => clients.forEach((client) => client.terminate()), WEBSOCKET_LIMITS.closeMs);
      await Promise.all(gone);
      clearTimeout(cut);
      server.close();
      await Promise.all(underWay);
    },
  };
}

/** @returns when the message has left for the network, or the socket is closed: until then nothing more is pulled for it. */
function send(socket: WebSocket, data: string): Promise<void> {
  return new Promise((resolve) => {
    if (socket.readyState !== socket.OPEN) {
      resolve();
      return;
    }
    socket.send(data, () => {
      if (socket.isPaused && socket.bufferedAmount <= WEBSOCKET_LIMITS.unsentBytes) socket.resume();
      resolve();
    });
    if (socket.bufferedAmount > WEBSOCKET_LIMITS.unsentBytes) socket.pause();
  });
}

function keepAlive(socket: WebSocket): () => void {
  let answered = true;
  socket.on('pong', () => {
    answered = true;
  });
  const timer = setInterval(() => {
    if (!answered) {
      socket.terminate();
      return;
    }
    answered = false;
    socket.ping();
  }, WEBSOCKET_LIMITS.pingMs);
  timer.unref();
  return () => clearInterval(timer);
}
