/**
 * Metrics in the Prometheus text format: one registry a replica, base units, no record's id as a label.
 *
 * What happens is counted as it happens, through the methods below. What is (pending changes, lag, consistency) is asked of a
 * source at each scrape, so that nothing has to be kept up to date between two of them.
 */
import type { Logger } from 'pino';
import { collectDefaultMetrics, Counter, Gauge, Histogram, Registry } from 'prom-client';

import type { Conflict, ConflictKind } from '../services/conflicts.ts';
import type { PeerStatus } from '../services/status.ts';

export type Resolution = NonNullable<Conflict['resolution']>;

/** What is read at each scrape. A question that fails leaves its gauges out of that scrape. */
export interface MetricsSource {
  /** Per peer: consistency (0 to 1, null until compared), pending changes, lag in seconds. */
  peers(): Promise<readonly Pick<PeerStatus, 'name' | 'pendingChanges' | 'lagSeconds' | 'consistency'>[]>;
  pendingConflicts(): Promise<number>;
  /** By model: records whose state cannot be shown in their table. */
  recordsWaiting(): Promise<ReadonlyMap<string, number>>;
  /** Records that no peer has confirmed since this database was restored to before what others have forgotten. */
  recordsSetAside(): Promise<number>;
  /** Records whose state holds a deletion that is not forgotten yet. */
  tombstones(): Promise<number>;
  /** Age in seconds of the oldest writing transaction, which holds the feed back; 0 when there is none. */
  fenceSeconds(): Promise<number>;
  /** Whether this gateway leads. */
  leading(): boolean;
}

/** What the replication side calls. None of it throws or waits. */
export interface Metrics {
  /** A peer is there from now on: its counters stand at 0. */
  peerJoined(peer: string): void;
  /** A peer was removed: nothing is told of it any more. */
  peerLeft(peer: string): void;
  /** One sync with a peer is over. */
  syncFinished(peer: string, outcome: 'success' | 'failure'): void;
  /** Records of a peer were taken over here. */
  recordsApplied(peer: string, count: number): void;
  conflictDetected(model: string, kind: ConflictKind): void;
  /** @param seconds - From detection to resolution. */
  conflictResolved(resolution: Resolution, seconds: number): void;
  /** @param seconds - The peer's clock less this one's, as last measured. */
  clockSkew(peer: string, seconds: number): void;
  /** Deletions that every replica holds were forgotten here. */
  tombstonesForgotten(count: number): void;
  readonly contentType: string;
  /** The text for `/metrics`. Never rejects because of the source. */
  scrape(): Promise<string>;
}

export interface MetricsOptions {
  /** Names of the known peers (more come with `peerJoined`) and models: their counters stand at 0 from the start, so that a first increase is seen as one. */
  readonly peers?: readonly string[];
  readonly models: readonly string[];
  readonly source: MetricsSource;
  readonly logger: Pick<Logger, 'warn'>;
}

const KINDS: readonly ConflictKind[] = ['UPDATE_UPDATE', 'UPDATE_DELETE', 'INSERT_INSERT', 'UNIQUE'];
const RESOLUTIONS: readonly Resolution[] = ['latest', 'field-wise', 'manual'];

/** A scrape gives up on the source before Prometheus gives up on the scrape (10 s unless told). */
const SOURCE_TIMEOUT_MS = 3_000;

/** Conflicts wait for milliseconds under a policy, and for days when a person decides. */
const RESOLUTION_BUCKETS = [0.01, 0.1, 1, 10, 60, 600, 3_600, 21_600, 86_400, 604_800];

