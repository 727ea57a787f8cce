/**
 * Histories that broke an earlier wording of the design, each the shortest known. Unless said otherwise the replicas hold one record, `r`, with
 * the fields f1 and f2, and write to it.
 */
import { describe, expect, it } from 'vitest';

import { isConflict } from '../../src/replication/conflict.ts';
import { merge, sameState } from '../../src/replication/merge.ts';
import type { Policy } from '../../src/replication/policy.ts';
import { rosterClash, type RosterMember } from '../../src/replication/protocol.ts';
import { replicaName, stampOf, type Version } from '../../src/replication/version.ts';
import type { World } from '../support/world.ts';
import { divergence, misjudged, settle, syncAll, worldOf } from './steps.ts';

const CHAIN = 'chain';

/** A world in which all hold the record. */
function holding(...policies: Policy[]): World {
  const world = worldOf(policies);
  world.write('a', { f1: '0', f2: '0' });
  settle(world);
  return world;
}

/** Comes to rest, and tells the values that are left, in order. */
function rest(world: World, topology: 'mesh' | 'chain' = 'mesh'): string[] {
  settle(world, topology);
  expect(divergence(world)).toBeNull();
  expect(misjudged(world)).toBeNull();
  expect(syncAll(world, topology)).toBe(0);
  const values = world.state('a').map(({ fields }) => (fields === null ? 'deleted' : `${fields['f1']},${fields['f2']}`));
  return [...new Set(values)].toSorted();
}

describe('deliveries', () => {
  it('lost-ack-does-not-starve-the-sender', () => {
    const world = holding('manual', 'manual');
    world.write('a', { f1: 'x' });
    world.write('b', { f1: 'y' });
    world.sync('a', 'b', { fates: ['answer lost'] });
    expect(world.sync('b', 'a')).toBe(1);
    expect(rest(world)).toEqual(['x,0', 'y,0']);
  });

  it('third-replica-in-a-chain-gets-every-side', () => {
    const world = holding('manual', 'manual', 'manual', 'manual');
    world.write('b', { f1: 'x' });
    world.write('d', null);
    expect(rest(world, CHAIN)).toEqual(['deleted', 'x,0']);
  });

  it('pipelined-batch-lost-stops-the-checkpoint', () => {
    const world = worldOf(['manual', 'manual']);
    world.write('a', { f1: '1' }, 'r');
    world.write('a', { f1: '2' }, 's');
    world.sync('a', 'b', { limit: 1, fates: ['batch lost', 'arrives'] });
    expect(world.state('b', 's')).toEqual([]);
    expect(world.sync('a', 'b')).toBe(2);
    expect(divergence(world)).toBeNull();
  });

  it('pipelined-batch-lost-stops-the-checkpoint across a restart', () => {
    const world = worldOf(['manual', 'manual']);
    world.write('a', { f1: '1' }, 'r');
    world.write('a', { f1: '2' }, 's');
    const [, second] = world.prepare('a', 'b', 1);
    world.restart('a');
    expect(second && world.deliver(second)).toBeNull();
    world.restart('b');
    expect(second && world.deliver(second)).toBeNull();
    settle(world);
    expect(world.row('b', 'r')).toMatchObject({ f1: '1' });
  });

  it('a batch that comes twice is refused the second time', () => {
    const world = holding('manual', 'manual');
    world.write('a', { f1: 'x' });
    const [batch] = world.prepare('a', 'b');
    expect(batch && world.deliver(batch)).not.toBeNull();
    expect(batch && world.deliver(batch)).toBeNull();
  });
});

