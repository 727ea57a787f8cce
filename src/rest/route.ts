/**
 * A route, said once: how it is documented, and what answers it.
 *
 * Requests are not validated against the documentation: the services do that, with the very schemas that are printed here. (One of those
 * that is to be described further is cloned first: `openapi` is there only on schemas made after @hono/zod-openapi was loaded.)
 */
import { createRoute, type OpenAPIHono, type RouteConfig } from '@hono/zod-openapi';
import type { Context } from 'hono';

import { problem, PROBLEM_TYPE, problemSchema, RequestError } from './problem.ts';

export interface Route extends RouteConfig {
  /** Hono's own pattern, where it is not the documented path with `:name` for `{name}`. */
  readonly pattern?: string;
  readonly handle: (context: Context) => Response | Promise<Response>;
}

/** Adds routes to the app; a path asked with another method answers 405 with what it allows. */
export function addRoutes(app: OpenAPIHono, routes: readonly Route[]): void {
  const allowed = new Map<string, string[]>();
  for (const { handle, pattern, ...config } of routes) {
    const documented = createRoute(config);
    if (!config.hide) app.openAPIRegistry.registerPath(documented);
    const path = pattern ?? documented.getRoutingPath();
    app.on(config.method.toUpperCase(), path, (context) => handle(context));
    allowed.set(path, [...(allowed.get(path) ?? []), ...(config.method === 'get' ? ['GET', 'HEAD'] : [config.method.toUpperCase()])]);
  }
  for (const [path, methods] of allowed) {
    const allow = methods.join(', ');
    app.all(path, ({ req }) =>
      problem('METHOD_NOT_ALLOWED', `${req.method} is not served at ${req.path}; it allows ${allow}`, { headers: { allow } }),
    );
  }
}

/**
 * @returns the body of a request.
 * @throws RequestError UNSUPPORTED_MEDIA_TYPE, BAD_USER_INPUT (no JSON).
 */
export async function readJson({ req }: Context): Promise<unknown> {
  const bytes = await req.arrayBuffer();
  const [type = '', ...parameters] = (req.header('content-type') ?? '').toLowerCase().split(';').map((part) => part.trim());
  const charset = parameters.find((parameter) => parameter.startsWith('charset='))?.slice('charset='.length).replaceAll('"', '');
  const isJson = (type === 'application/json' || type.endsWith('+json')) && (charset ?? 'utf-8') === 'utf-8';
  if (!isJson && (type !== '' || bytes.byteLength > 0)) {
    throw new RequestError('UNSUPPORTED_MEDIA_TYPE', `the body is ${type ? `"${type}"` : 'of no named type'}; send it as application/json in UTF-8`);
  }
  try {
    return JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(bytes));
  } catch {
    throw new RequestError('BAD_USER_INPUT', bytes.byteLength === 0 ? 'the body is empty; it must be JSON' : 'the body is not valid JSON in UTF-8');
  }
}

/** @returns a number where the parameter is one; otherwise what came, for the service to refuse; undefined where it was left out. */
export function numberParameter(value: string | undefined): number | string | undefined {
  return value !== undefined && /^-?\d{1,15}$/.test(value) ? Number(value) : value;
}

/** Documentation of a JSON answer. */
export function json<T>(description: string, schema: T): { description: string; content: { 'application/json': { schema: T } } } {
  return { description, content: { 'application/json': { schema } } };
}

/** Documentation of the problems a route may answer, by status. */
export function problems(...statuses: readonly (keyof typeof PROBLEMS)[]): Record<string, { description: string; content: object }> {
  return Object.fromEntries(
    statuses.map((status) => [
      String(status),
      { description: PROBLEMS[status], content: { [PROBLEM_TYPE]: { schema: problemSchema } } },
    ]),
  );
}

const PROBLEMS = {
  400: 'BAD_USER_INPUT: a body, parameter or strategy that does not fit; `errors` lists each field and why.',
  404: 'NOT_FOUND, UNKNOWN_PEER: no such user, conflict or peer.',
  409: 'UNIQUE_VIOLATION, VERSION_MISMATCH, ALREADY_RESOLVED: the state forbids it.',
  413: 'PAYLOAD_TOO_LARGE: a body of more than 1 MiB.',
  415: 'UNSUPPORTED_MEDIA_TYPE: a body that is not JSON.',
  502: 'PEER_UNREACHABLE, PEER_REJECTED: the peer did not answer, or refused; the reason is in `detail`.',
} as const;
