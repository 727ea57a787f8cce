/** Errors as `application/problem+json` (RFC 9457), with the code that GraphQL gives in `extensions.code`. */
import { z } from '@hono/zod-openapi';

import { ServiceError, type ErrorCode, type FieldError } from '../services/errors.ts';

/** The services' codes, and those of HTTP itself. */
export type ProblemCode =
  | ErrorCode
  | 'METHOD_NOT_ALLOWED'
  | 'UNSUPPORTED_MEDIA_TYPE'
  | 'PAYLOAD_TOO_LARGE'
  | 'FORBIDDEN'
  | 'NOT_READY'
  | 'INTERNAL_SERVER_ERROR';

const STATUSES: Readonly<Record<ProblemCode, readonly [status: number, title: string]>> = {
  BAD_USER_INPUT: [400, 'Bad Request'],
  UNAUTHENTICATED: [401, 'Unauthorized'],
  FORBIDDEN: [403, 'Forbidden'],
  NOT_FOUND: [404, 'Not Found'],
  UNKNOWN_PEER: [404, 'Not Found'],
  METHOD_NOT_ALLOWED: [405, 'Method Not Allowed'],
  PEER_EXISTS: [409, 'Conflict'],
  UNIQUE_VIOLATION: [409, 'Conflict'],
  VERSION_MISMATCH: [409, 'Conflict'],
  ALREADY_RESOLVED: [409, 'Conflict'],
  PAYLOAD_TOO_LARGE: [413, 'Content Too Large'],
  UNSUPPORTED_MEDIA_TYPE: [415, 'Unsupported Media Type'],
  INTERNAL_SERVER_ERROR: [500, 'Internal Server Error'],
  PEER_UNREACHABLE: [502, 'Bad Gateway'],
  PEER_REJECTED: [502, 'Bad Gateway'],
  NOT_READY: [503, 'Service Unavailable'],
};

export const problemSchema = z
  .object({
    type: z.literal('about:blank'),
    title: z.string(),
    status: z.int(),
    detail: z.string(),
    code: z.string(),
    errors: z.array(z.object({ field: z.string(), message: z.string() })).optional(),
  })
  .openapi('Problem');

export const PROBLEM_TYPE = 'application/problem+json';

/** @returns a response with the code's status; `errors` only where there are any. */
export function problem(
  code: ProblemCode,
  detail: string,
  { errors = [], headers = {} }: { errors?: readonly FieldError[]; headers?: Record<string, string> } = {},
): Response {
  const [status, title] = STATUSES[code];
  const body = { type: 'about:blank', title, status, detail, code, ...(errors.length > 0 ? { errors } : {}) };
  return new Response(JSON.stringify(body), { status, headers: { ...headers, 'content-type': PROBLEM_TYPE } });
}

/** An error of HTTP rather than of a service: thrown by what reads a request, answered as a problem. */
export class RequestError extends Error {
  readonly code: ProblemCode;

  constructor(code: ProblemCode, message: string) {
    super(message);
    this.name = 'RequestError';
    this.code = code;
  }
}

/** @returns the problem an expected error shows as; undefined for a fault of ours. */
export function problemOf(error: unknown): Response | undefined {
  if (error instanceof ServiceError) return problem(error.code, error.message, { errors: error.errors });
  if (error instanceof RequestError) return problem(error.code, error.message);
  return undefined;
}
