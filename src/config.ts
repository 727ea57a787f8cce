/**
 * What a replica is told from outside. Pure: the environment comes in as an argument, and nothing is opened or looked up.
 *
 * Every mistake is found before any is reported, so that a configuration is put right in one go.
 */
import { isIP } from 'node:net';
import { parseEnv } from 'node:util';

import {
  MAX_PORT, conflictPolicy, createReader, dataFolder, databaseIdentity, databaseUrl, duration, durationText, hostName, idStride, nameList, peerList, port, replicaName, secret, syncMode,
  wholeNumber,
} from './config-values.ts';
import type { Reader } from './config-values.ts';

/** Variables by name; one that is empty counts as not given. */
export type Environment = Readonly<Record<string, string | undefined>>;

export type SyncMode = 'manual' | 'continuous';
export type ConflictPolicy = 'manual' | 'latest' | 'field-wise';

export interface PeerConfig {
  readonly name: string;
  /** `http://…` without a slash at its end. */
  readonly url: string;
}

export interface ReplicaConfig {
  readonly name: string;
  /** Where its keys start: slot, slot + stride, …; 1 to stride. */
  readonly slot: number;
  readonly stride: number;
  readonly host: string;
  readonly port: number;
  /** Its own PostgreSQL server; null: an embedded one under `dataDir`. */
  readonly databaseUrl: string | null;
  /** The same database for what needs a session, around any pooler in transaction mode; null: `databaseUrl` carries sessions. */
  readonly sessionDatabaseUrl: string | null;
  /** Relative to the working folder, or absolute. */
  readonly dataDir: string;
  readonly peers: readonly PeerConfig[];
  readonly syncMode: SyncMode;
  readonly conflictPolicy: ConflictPolicy;
  /** How long resolved conflicts stay in the log, in seconds; Infinity: for ever. */
  readonly conflictRetention: number;
  /** Seconds for which a deletion is kept at least, once every replica has it. */
  readonly tombstoneRetention: number;
  readonly peerSecret: string | null;
}

/** The replicas of `npm start`, in order. */
export interface FleetConfig {
  readonly replicas: readonly ReplicaConfig[];
}

/** The configuration has mistakes; `problems` has each with what it is, why it is none to go on with, and what to do. */
export class ConfigError extends Error {
  override readonly name = 'ConfigError';
  readonly problems: readonly string[];

  constructor(problems: readonly string[]) {
    super(`the configuration has ${problems.length === 1 ? 'a mistake' : `${problems.length} mistakes`}:\n${problems.map((problem) => `  - ${problem}`).join('\n')}`);
    this.problems = problems;
  }
}

/** Lays the text of a `.env` file under the environment: what is set for real wins, an empty value included. */
export function withEnvFile(env: Environment, text: string): Environment {
  return { ...parseEnv(text), ...env };
}

/**
 * Reads the configuration of all the replicas of `npm start`; each is every other's peer.
 *
 * @throws ConfigError with every mistake.
 */
export function readFleetConfig(env: Environment): FleetConfig {
  const reader = createReader(env);
  const names = reader.read('REPLICAS', nameList) ?? ['a', 'b'];
  const base = reader.read('BASE_PORT', port) ?? 8001;
  const shared = readShared(reader);

  for (const name of names) {
    const twin = names.find((other) => other !== name && other.toLowerCase() === name.toLowerCase());
    if (twin !== undefined && name < twin) {
      reader.complain(`REPLICAS names both "${name}" and "${twin}", which would share one data folder and DATABASE_URL_${name.toUpperCase()}. Give them names that differ in more than case.`);
    }
  }
  if (names.length > shared.stride) {
    reader.complain(`REPLICAS names ${names.length} replicas, and ID_STRIDE=${shared.stride} has room for the keys of ${shared.stride}. Set ID_STRIDE to at least ${names.length}, before any data is written.`);
  }
  if (base + names.length - 1 > MAX_PORT) {
    reader.complain(`BASE_PORT=${base} leaves no port for the last of ${names.length} replicas, since ports end at ${MAX_PORT}. Set it to at most ${MAX_PORT + 1 - names.length}.`);
  }
  const owners = new Map<string, string>();
  const databases = names.map((name) => {
    const variable = databaseVariable(name);
    const url = reader.read(variable, databaseUrl) ?? null;
    if (url !== null) {
      const owner = owners.get(databaseIdentity(url));
      if (owner !== undefined) reader.complain(`${variable} and ${owner} are the same database, and each replica needs one of its own. Create another database and set ${variable} to it.`);
      owners.set(databaseIdentity(url), variable);
    }
    return { url, session: readSessionUrl(reader, name, url) };
  });
  refuse(reader.problems);

  const all = names.map((name, index) => ({ name, url: `http://${reachable(shared.host)}:${base + index}` }));
  const replicas = names.map((name, index) =>
    Object.assign({}, shared, {
      name,
      slot: index + 1,
      port: base + index,
      databaseUrl: databases[index]?.url ?? null,
      sessionDatabaseUrl: databases[index]?.session ?? null,
      peers: all.filter((peer) => peer.name !== name),
    }),
  );
  return { replicas };
}

/**
 * Reads the configuration of the one replica of `npm run replica`.
 *
 * @throws ConfigError with every mistake.
 */
