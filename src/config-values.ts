/** The kinds of value that a configuration is made of: what fits, and what is said of one that does not. */
import { isIP } from 'node:net';

import { z } from 'zod';

import type { ConflictPolicy, Environment, PeerConfig, SyncMode } from './config.ts';

export const MAX_PORT = 65_535;
/** Keys are 32-bit: a stride beyond this leaves too few of them. */
const MAX_STRIDE = 10_000;

/** A value, and how to say that it does not fit: `PORT is "x", which is …`. */
export interface Kind<T> {
  readonly schema: z.ZodType<T>;
  /** Continues "which". */
  readonly fault: string;
  readonly remedy: string;
  /** The value may hold a password, and is not repeated. */
  readonly secret?: boolean;
}

const NAME = /^[A-Za-z0-9_]{1,32}$/;

export const replicaName: Kind<string> = {
  schema: z.string().regex(NAME),
  fault: 'is no replica name',
  remedy: 'Use 1 to 32 letters (a to z), digits and _.',
};

export const nameList: Kind<readonly string[]> = {
  schema: z.string().transform(splitList).pipe(z.array(z.string().regex(NAME)).min(1).refine(isDistinct)),
  fault: 'is no list of different replica names',
  remedy: 'Separate them by commas, such as a,b,c; each has 1 to 32 letters (a to z), digits and _.',
};

export const port: Kind<number> = {
  schema: z.string().regex(/^\d{1,5}$/).transform(Number).pipe(z.number().min(1).max(MAX_PORT)),
  fault: 'is no port',
  remedy: `Set a number from 1 to ${MAX_PORT}, such as 8001.`,
};

export const wholeNumber: Kind<number> = {
  schema: z.string().regex(/^\d{1,9}$/).transform(Number),
  fault: 'is no whole number',
  remedy: 'Set one in decimal digits, such as 1.',
};

export const idStride: Kind<number> = {
  schema: z.string().regex(/^\d{1,9}$/).transform(Number).pipe(z.number().min(1).max(MAX_STRIDE)),
  fault: 'is no step between keys',
  remedy: `Set a number from 1 to ${MAX_STRIDE}, the same on every replica.`,
};

export const hostName: Kind<string> = {
  schema: z.string().refine((value) => isIP(value) !== 0 || /^(?!-)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})*$/.test(value)),
  fault: 'is no address to listen on',
  remedy: 'Set an IP address or a host name without a port, such as 127.0.0.1.',
};

export const databaseUrl: Kind<string> = {
  schema: z.string().refine((value) => /^postgres(ql)?:\/\//.test(value) && URL.canParse(value) && new URL(value).pathname.length > 1),
  fault: 'is no address of a PostgreSQL database',
  remedy: 'Write it as postgresql://user:password@host:5432/database, with special characters of the password percent-encoded.',
  secret: true,
};

export const peerList: Kind<readonly PeerConfig[]> = {
  schema: z
    .string()
    .transform((text) => splitList(text).map(splitPeer))
    .pipe(z.array(z.object({ name: z.string().regex(NAME), url: z.string().refine(isBaseUrl) })))
    .refine((peers) => isDistinct(peers.map((peer) => peer.name)) && isDistinct(peers.map((peer) => peer.url))),
  fault: 'is no list of different peers',
  remedy: 'Write each as name=http://host:port, separated by commas, such as b=http://127.0.0.1:8002,c=http://127.0.0.1:8003.',
};

export const syncMode: Kind<SyncMode> = {
  schema: z.enum(['manual', 'continuous']),
  fault: 'is no such mode',
  remedy: 'Set manual.',
};

export const conflictPolicy: Kind<ConflictPolicy> = {
  schema: z.enum(['manual', 'latest', 'field-wise']),
  fault: 'is no such policy',
  remedy: 'Set manual, latest or field-wise.',
};

const SECONDS = { s: 1, m: 60, h: 3_600, d: 86_400 } as const;
/** A hundred years: what is longer is meant for ever. */
const MAX_SECONDS = 36_525 * SECONDS.d;

/** A span of time, in seconds; `forever` is Infinity. */
export const duration: Kind<number> = {
  schema: z.union([
    z.literal('forever').transform(() => Infinity),
    z.literal('0').transform(() => 0),
    z.string().regex(/^\d{1,10}[smhd]$/).transform(toSeconds).pipe(z.number().max(MAX_SECONDS)),
  ]),
  fault: 'is no span of time',
  remedy: 'Set a whole number and its unit (s, m, h or d), such as 90d, up to a hundred years; 0, or forever.',
};

export const secret: Kind<string> = {
  schema: z.string().regex(/^[\x21-\x7e]{1,512}$/),
  fault: 'cannot be sent in an HTTP header',
  remedy: 'Use up to 512 characters of ASCII without spaces.',
  secret: true,
};

export const dataFolder: Kind<string> = {
  schema: z.string().refine((value) => value.trim() !== '' && !value.includes('\0')),
  fault: 'is no folder',
  remedy: 'Set the path of a folder, such as .data.',
};

/** Reads variables one by one, and keeps what is wrong with them. */
export interface Reader {
  /** The value, or undefined where it is not given or does not fit; the latter is noted. */
  read<T>(variable: string, kind: Kind<T>): T | undefined;
  raw(variable: string): string | undefined;
  complain(problem: string): void;
  /** Each mistake so far. */
  readonly problems: readonly string[];
}

/** One that is empty counts as not given. */
export function createReader(env: Environment): Reader {
  const problems: string[] = [];
  const raw = (variable: string) => {
    const value = env[variable]?.trim();
    return value === '' ? undefined : value;
  };
  return {
    raw,
    read(variable, kind) {
      const value = raw(variable);
      if (value === undefined) return undefined;
      const result = kind.schema.safeParse(value);
      if (result.success) return result.data;
      const shown = kind.secret === true ? 'is set to something that' : `is ${JSON.stringify(value)}, which`;
      problems.push(`${variable} ${shown} ${kind.fault}. ${kind.remedy}`);
      return undefined;
    },
    complain: (problem) => void problems.push(problem),
    problems,
  };
}

/** A span of time as a variable holds it. */
export function durationText(seconds: number): string {
  if (seconds === Infinity) return 'forever';
  return seconds === 0 ? '0' : `${seconds}s`;
}

/** Two addresses of one database have the same identity. */
export function databaseIdentity(text: string): string {
  const { hostname, port: number, pathname, searchParams } = new URL(text);
  const host = hostname === 'localhost' ? '127.0.0.1' : hostname;
  return [searchParams.get('host') ?? host, number || '5432', pathname].join(' ');
}

function splitList(text: string): string[] {
  return text.split(',').map((part) => part.trim());
}

function splitPeer(text: string): PeerConfig {
  const at = text.indexOf('=');
  return at === -1 ? { name: '', url: text } : { name: text.slice(0, at).trim(), url: text.slice(at + 1).trim().replace(/\/+$/, '') };
}

function toSeconds(text: string): number {
  return Number(text.slice(0, -1)) * SECONDS[text.slice(-1) as keyof typeof SECONDS];
}

function isDistinct(values: readonly string[]): boolean {
  return new Set(values).size === values.length;
}

function isBaseUrl(text: string): boolean {
  if (!/^https?:\/\//i.test(text) || !URL.canParse(text)) return false;
  const { search, hash, username, password } = new URL(text);
  return search === '' && hash === '' && username === '' && password === '';
}
