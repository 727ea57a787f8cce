/** Builds one replica out of its parts. Nothing else builds anything. */
import { fileURLToPath } from 'node:url';

import { PrismaPg } from '@prisma/adapter-pg';

import type { ReplicaConfig } from './config.ts';
import { PrismaClient } from './generated/prisma/client.ts';
import { createGraphQL } from './graphql/server.ts';
import { replicatedModels } from './models.ts';
import { createPeerClient } from './peers/client.ts';
import { createPeerEndpoint } from './peers/endpoint.ts';
import { createRest } from './rest/app.ts';
import { createServer } from './server.ts';
import { createAsides } from './services/asides.ts';
import { createCollector } from './services/collector.ts';
import { createComparison } from './services/comparison.ts';
import { createConflicts } from './services/conflicts.ts';
import { parse, updateUserInput } from './services/input.ts';
import { ServiceError } from './services/errors.ts';
import { createIntroductions } from './services/introductions.ts';
import { CALM, createKeeper, LIVE } from './services/keeper.ts';
import { createLeadership } from './services/leadership.ts';
import { createNotices } from './services/notices.ts';
import { createPeering } from './services/peering.ts';
import { createRecords } from './services/records.ts';
import { createRetention } from './services/retention.ts';
import { createRoster } from './services/roster.ts';
import { createStatus } from './services/status.ts';
import { createSync } from './services/sync.ts';
import { createUserRows } from './services/user-rows.ts';
import { createUsers } from './services/users.ts';
import { forgetSeen, nameAddresses } from './storage/addresses.ts';
import { applyConstraints } from './storage/constraints.ts';
import { createPlans, openDatabase, withSession } from './storage/database.ts';
import { openEmbedded } from './storage/embedded.ts';
import { openSeat } from './storage/leadership.ts';
import { migrate } from './storage/migrate.ts';
import { applyPolicy } from './storage/present.ts';
import { openReplica } from './storage/replica.ts';
import type { ModelSource } from './storage/tables.ts';
import type { Logger } from './telemetry/log.ts';
import { createMetrics } from './telemetry/metrics.ts';

export interface RunningReplica {
  /** `http://127.0.0.1:8001` */
  readonly url: string;
  close(): Promise<void>;
}

export interface StartOptions {
  readonly log: Logger;
  /** Told what is being done while it takes its time. */
  onProgress(message: string): void;
  /** What is replicated, and the folder of the migrations that make its tables; what `prisma/` says unless given. */
  readonly schema?: { readonly models: readonly ModelSource[]; readonly migrations: string };
}

const MIGRATIONS = fileURLToPath(new URL('../prisma/migrations', import.meta.url));
/** Connections for the models, straight and through Prisma, and for replication; PostgreSQL allows 100 in all unless told otherwise. */
const MODEL_CONNECTIONS = 10;
const PRISMA_CONNECTIONS = 5;
const REPLICATION_CONNECTIONS = 8;
/**
 * Apart from the others, which may all be waiting for a row: a write that holds the row, and looks its version up before it goes on, must not wait for them in turn.
 */
const LOOKUP_CONNECTIONS = 4;

/**
 * Starts one replica: its database (an embedded one where none is given), migrated and captured, and its server.
 *
 * @throws EmbeddedError, MigrationError, IdentityError, or the error of the database or the socket. What was started until then is stopped again.
 */
export async function startReplica(config: ReplicaConfig, options: StartOptions): Promise<RunningReplica> {
  const closers: (() => Promise<void>)[] = [];
  const close = async (): Promise<void> => {
    while (closers.length > 0) await closers.pop()?.();
  };
  try {
    return { url: await build(config, options, closers), close };
  } catch (error) {
    await close().catch((failure: unknown) => options.log.error({ err: failure }, 'could not stop what was started'));
    throw error;
  }
}

