/** A replica is restored to before what others have forgotten: it keeps what was written since, and what nobody confirms is set aside. */
import { expect, it } from 'vitest';

import { isConflict } from '../../src/replication/conflict.ts';
import { KEY } from '../support/world.ts';
import { collectAll, holding, isHeld, spread, values } from './collecting.ts';
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
