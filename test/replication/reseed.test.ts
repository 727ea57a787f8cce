/** A replica is restored to before what others have forgotten: it keeps what was written since, and what nobody confirms is set aside. */
import { describe, expect, it } from 'vitest';

import { isConflict } from '../../src/replication/conflict.ts';
import { KEY, type World } from '../support/world.ts';
import { collectAll, collectAllOf, holding, isHeld, spread, values } from './collecting.ts';
import { divergence, settle, worldOf } from './steps.ts';

it('restore-across-gc', () => {
  const world = worldOf(['manual', 'manual']);
  world.write('a', { f1: '0' });
  spread(world);
  world.write('a', { f1: 'x' });
  // As far as the backup knows, b has not taken it.
  const backup = world.backup('a');
  spread(world);
  world.write('b', null);
  spread(world);
  world.collect('b');
  spread(world);
  world.collect('b');
  expect(isHeld(world, 'b')).toBe(false);
  world.restore('a', backup);
  world.write('a', { f1: 'since' }, 's');
  world.sync('a', 'b');
  expect([world.row('b'), world.row('b', 's')]).toEqual([null, { f1: 'since', f2: '' }]);
  expect(world.row('a')).toBeNull();
  // Nothing is lost in silence: what nobody confirms is kept aside.
  expect(world.replica('a').database.aside.get(KEY)?.map(({ fields }) => fields?.['f1'])).toEqual(['x']);
  collectAll(world);
  expect(divergence(world)).toBeNull();
});

it('restore-across-gc, where the row is written to before anybody was met', () => {
  const world = holding(2);
  const backup = world.backup('a');
  world.write('b', null);
  collectAll(world);
  world.restore('a', backup);
  world.write('a', { f2: 'since' });
  spread(world);
  for (const name of ['a', 'b']) expect(values(world, name)).toEqual(['0,since']);
  expect(isConflict(world.state('a'))).toBe(false);
});

it('restore-across-gc, where the record is written anew by who has seen it deleted', () => {
  const world = holding(2);
  world.write('b', { f1: 'kept' }, 's');
  world.write('a', { f1: 'y' });
  world.write('b', { f1: 'x' });
  spread(world);
  world.write('a', null);
  spread(world);
  const backup = world.backup('a');
  world.write('b', null, 's');
  collectAll(world);
  world.restore('a', backup);
  // a begins anew, and the deletion of its side is not confirmed yet.
  world.sync('a', 'b');
  world.write('a', { f1: 'anew' });
  spread(world);
  expect(values(world)).toEqual(['anew,', 'x,0']);
});

it('a deletion that nobody has confirmed holds against who was restored to before it', () => {
  const world = holding(2);
  const before = world.backup('b');
  world.write('b', { f1: 'kept' }, 's');
  world.write('a', null);
  spread(world);
  const after = world.backup('a');
  // Something for a to know of, so that the backup is older than what b relies on.
  world.write('b', { f1: 'more' }, 's');
  spread(world);
  world.restore('a', after);
  world.collect('b');
  // a begins anew, and sets the deletion aside; then b, which has dropped it, goes back to before it.
  world.sync('a', 'b');
  world.restore('b', before);
  spread(world);
  for (const name of ['a', 'b']) expect(world.row(name)).toBeNull();
  collectAll(world);
  expect(divergence(world)).toBeNull();
});

it('the table of who was restored across a collection is not emptied by a newcomer that has nothing', () => {
  const world = holding(2);
  const backup = world.backup('a');
  world.write('b', null);
  world.write('b', { f1: 'kept' }, 's');
  collectAll(world);
  world.restore('a', backup);
  world.sync('a', 'b');
  world.add('c', 'manual');
  world.sync('a', 'c');
  world.sync('c', 'a');
  expect(world.row('a')).toEqual({ f1: '0', f2: '0' });
  spread(world);
  for (const name of ['a', 'b', 'c']) expect([world.row(name), world.row(name, 's')?.['f1']]).toEqual([null, 'kept']);
});

it('what peers still have comes back to who was restored across a collection', () => {
  const world = holding(3, 'chain');
  world.write('c', { f1: 'kept' }, 's');
  spread(world, 'chain');
  const backup = world.backup('b');
  world.write('c', null);
  collectAll(world, 'chain');
  world.restore('b', backup);
  spread(world, 'chain');
  for (const name of ['a', 'b', 'c']) expect([world.row(name), world.row(name, 's')?.['f1']]).toEqual([null, 'kept']);
  expect([...world.replica('b').database.aside.keys()]).toEqual([KEY]);
  expect(divergence(world)).toBeNull();
});

it('two that are restored across a collection at once keep nothing dead, and lose nothing in silence', () => {
  const world = holding(3);
  world.write('c', { f1: 'kept' }, 's');
  spread(world);
  const backups = ['a', 'b'].map((name) => [name, world.backup(name)] as const);
  world.write('c', null);
  collectAll(world);
  for (const [name, backup] of backups) world.restore(name, backup);
  world.sync('a', 'b');
  world.sync('b', 'a');
  spread(world);
  for (const name of ['a', 'b', 'c']) expect([world.row(name), world.row(name, 's')?.['f1']]).toEqual([null, 'kept']);
  collectAll(world);
  expect(divergence(world)).toBeNull();
});

