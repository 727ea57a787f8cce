import { describe, expect, it } from 'vitest';

import { createMetrics, type MetricsSource } from '../../src/telemetry/metrics.ts';

const setup = (source: Partial<MetricsSource> = {}) => {
  const warned: unknown[] = [];
  const metrics = createMetrics({
    peers: ['b', 'c'],
    models: ['User'],
    source: {
      peers: async () => [
        { name: 'b', pendingChanges: 3, lagSeconds: 1.5, consistency: 0.25 },
        { name: 'c', pendingChanges: 0, lagSeconds: 0, consistency: null },
      ],
      pendingConflicts: async () => 7,
      recordsWaiting: async () => new Map([['User', 2]]),
      fenceSeconds: async () => 0.5,
      leading: () => true,
      recordsSetAside: async () => 1,
      tombstones: async () => 9,
      ...source,
    },
    logger: { warn: (...message: unknown[]) => void warned.push(message) },
  });
  const samples = async (): Promise<string[]> =>
    (await metrics.scrape()).split('\n').filter((line) => line.startsWith('replication_') && !line.includes('_bucket'));
  return { metrics, warned, samples };
};

describe('the metrics', () => {
  it('stand at nought from the start for what is known, and show what the source says', async () => {
    const { samples } = setup();
    expect((await samples()).toSorted()).toEqual(
      [
        'replication_leading 1',
        'replication_syncs_total{peer="b",outcome="success"} 0',
        'replication_syncs_total{peer="b",outcome="failure"} 0',
        'replication_syncs_total{peer="c",outcome="success"} 0',
        'replication_syncs_total{peer="c",outcome="failure"} 0',
        'replication_records_set_aside 1',
        'replication_tombstones 9',
        'replication_tombstones_collected_total 0',
        'replication_records_applied_total{peer="b"} 0',
        'replication_records_applied_total{peer="c"} 0',
        'replication_conflicts_detected_total{model="User",kind="update_update"} 0',
        'replication_conflicts_detected_total{model="User",kind="update_delete"} 0',
        'replication_conflicts_detected_total{model="User",kind="insert_insert"} 0',
        'replication_conflicts_detected_total{model="User",kind="unique"} 0',
        ...['latest', 'field-wise', 'manual'].flatMap((resolution) => [
          `replication_conflict_resolution_seconds_sum{resolution="${resolution}"} 0`,
          `replication_conflict_resolution_seconds_count{resolution="${resolution}"} 0`,
        ]),
        'replication_consistency_ratio{peer="b"} 0.25',
        'replication_pending_changes{peer="b"} 3',
        'replication_pending_changes{peer="c"} 0',
        'replication_lag_seconds{peer="b"} 1.5',
        'replication_lag_seconds{peer="c"} 0',
        'replication_conflicts_pending 7',
        'replication_records_waiting{model="User"} 2',
        'replication_feed_fence_seconds 0.5',
      ].toSorted(),
    );
  });

  it('count what happens', async () => {
    const { metrics, samples } = setup();
    metrics.syncFinished('b', 'success');
    metrics.syncFinished('b', 'failure');
    metrics.syncFinished('b', 'failure');
    metrics.recordsApplied('c', 40);
    metrics.conflictDetected('User', 'UPDATE_DELETE');
    metrics.conflictResolved('manual', 12.5);
    metrics.conflictResolved('manual', -1);
    metrics.clockSkew('b', -0.25);
    expect(await samples()).toEqual(
      expect.arrayContaining([
        'replication_syncs_total{peer="b",outcome="success"} 1',
        'replication_syncs_total{peer="b",outcome="failure"} 2',
        'replication_records_applied_total{peer="c"} 40',
        'replication_conflicts_detected_total{model="User",kind="update_delete"} 1',
        'replication_conflict_resolution_seconds_sum{resolution="manual"} 12.5',
        'replication_conflict_resolution_seconds_count{resolution="manual"} 2',
        'replication_clock_skew_seconds{peer="b"} -0.25',
      ]),
    );
  });

  it('leave out what cannot be read now, rather than show what was read before', async () => {
    let broken = false;
    const { warned, samples } = setup({
      peers: async () => (broken ? [] : [{ name: 'gone', pendingChanges: 1, lagSeconds: 1, consistency: 1 }]),
      pendingConflicts: async () => {
        if (broken) throw new Error('no database');
        return 1;
      },
    });
    expect(await samples()).toEqual(expect.arrayContaining(['replication_consistency_ratio{peer="gone"} 1', 'replication_conflicts_pending 1']));
    broken = true;
    const after = (await samples()).join('\n');
    expect(after).not.toMatch(/gone|replication_conflicts_pending/);
    expect(after).toContain('replication_feed_fence_seconds 0.5');
    expect(warned).toHaveLength(1);
  });

  it('include those of the process', async () => {
    const { metrics } = setup();
    expect(await metrics.scrape()).toContain('process_cpu_seconds_total');
    expect(metrics.contentType).toContain('text/plain');
  });
});