describe('equal values and policies', () => {
  it('equal-values-overwritten-on-both-sides-leave-no-third-side', () => {
    const world = holding('manual', 'manual', 'manual');
    world.write('a', { f1: 'x' });
    world.write('b', { f1: 'x' });
    world.sync('a', 'c');
    world.write('a', { f1: 'new1' });
    world.sync('b', 'c', { fates: ['answer lost'] });
    world.write('b', { f1: 'new2' });
    expect(rest(world)).toEqual(['new1,0', 'new2,0']);
  });

  it('merge-is-associative-with-equal-values', () => {
    const world = worldOf(['manual', 'manual', 'manual']);
    world.write('a', { f1: 'x' });
    world.write('c', { f1: 'x' });
    const [a, b] = [world.state('a'), world.state('c')];
    world.write('c', { f1: 'v2' });
    const c = world.state('c');
    expect(sameState(merge(merge(a, b), c), merge(a, merge(b, c)))).toBe(true);
  });

  it.each<Policy>(['manual', 'latest', 'field-wise'])('edit-then-delete-against-delete-stays-dead under %s', (policy) => {
    const world = holding(policy, policy, policy);
    world.write('a', null);
    world.write('c', { f1: 'v3' });
    world.state('c');
    world.write('c', null);
    expect(rest(world)).toEqual(['deleted']);
    expect(world.row('b')).toBeNull();
  });

  it('policy-never-conflicts-with-its-own-old-value', () => {
    const world = holding('latest', 'latest', 'latest');
    world.write('b', { f2: 'b' });
    world.write('c', { f1: 'old' });
    world.sync('c', 'a');
    world.write('c', { f1: 'new' });
    const values = rest(world);
    expect(values).toEqual(['0,b', 'new,0']);
    expect(world.row('a')).toEqual({ f1: 'new', f2: '0' });
  });

  it('rejected-value-does-not-return', () => {
    const world = holding('manual', 'manual', 'manual');
    world.write('b', { f2: 'bad' });
    world.sync('b', 'c');
    world.write('a', { f1: 'good' });
    world.sync('b', 'a');
    world.decide('a', 'latest');
    expect(world.row('a')).toEqual({ f1: 'good', f2: '0' });
    world.write('c', { f1: 'c1' });
    world.sync('c', 'a');
    world.decide('a', 'field-wise');
    expect(rest(world)).toEqual(['c1,0']);
  });

  it('mixed-policies-keep-equal-states', () => {
    const world = holding('latest', 'field-wise');
    world.write('a', null);
    world.write('b', null);
    expect(rest(world)).toEqual(['deleted']);
  });

  it('own-side-survives-a-newer-third-side', () => {
    const world = holding('manual', 'manual', 'manual');
    world.write('b', { f1: 'x' });
    world.sync('b', 'c', { fates: ['answer lost'] });
    world.write('c', { f1: 'v2' });
    world.sync('c', 'b');
    world.write('a', { f2: 'a' });
    world.sync('a', 'b');
    expect(world.row('b')).toMatchObject({ f1: 'v2', f2: '0' });
    world.write('b', { f1: 'b2' });
    expect(rest(world)).toEqual(['0,a', 'b2,0']);
  });

  it('policy-changed-to-manual-does-not-cover-its-own-side', () => {
    const world = holding('latest', 'manual');
    world.write('a', { f1: 'x' });
    world.write('b', { f1: 'y' });
    world.sync('b', 'a');
    expect(world.row('a')).toMatchObject({ f1: 'y' });
    world.setPolicy('a', 'manual');
    world.write('a', { f2: 'a' });
    expect(rest(world)).toEqual(['x,a', 'y,0']);
  });

  it('a write captured under manual does not cover, under latest, what it had not seen', () => {
    const world = holding('manual', 'manual');
    world.write('a', { f1: 'x' });
    world.write('b', { f1: 'y' });
    world.sync('b', 'a');
    world.write('a', { f2: 'a' });
    world.setPolicy('a', 'latest');
    expect(rest(world)).toEqual(['x,a', 'y,0']);
  });
});

describe('restores', () => {
  it('restored-replica-gets-its-writes-back', () => {
    const world = holding('manual', 'manual');
    const backup = world.backup('a');
    world.write('a', { f1: 'x' });
    world.sync('a', 'b');
    world.restore('a', backup);
    expect(world.sync('b', 'a')).toBe(1);
    expect(rest(world)).toEqual(['x,0']);
  });

  it('write-before-first-handshake-after-restore', () => {
    const world = holding('manual', 'manual');
    const backup = world.backup('a');
    world.write('a', { f1: 'x' });
    world.sync('a', 'b');
    world.restore('a', backup);
    world.write('a', { f1: 'z' });
    world.sync('a', 'b');
    expect(rest(world)).toEqual(['x,0', 'z,0']);
  });

  it('write-before-first-handshake-after-restore-through-a-third-replica', () => {
    const world = holding('manual', 'manual', 'manual');
    const backup = world.backup('a');
    world.write('a', { f1: 'x' });
    world.sync('a', 'b');
    world.restore('a', backup);
    world.write('a', { f1: 'z' });
    world.sync('a', 'c');
    world.write('c', { f2: 'c' });
    world.sync('c', 'b');
    expect(rest(world)).toEqual(['x,0', 'z,c']);
  });

  it('batch-built-for-a-lost-incarnation-is-refused', () => {
    const world = worldOf(['manual', 'manual']);
    world.write('a', { f1: 'a' }, 's');
    settle(world);
    const backup = world.backup('b');
    world.write('b', { f1: 'x' });
    world.sync('b', 'a');
    const [batch] = world.prepare('a', 'b');
    world.restore('b', backup);
    // It withholds what b had sent itself, and has lost.
    expect(batch?.records).toEqual([]);
    expect(batch && world.deliver(batch)).toBeNull();
    expect(rest(world)).toEqual(['x,']);
  });

  it('place-passed-in-a-lost-history-is-sent-again', () => {
    const world = worldOf(['manual', 'manual']);
    world.write('a', { f1: '1' }, 'r');
    world.state('a', 'r');
    world.write('a', { f1: '1' }, 's');
    world.state('a', 's');
    const backup = world.backup('a');
    // r moves behind s: b takes s, whose place the backup knows, and r never comes.
    world.write('a', { f1: '2' }, 'r');
    world.sync('a', 'b', { limit: 1, fates: ['arrives', 'batch lost'] });
    expect(world.row('b', 's')).not.toBeNull();
    world.restore('a', backup);
    expect(rest(world)).toEqual(['1,']);
  });

  it('answer-to-a-lost-history-is-no-acknowledgement', () => {
    const world = worldOf(['manual', 'manual']);
    world.write('a', { f1: '1' }, 'r');
    world.state('a', 'r');
    world.write('a', { f1: '1' }, 's');
    world.state('a', 's');
    const backup = world.backup('a');
    world.write('a', { f1: '2' }, 'r');
    const [first] = world.prepare('a', 'b', 1);
    const answer = first ? world.deliver(first) : null;
    world.restore('a', backup);
    if (answer) world.take(answer);
    expect(rest(world)).toEqual(['1,']);
  });
});

