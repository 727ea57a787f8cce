/**
 * What a caller gets to see of an error.
 *
 * - ServiceError: its message, its code, and for BAD_USER_INPUT each field and why.
 * - An error of the request itself (syntax, validation, variables, HTTP): its message and a code.
 * - Anything else is a fault of ours: logged whole, shown as INTERNAL_SERVER_ERROR with nothing of it.
 */
import { GraphQLError, type GraphQLFormattedError } from 'graphql';
import type { Logger } from 'pino';

import { ServiceError } from '../services/errors.ts';

export type ErrorLogger = Pick<Logger, 'error'>;

const MASKED = 'Something went wrong on the server. Its log says what.';

/**
 * @param error - Whatever was thrown.
 * @returns the error to send; handing it in again gives the same.
 */
export function presentError(error: unknown, logger: ErrorLogger): GraphQLError {
  const cause = rootOf(error);
  if (cause instanceof ServiceError) {
    return shown(error, cause.message, {
      code: cause.code,
      ...(cause.errors.length > 0 ? { errors: cause.errors } : {}),
    });
  }
  if (error instanceof GraphQLError && cause instanceof GraphQLError) {
    const code = codeOf(error, cause);
    const { errors } = error.extensions;
    if (code === 'INTERNAL_SERVER_ERROR') return error;
    if (code) return shown(error, error.message, { code, ...(errors ? { errors } : {}), ...withHttp(error, cause, code) });
  }
  logger.error({ err: cause, path: error instanceof GraphQLError ? error.path?.join('.') : undefined }, 'a GraphQL operation failed');
  return shown(error, MASKED, {
    code: 'INTERNAL_SERVER_ERROR',
    ...(error instanceof GraphQLError && error.path ? {} : { http: { status: 500 } }),
  });
}

/** @returns the error as it goes over a WebSocket, without what is meant for HTTP. */
export function formatError(error: GraphQLError): GraphQLFormattedError {
  const { http: _http, ...extensions } = error.extensions;
  return { ...error.toJSON(), extensions };
}

function rootOf(error: unknown): unknown {
  let cause = error;
  while (cause instanceof GraphQLError && cause.originalError) cause = cause.originalError;
  return cause;
}

/** The code of an error that graphql-js, Yoga or a scalar raised on purpose; undefined where it is a fault of ours. */
function codeOf(error: GraphQLError, cause: GraphQLError): string | undefined {
  const code = cause.extensions['code'] ?? error.extensions['code'];
  if (error.extensions.http?.status === 405) return 'METHOD_NOT_ALLOWED';
  if (code === 'BAD_REQUEST' || code === 'OPERATION_RESOLUTION_FAILURE') return 'BAD_USER_INPUT';
  if (typeof code === 'string') return code;
  if (error.message.startsWith('Syntax Error')) return 'GRAPHQL_PARSE_FAILED';
  // Raised before any field ran: a variable that does not fit, an operation that is not there.
  if (!error.path) return 'BAD_USER_INPUT';
  // An argument that only the variables' values make unfit.
  if (cause.message.startsWith('Argument "')) return 'BAD_USER_INPUT';
  return undefined;
}

/**
 * The HTTP status where no field ran. `spec` leaves it at 200 in `application/json`, where GraphQL over HTTP wants that of a well-formed
 * request whose document or variables do not fit; one that is not well-formed is 400 in any form.
 */
function withHttp(error: GraphQLError, cause: GraphQLError, code: string): object {
  const { http } = error.extensions;
  if (cause.extensions['code'] === 'BAD_REQUEST') return { http: { ...http, spec: false } };
  if (http) return { http };
  return error.path || code !== 'BAD_USER_INPUT' ? {} : { http: { spec: true, status: 400 } };
}

function shown(error: unknown, message: string, extensions: GraphQLError['extensions']): GraphQLError {
  if (!(error instanceof GraphQLError)) return new GraphQLError(message, { extensions });
  const { nodes = null, source = null, positions = null, path = null } = error;
  return new GraphQLError(message, { nodes, source, positions, path, extensions });
}