it('an answer to a history that was lost is not taken, though as much was forgotten since the restore as before it', () => {
  const world = holding(2);
  const backup = world.backup('a');
  world.write('b', { f1: 'x' }, 's');
  world.write('a', { f1: 'y' }, 's');
  const [batch] = world.prepare('a', 'b');
  const answer = batch ? world.deliver(batch) : null;
  expect(answer?.records.length).toBe(1);
  world.restore('a', backup);
  if (answer) world.take(answer);
  expect(world.state('a', 's')).toEqual([]);
  // b's own feed brings the same.
  settle(world);
  expect(isConflict(world.state('a', 's'))).toBe(true);
});

/** a is restored to before b's deletion, which b has forgotten, and a newcomer c takes its feed before either has met b. */
function seededByTheDead(): World {
  const world = holding(2);
  const backup = world.backup('a');
  world.write('b', null);
  world.write('b', { f1: 'kept' }, 's');
  collectAll(world);
  world.restore('a', backup);
  world.write('a', { f1: 'since' }, 't');
  world.add('c', 'manual');
  world.sync('a', 'c');
  world.write('c', { f1: 'own' }, 'u');
  expect(world.row('c')).toEqual({ f1: '0', f2: '0' });
  return world;
}

function expectNothingDead(world: World): void {
  spread(world);
  for (const { name } of world.replicas) {
    expect([world.row(name), ...['s', 't', 'u'].map((key) => world.row(name, key)?.['f1'])]).toEqual([null, 'kept', 'since', 'own']);
  }
  expect(world.replica('c').database.aside.get(KEY)?.length).toBe(1);
  collectAll(world);
  expect(divergence(world)).toBeNull();
}

/** c gives b what a had, which b and whoever it met have forgotten: nobody takes it up, and in the end nobody has it. */
function expectNotBroughtBack(world: World): void {
  world.sync('c', 'b');
  expect(world.row('b')).toBeNull();
  spread(world);
  for (const { name } of world.replicas) expect(world.row(name)).toBeNull();
}

describe('newcomer-takes-the-feed-of-who-was-restored-across-gc', () => {
  it('and meets who forgot first', () => {
    const world = seededByTheDead();
    world.sync('c', 'b');
    expect(world.row('b')).toBeNull();
    expectNothingDead(world);
  });

  it('and is told by the restored replica', () => {
    const world = seededByTheDead();
    world.sync('a', 'b');
    world.sync('c', 'a');
    expect(world.state('a')).toEqual([]);
    world.sync('c', 'b');
    expect(world.row('b')).toBeNull();
    expectNothingDead(world);
  });

  it('and another newcomer takes its own', () => {
    const world = seededByTheDead();
    world.add('d', 'manual');
    world.sync('c', 'd');
    world.sync('d', 'b');
    expect(world.row('b')).toBeNull();
    expectNothingDead(world);
  });

  it('half of it', () => {
    const world = seededByTheDead();
    world.add('d', 'manual');
    const [first] = world.prepare('a', 'd', 1);
    if (first) world.deliver(first);
    expect(world.row('d')).toEqual({ f1: '0', f2: '0' });
    world.sync('d', 'b');
    expect(world.row('b')).toBeNull();
    expectNothingDead(world);
  });

  it('and the restored replica is restored again, and no more knows of it', () => {
    const world = holding(2);
    const backup = world.backup('a');
    world.write('b', null);
    collectAll(world);
    world.restore('a', backup);
    world.add('c', 'manual');
    world.sync('a', 'c');
    world.restore('a', backup);
    collectAllOf(world, ['a', 'b']);
    expectNotBroughtBack(world);
  });
});

it('who joined through a history that was lost brings nothing back that was forgotten without it', () => {
  const world = holding(2);
  const backup = world.backup('a');
  world.add('c', 'manual');
  world.sync('a', 'c');
  world.restore('a', backup);
  world.write('b', null);
  collectAllOf(world, ['a', 'b']);
  expect(isHeld(world, 'b')).toBe(false);
  expectNotBroughtBack(world);
});

it('a replica that its members know begins nothing anew for one of them that was restored', () => {
  const world = holding(3);
  const backup = world.backup('a');
  world.write('b', null);
  world.write('a', { f1: 'lost' }, 's');
  world.sync('a', 'c');
  collectAllOf(world, ['b', 'c']);
  spread(world);
  collectAllOf(world, ['b', 'a']);
  world.restore('a', backup);
  world.sync('a', 'c');
  world.sync('a', 'b');
  spread(world);
  expect(world.replicas.map(({ database }) => database.knowing.begun)).toEqual([1, 0, 0]);
  for (const name of ['a', 'b', 'c']) expect([world.row(name), world.row(name, 's')?.['f1']]).toEqual([null, 'lost']);
});

it('a restored replica gets back what only a later member has, which begins nothing anew', () => {
  const world = holding(2);
  const backup = world.backup('a');
  world.add('c', 'manual');
  world.sync('a', 'c');
  world.write('a', { f1: 'lost' }, 's');
  world.sync('a', 'c');
  world.restore('a', backup);
  world.sync('a', 'c');
  world.sync('c', 'a');
  world.write('b', null);
  collectAll(world);
  expect(world.replicas.map(({ database }) => database.knowing.begun)).toEqual([0, 0, 0]);
  for (const name of ['a', 'b', 'c']) expect([world.row(name), world.row(name, 's')?.['f1']]).toEqual([null, 'lost']);
});