/** Adds to `closers` what is to be closed, last first. */
async function build(config: ReplicaConfig, { log, onProgress, schema }: StartOptions, closers: (() => Promise<void>)[]): Promise<string> {
  const { name, slot, stride, peers, peerSecret } = config;
  const live = config.syncMode === 'continuous';
  let url = config.databaseUrl;
  if (url === null) {
    const embedded = await openEmbedded({ dataDir: config.dataDir, name, onProgress });
    closers.push(embedded.close);
    url = embedded.url;
  }

  const sessionUrl = config.sessionDatabaseUrl ?? url;

  const onIdleError = (error: Error): void => log.warn({ err: error }, 'a connection to the database broke');
  const plans = createPlans();
  const db = openDatabase(url, { size: REPLICATION_CONNECTIONS, onError: onIdleError, plans });
  closers.push(db.close);
  const lookups = openDatabase(url, { size: LOOKUP_CONNECTIONS, onError: onIdleError, plans });
  closers.push(lookups.close);
  const models = openDatabase(url, { size: MODEL_CONNECTIONS, onError: onIdleError, plans, prepares: true });
  closers.push(models.close);
  const { applied } = await withSession(sessionUrl, (client) => migrate(client, schema?.migrations ?? MIGRATIONS));
  if (applied.length > 0) onProgress(`migrated: ${applied.join(', ')}`);

  const prisma = new PrismaClient({
    adapter: new PrismaPg({ connectionString: url, max: PRISMA_CONNECTIONS }, { onPoolError: onIdleError, onConnectionError: onIdleError }),
  });
  closers.push(() => prisma.$disconnect());

  const replica = await openReplica(db, {
    name,
    slot,
    stride,
    policy: config.conflictPolicy,
    models: schema?.models ?? replicatedModels(prisma),
    report: (problem) => log.warn(problem),
  });
  const notices = createNotices();
  const policyChanges = await applyPolicy(replica, notices.conflicts);
  await applyConstraints(replica, notices.conflicts);
  if (policyChanges) log.info(`conflicts are shown under CONFLICT_POLICY ${replica.policy} from now on`);

  const keeper = createKeeper(replica, notices, live ? LIVE : CALM, (error) => log.warn({ err: error }, 'folding captured writes failed; it is tried again'));
  closers.push(keeper.close);

  const leadership = await createLeadership({
    open: () => openSeat(sessionUrl),
    // Where nobody was there to look at the peers, nothing is known of them.
    onLeading: async ({ first }) => void (first && (await forgetSeen(db))),
    onError: (message, error) => log.warn(error === undefined ? {} : { err: error }, message),
    random: Math.random,
  });
  closers.push(leadership.close);
  const introductions = createIntroductions(replica, {
    skew: (peer, seconds) => metrics.clockSkew(peer, seconds),
    warn: (message) => log.warn(message),
  });
  const sync = createSync({
    replica,
    connect: (address) => createPeerClient({ ...address, secret: peerSecret }),
    leadership,
    introductions,
    keeper,
    notices,
    live,
    random: Math.random,
    events: {
      finished: (peer, outcome) => metrics.syncFinished(peer, outcome),
      joined: (peer) => metrics.peerJoined(peer),
      left: (peer) => metrics.peerLeft(peer),
      applied: (peer, records) => metrics.recordsApplied(peer, records),
      failed(error, what) {
        // A failure with a code says all there is to say; any other is a fault of ours.
        if (error instanceof ServiceError) log.warn(`${what} failed: ${error.message}`);
        else log.warn({ err: error }, `${what} failed`);
      },
    },
  });
  closers.push(sync.close);

  const comparison = createComparison({ replica, keeper, notices, clientOf: sync.clientOf, syncTo: sync.syncTo });
  const retention = createRetention(replica, config.conflictRetention, (error) => log.warn({ err: error }, 'deleting old conflicts from the log failed; it is tried again'));
  closers.push(leadership.onLead(retention.start));

  const status = createStatus(replica, () => leadership.leading, config.conflictRetention);
  const collecting = leadership.onLead(() => {
    const collector = createCollector({
      replica,
      retention: config.tombstoneRetention,
      exchange: sync.exchange,
      onCollected: ({ forgotten }) => metrics.tombstonesForgotten(forgotten),
      onError: (error) => log.warn({ err: error }, 'dropping tombstones failed; it is tried again'),
    });
    return collector.close;
  });
  closers.push(collecting);

  const records = createRecords({ ...replica, db: lookups }, keeper);
  const conflicts = createConflicts({
    replica,
    keeper,
    notices,
    parsers: { User: (values) => ({ ...parse(updateUserInput, values, 'values') }) as Record<string, string | null> },
    deliver: sync.deliver,
  });
  const users = createUsers({
    prisma,
    rows: createUserRows(models),
    db: models,
    keeper,
    look: (keys) => records.look('User', keys),
  });
  const peering = createPeering({ replica, status, channels: sync.channels, secret: peerSecret });
  const roster = createRoster(replica, peerSecret);
  const asides = createAsides(replica, keeper);
  const services = { users, records, conflicts, asides, sync, comparison, peering, roster, status };

  const metrics = createMetrics({
    models: [...replica.tables.keys()],
    source: { ...status, recordsSetAside: asides.count },
    logger: log,
  });
  notices.onConflicts(({ detected, resolved }) => {
    for (const { model, kind } of detected) metrics.conflictDetected(model, kind);
    for (const { strategy, seconds } of resolved) metrics.conflictResolved(strategy, seconds);
  });

  await nameAddresses(db, peers);
  await sync.channels.start();

  let stopping = false;
  const server = createServer({
    graphql: createGraphQL({ services, prisma, logger: log }),
    rest: createRest({ services, metrics, logger: log }),
    peerEndpoint: createPeerEndpoint({
      handlers: { ...sync.handlers, ...comparison.handlers },
      secret: peerSecret,
      onError(error, path) {
        // What outlives the time a stop gives it finds the database closed, and its caller gone.
        if (stopping) log.warn({ err: error }, `answering ${path} was broken off, since this replica stops`);
        else log.error({ err: error }, `answering ${path} failed`);
      },
    }),
    logger: log,
  });
  closers.push(async () => {
    stopping = true;
    await server.close();
  });
  const { port } = await server.listen(config.port, config.host);
  return `http://${config.host.includes(':') ? `[${config.host}]` : config.host}:${port}`;
}