export function readReplicaConfig(env: Environment): ReplicaConfig {
  const reader = createReader(env);
  const name = reader.read('REPLICA', replicaName);
  if (name === undefined && reader.raw('REPLICA') === undefined) {
    reader.complain('REPLICA is not set, and a replica needs a name that its peers know it by. Set it, such as REPLICA=a.');
  }
  const ownPort = reader.read('PORT', port) ?? 8001;
  const shared = readShared(reader);
  const slot = reader.read('SLOT', wholeNumber) ?? placeOf(name);
  if (name !== undefined && slot === undefined && reader.raw('SLOT') === undefined) {
    reader.complain(`SLOT is not set, and only a name of one letter has a default (a 1, b 2, …); the name is "${name}". Set SLOT to a number from 1 to ${shared.stride} that no other replica uses.`);
  }
  if (slot !== undefined && (slot < 1 || slot > shared.stride)) {
    const origin = reader.raw('SLOT') === undefined ? `the slot of "${name}" is its place among the letters, ${slot}` : `SLOT is ${slot}`;
    reader.complain(`${origin}, and ID_STRIDE=${shared.stride} leaves the slots 1 to ${shared.stride}. Set SLOT to one of them, or a larger ID_STRIDE on every replica.`);
  }
  const peers = reader.read('PEERS', peerList) ?? [];
  if (name !== undefined && peers.some((peer) => peer.name === name)) {
    reader.complain(`PEERS names "${name}", which is this replica itself. Leave it out.`);
  }
  const url = reader.read('DATABASE_URL', databaseUrl) ?? null;
  const session = readSessionUrl(reader, null, url);
  refuse(reader.problems);
  // Past that, both are known.
  return { ...shared, name: name ?? '', slot: slot ?? 0, port: ownPort, databaseUrl: url, sessionDatabaseUrl: session, peers };
}

/** The variables that make one replica of a fleet the same replica on its own; those that do not apply are empty, over any `.env`. */
export function replicaEnvironment(config: ReplicaConfig): Record<string, string> {
  return {
    REPLICA: config.name,
    PORT: String(config.port),
    SLOT: String(config.slot),
    ID_STRIDE: String(config.stride),
    PEERS: config.peers.map((peer) => `${peer.name}=${peer.url}`).join(','),
    HOST: config.host,
    DATABASE_URL: config.databaseUrl ?? '',
    SESSION_DATABASE_URL: config.sessionDatabaseUrl ?? '',
    DATA_DIR: config.dataDir,
    SYNC_MODE: config.syncMode,
    CONFLICT_POLICY: config.conflictPolicy,
    CONFLICT_RETENTION: durationText(config.conflictRetention),
    TOMBSTONE_RETENTION: durationText(config.tombstoneRetention),
    PEER_SECRET: config.peerSecret ?? '',
  };
}

/** The variable that names a replica's database for `npm start`. */
export function databaseVariable(name: string): string {
  return `DATABASE_URL_${name.toUpperCase()}`;
}

type Shared = Omit<ReplicaConfig, 'name' | 'slot' | 'port' | 'databaseUrl' | 'sessionDatabaseUrl' | 'peers'>;

function readShared(reader: Reader): Shared {
  const shared = {
    stride: reader.read('ID_STRIDE', idStride) ?? 10,
    host: reader.read('HOST', hostName) ?? '127.0.0.1',
    dataDir: reader.read('DATA_DIR', dataFolder) ?? '.data',
    syncMode: reader.read('SYNC_MODE', syncMode) ?? 'manual',
    conflictPolicy: reader.read('CONFLICT_POLICY', conflictPolicy) ?? 'manual',
    conflictRetention: reader.read('CONFLICT_RETENTION', duration) ?? 90 * 86_400,
    tombstoneRetention: reader.read('TOMBSTONE_RETENTION', duration) ?? 30 * 86_400,
    peerSecret: reader.read('PEER_SECRET', secret) ?? null,
  };
  if (reader.raw('PEER_SECRET') === undefined && !isLoopback(shared.host)) {
    reader.complain(`HOST is "${shared.host}", which other machines can reach, and without PEER_SECRET anyone there could write as a peer. Set PEER_SECRET to the same long random text on every replica, or HOST=127.0.0.1.`);
  }
  return shared;
}

/** @param name - The replica's, with `npm start`. */
function readSessionUrl(reader: Reader, name: string | null, url: string | null): string | null {
  const of = name === null ? 'DATABASE_URL' : databaseVariable(name);
  const session = reader.read(`SESSION_${of}`, databaseUrl) ?? null;
  if (session !== null && url === null) {
    reader.complain(`SESSION_${of} is set, and ${of} is not: it is another address of that same database. Set ${of} as well, or neither.`);
  }
  return session;
}

function refuse(problems: readonly string[]): void {
  if (problems.length > 0) throw new ConfigError(problems);
}

/** a 1, b 2, …; undefined for any other name than a single letter. */
function placeOf(name: string | undefined): number | undefined {
  return name !== undefined && /^[A-Za-z]$/.test(name) ? name.toLowerCase().charCodeAt(0) - 96 : undefined;
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || /^127(\.\d{1,3}){3}$/.test(host);
}

/** An address at which a server that listens on `host` answers on this machine, as a URL holds it. */
function reachable(host: string): string {
  if (host === '0.0.0.0') return '127.0.0.1';
  if (host === '::') return '[::1]';
  return isIP(host) === 6 ? `[${host}]` : host;
}