describe('records that cannot be shown', () => {
  it('set-aside-record-passes-through-a-chain', () => {
    const world = holding('manual', 'manual', 'manual');
    world.block('b');
    world.write('a', { f1: 'x' });
    settle(world, CHAIN);
    expect(world.row('b')).toMatchObject({ f1: '0' });
    expect(world.row('c')).toMatchObject({ f1: 'x' });
    world.unblock('b');
    expect(rest(world, CHAIN)).toEqual(['x,0']);
  });

  it.each<Policy>(['manual', 'latest', 'field-wise'])('a write to a row that waits covers nothing that it did not show, under %s', (policy) => {
    const world = holding(policy, policy);
    world.block('a');
    world.write('b', { f1: 'x' });
    world.sync('b', 'a');
    world.write('a', { f2: 'a' });
    expect(isConflict(world.state('a'))).toBe(true);
    world.unblock('a');
    expect(rest(world)).toEqual(['0,a', 'x,0']);
  });

  it('nor does the write after it, while the record goes on waiting', () => {
    const world = holding('field-wise', 'field-wise');
    world.block('a');
    world.write('b', { f1: 'x' });
    world.sync('b', 'a');
    world.write('a', { f2: 'a' });
    world.state('a');
    world.write('a', { f2: 'a2' });
    world.state('a');
    world.unblock('a');
    expect(rest(world)).toEqual(['0,a2', 'x,0']);
  });

  it('and stamps no value of its row with the stamp of one that was passed over', () => {
    const world = holding('latest', 'latest');
    world.write('b', { f1: 'x', f2: 'x' });
    world.write('a', { f1: 'a' });
    world.sync('b', 'a');
    // The row shows a's side alone, and goes on showing it.
    world.block('a');
    world.write('b', { f1: 'x2' });
    world.sync('b', 'a');
    world.write('a', { f1: 'a2' });
    // b's value of f2 was passed over: it must not come back from its stamp.
    const written = world.state('a').find(({ fields }) => fields?.['f1'] === 'a2') as Version;
    expect(written.fields?.['f2']).toBe('0');
    expect(replicaName(stampOf(written, 'f2')[0])).toBe('a');
  });

  it('an outcome that cannot be shown is no resolution', () => {
    const world = holding('field-wise', 'manual');
    world.write('a', { f1: 'x' });
    world.write('b', { f2: 'y' });
    world.sync('b', 'a');
    world.block('a');
    expect(world.decide('a', { values: { f1: 'z' } })).toBe(false);
    world.unblock('a');
    expect(rest(world)).toEqual(['0,y', 'x,0']);
  });
});

function member(id: number, name: string, slot: number): RosterMember {
  return { id: `00000000-0000-4000-8000-00000000000${id}`, name, slot, stride: 10 };
}

it('same-slot-or-name-at-chain-ends-is-refused', () => {
  const [a, b] = [member(1, 'a', 1), member(2, 'b', 2)];
  // b knows a; the other end of the chain says that it is a too, or has a's slot.
  expect(rosterClash([a, b], [b, member(3, 'a', 3)])).toMatch('two replicas are named "a"');
  expect(rosterClash([a, b], [b, member(3, 'c', 1)])).toMatch('"a" and "c" both use SLOT 1');
  expect(rosterClash([a, b], [b, member(3, 'c', 3)])).toBeNull();
});