export function createMetrics({ peers = [], models, source, logger }: MetricsOptions): Metrics {
  const registry = new Registry();
  const registers = [registry];
  collectDefaultMetrics({ register: registry });

  const syncs = new Counter({ name: 'replication_syncs_total', help: 'Completed syncs.', labelNames: ['peer', 'outcome'], registers });
  const applied = new Counter({
    name: 'replication_records_applied_total',
    help: 'Records of a peer that were taken over.',
    labelNames: ['peer'],
    registers,
  });
  const detected = new Counter({
    name: 'replication_conflicts_detected_total',
    help: 'Conflicts detected.',
    labelNames: ['model', 'kind'],
    registers,
  });
  const resolved = new Histogram({
    name: 'replication_conflict_resolution_seconds',
    help: 'From the detection of a conflict to its resolution; the sum over the count is the mean.',
    labelNames: ['resolution'],
    buckets: RESOLUTION_BUCKETS,
    registers,
  });
  const peerGauge = (name: string, help: string) => new Gauge({ name, help, labelNames: ['peer'], registers });
  const skew = peerGauge('replication_clock_skew_seconds', "The peer's clock less this one's.");
  const consistency = peerGauge('replication_consistency_ratio', 'Share of records that are the same here and on the peer.');
  const pendingChanges = peerGauge('replication_pending_changes', 'Records changed here that the peer has not acknowledged.');
  const lag = peerGauge('replication_lag_seconds', 'Age of the oldest change that the peer has not acknowledged.');
  const pendingConflicts = new Gauge({ name: 'replication_conflicts_pending', help: 'Conflicts that wait for a resolution.', registers });
  const leading = new Gauge({ name: 'replication_leading', help: '1 where this gateway leads the links of its replica to peers, 0 where another does.', registers });
  const waiting = new Gauge({
    name: 'replication_records_waiting',
    help: 'Records whose state cannot be shown in their table.',
    labelNames: ['model'],
    registers,
  });
  const setAside = new Gauge({ name: 'replication_records_set_aside', help: 'Records that no peer has confirmed since the database was restored.', registers });
  const tombstones = new Gauge({ name: 'replication_tombstones', help: 'Records whose deletion is still kept.', registers });
  const forgotten = new Counter({ name: 'replication_tombstones_collected_total', help: 'Deletions that were forgotten, since every replica held them.', registers });
  const fence = new Gauge({
    name: 'replication_feed_fence_seconds',
    help: 'Age of the oldest writing transaction, which holds the feed back.',
    registers,
  });

  const peerJoined = (peer: string): void => {
    for (const outcome of ['success', 'failure']) syncs.inc({ peer, outcome }, 0);
    applied.inc({ peer }, 0);
  };
  for (const peer of peers) peerJoined(peer);
  for (const model of models) {
    for (const kind of KINDS) detected.inc({ model, kind: kind.toLowerCase() }, 0);
  }
  for (const resolution of RESOLUTIONS) resolved.zero({ resolution });

  /** Values of an earlier scrape go first: a peer that is gone, or a source that fails, must not keep them. */
  const gauges: readonly { forget: () => void; read: () => Promise<void> }[] = [
    {
      forget: () => [consistency, pendingChanges, lag].forEach((gauge) => gauge.reset()),
      async read() {
        const statuses = await withTimeout(source.peers());
        for (const { name: peer, ...status } of statuses) {
          if (status.consistency !== null) consistency.set({ peer }, status.consistency);
          pendingChanges.set({ peer }, status.pendingChanges);
          lag.set({ peer }, status.lagSeconds);
        }
      },
    },
    {
      forget: () => pendingConflicts.remove(),
      read: async () => pendingConflicts.set(await withTimeout(source.pendingConflicts())),
    },
    {
      forget: () => waiting.reset(),
      async read() {
        for (const [model, records] of await withTimeout(source.recordsWaiting())) waiting.set({ model }, records);
      },
    },
    { forget: () => setAside.remove(), read: async () => setAside.set(await withTimeout(source.recordsSetAside())) },
    { forget: () => tombstones.remove(), read: async () => tombstones.set(await withTimeout(source.tombstones())) },
    { forget: () => fence.remove(), read: async () => fence.set(await withTimeout(source.fenceSeconds())) },
  ];

  return {
    peerJoined,
    peerLeft(peer) {
      for (const outcome of ['success', 'failure']) syncs.remove({ peer, outcome });
      applied.remove({ peer });
      skew.remove({ peer });
    },
    syncFinished: (peer, outcome) => syncs.inc({ peer, outcome }),
    recordsApplied: (peer, count) => applied.inc({ peer }, count),
    conflictDetected: (model, kind) => detected.inc({ model, kind: kind.toLowerCase() }),
    conflictResolved: (resolution, seconds) => resolved.observe({ resolution }, Math.max(0, seconds)),
    clockSkew: (peer, seconds) => skew.set({ peer }, seconds),
    tombstonesForgotten: (count) => forgotten.inc(count),
    contentType: registry.contentType,
    async scrape() {
      leading.set(source.leading() ? 1 : 0);
      for (const { forget } of gauges) forget();
      for (const result of await Promise.allSettled(gauges.map(({ read }) => read()))) {
        if (result.status === 'rejected') logger.warn({ err: result.reason }, 'a scrape could not read some of its gauges');
      }
      return registry.metrics();
    },
  };
}

async function withTimeout<T>(answer: Promise<T>): Promise<T> {
  let timer: NodeJS.Timeout | undefined;
  const late = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`no answer in ${SOURCE_TIMEOUT_MS} ms`)), SOURCE_TIMEOUT_MS);
  });
  try {
    return await Promise.race([answer, late]);
  } finally {
    clearTimeout(timer);
  }
}
