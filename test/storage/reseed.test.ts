/** A replica that was restored to before what others have forgotten, on real databases: it keeps what was written since, and sets aside what no peer confirms. */
import { afterEach, describe, expect, it } from 'vitest';

import { collect } from '../../src/storage/collect.ts';
import { readIncarnation } from '../../src/storage/replica.ts';
import { reseed } from '../../src/storage/reseed.ts';
import { ACCOUNTS, FAMILY } from '../support/schemas.ts';
import { aside, asides, forgetDeleted, open, replicas, restored, settle, spread, spreadBetween, sql } from './restored.ts';

afterEach(() => replicas.close());

describe('what was here before', () => {
  it('comes back where a peer still has it, and is set aside where none has', async () => {
    await restored(`INSERT INTO things VALUES ('dead', '1'), ('alive', '2')`, `DELETE FROM things WHERE id = 'dead'`);
    await replicas.sync('b', 'a');
    await replicas.at('a').settle();
    expect(await sql('a', 'SELECT id, f1 FROM things ORDER BY id')).toEqual([{ id: 'alive', f1: '2' }]);
    expect(await aside()).toEqual(['dead']);
    await settle();
    expect(await sql('b', 'SELECT id FROM things')).toEqual([{ id: 'alive' }]);
  });

  it('goes on being shown until a peer has sent all that it has', async () => {
    await restored(`INSERT INTO things VALUES ('dead', '1'), ('alive', '2')`, `DELETE FROM things WHERE id = 'dead'`);
    await replicas.sync('a', 'b');
    await replicas.at('a').settle();
    expect(await sql('a', 'SELECT id FROM things ORDER BY id')).toEqual([{ id: 'alive' }, { id: 'dead' }]);
    expect(await sql('a', 'SELECT reseeding FROM replication.collection')).toEqual([{ reseeding: 't' }]);
    await settle();
    expect(await sql('a', 'SELECT reseeding FROM replication.collection')).toEqual([{ reseeding: 'f' }]);
  });

  it('is set aside too where it was captured, and not folded, when the backup was made', async () => {
    await open('ab');
    await sql('a', `INSERT INTO things VALUES ('changed', '1'), ('alive', '1')`);
    await spread();
    await sql('a', `INSERT INTO things VALUES ('dead', '1')`);
    await sql('a', `UPDATE things SET f1 = '2' WHERE id = 'changed'`);
    const backup = await replicas.backup('a');
    await spread();
    await sql('b', `DELETE FROM things WHERE id IN ('dead', 'changed')`);
    await forgetDeleted();
    await replicas.restore('a', backup);
    // The peer calls first: nothing is folded before.
    await replicas.sync('b', 'a');
    await settle();
    expect(await sql('b', 'SELECT id FROM things')).toEqual([{ id: 'alive' }]);
    expect(await aside()).toEqual(['changed', 'dead']);
  });

  it('goes on being shown although a newcomer has nothing of it', async () => {
    await open('abc');
    const both = async (): Promise<void> => {
      for (let round = 0; round < 3; round++) for (const [from, to] of ['ab', 'ba']) await replicas.sync(from as string, to as string);
    };
    await sql('a', `INSERT INTO things VALUES ('alive', '1'), ('dead', '1')`);
    await both();
    const backup = await replicas.backup('a');
    await sql('b', `DELETE FROM things WHERE id = 'dead'`);
    for (let round = 0; round < 4; round++) {
      await both();
      for (const name of 'ab') await collect(replicas.at(name).replica, 0);
    }
    await replicas.restore('a', backup);
    await replicas.sync('a', 'b');
    await replicas.sync('a', 'c');
    await replicas.sync('c', 'a');
    await replicas.at('a').settle();
    expect(await sql('a', 'SELECT id FROM things ORDER BY id')).toEqual([{ id: 'alive' }, { id: 'dead' }]);
    await settle();
    for (const name of replicas.names) expect(await sql(name, 'SELECT id FROM things')).toEqual([{ id: 'alive' }]);
  });

  it('is not taken twice, and another incarnation begins', async () => {
    await restored(`INSERT INTO things VALUES ('dead')`, 'DELETE FROM things');
    const { replica } = replicas.at('a');
    const before = await readIncarnation(replica);
    await replicas.sync('a', 'b');
    expect(await readIncarnation(replica)).not.toBe(before);
    expect(await reseed(replica)).toBeNull();
    await settle();
  });

  it('is taken again after another restore, and adds to what is aside already', async () => {
    const backup = await restored(`INSERT INTO things VALUES ('dead'), ('later'), ('alive')`, `DELETE FROM things WHERE id = 'dead'`);
    await spread();
    await replicas.at('a').settle();
    const second = await replicas.backup('a');
    await sql('b', `DELETE FROM things WHERE id = 'later'`);
    await forgetDeleted();
    await replicas.restore('a', second);
    await spread();
    await replicas.at('a').settle();
    expect(await aside()).toEqual(['dead', 'later']);
    await replicas.restore('a', backup);
    await spread();
    await replicas.at('a').settle();
    expect(await aside()).toEqual(['dead', 'later']);
    await settle();
    expect(await sql('a', 'SELECT id FROM things')).toEqual([{ id: 'alive' }]);
  });
});

describe('a newcomer that took the feed of who was restored, before either had met who forgot', () => {
  /** b has forgotten `dead`; a is restored to before that, and c has everything from it. */
  async function seeded(): Promise<void> {
    await open('abc');
    await sql('a', `INSERT INTO things VALUES ('dead', '1'), ('alive', '2')`);
    await spreadBetween('ab');
    const backup = await replicas.backup('a');
    await sql('b', `DELETE FROM things WHERE id = 'dead'`);
    for (let round = 0; round < 4; round++) {
      await spreadBetween('ab');
      for (const name of 'ab') await collect(replicas.at(name).replica, 0);
    }
    await replicas.restore('a', backup);
    await sql('a', `INSERT INTO things VALUES ('since', '3')`);
    await replicas.sync('a', 'c');
    expect(await sql('c', 'SELECT id FROM things ORDER BY id')).toEqual([{ id: 'alive' }, { id: 'dead' }, { id: 'since' }]);
    await sql('c', `INSERT INTO things VALUES ('own', '4')`);
  }

  const expectNothingDead = async (): Promise<void> => {
    await settle();
    for (const name of replicas.names) expect(await sql(name, 'SELECT id, f1 FROM things ORDER BY id')).toEqual([{ id: 'alive', f1: '2' }, { id: 'own', f1: '4' }, { id: 'since', f1: '3' }]);
    expect(await aside('c')).toEqual(['dead']);
  };

  it('brings back nothing dead to who forgot it', async () => {
    await seeded();
    await replicas.sync('c', 'b');
    expect(await sql('b', 'SELECT id FROM things ORDER BY id')).toEqual([{ id: 'alive' }, { id: 'own' }]);
    await expectNothingDead();
  });

  it('brings back nothing dead to the restored one, once that has begun anew', async () => {
    await seeded();
    await replicas.sync('a', 'b');
    await replicas.sync('c', 'a');
    await replicas.at('a').settle();
    expect(await aside()).toEqual(['alive', 'dead']);
    await expectNothingDead();
  });

  it('tells whom it has shaken hands with already before it sends on what it got', async () => {
    await open('abc');
    const roots = async (): Promise<string[]> => (await sql('b', 'SELECT member FROM replication.root')).map(({ member }) => member as string);
    const link = replicas.at('c').link(replicas.at('b'));
    await link.push(false, true);
    expect(await roots()).toEqual([replicas.at('c').replica.id]);
    await sql('a', `INSERT INTO things VALUES ('1')`);
    await replicas.sync('a', 'c');
    await link.push(false, true);
    expect(await sql('b', 'SELECT id FROM things')).toEqual([{ id: '1' }]);
    expect((await roots()).toSorted()).toEqual(['a', 'c'].map((name) => replicas.at(name).replica.id).toSorted());
  });
});

describe('what was written since', () => {
  it('stays, whoever wrote it and before anybody was met', async () => {
    await restored(`INSERT INTO things VALUES ('dead', '1'), ('alive', '2')`, `DELETE FROM things WHERE id = 'dead'`);
    await sql('a', `UPDATE things SET f2 = 'since'`);
    await sql('a', `INSERT INTO things VALUES ('new', '3')`);
    await settle();
    expect(await sql('b', 'SELECT id, f1, f2 FROM things ORDER BY id')).toEqual([
      { id: 'alive', f1: '2', f2: 'since' },
      { id: 'dead', f1: '1', f2: 'since' },
      { id: 'new', f1: '3', f2: null },
    ]);
    expect(await aside()).toEqual([]);
  });

  it('stays over a row that is still shown', async () => {
    await restored(`INSERT INTO things VALUES ('dead', '1'), ('gone', '1')`, 'DELETE FROM things');
    await replicas.sync('a', 'b');
    await sql('a', `UPDATE things SET f2 = 'since' WHERE id = 'dead'`);
    await sql('a', `DELETE FROM things WHERE id = 'gone'`);
    await settle();
    for (const name of replicas.names) expect(await sql(name, 'SELECT id, f1, f2 FROM things')).toEqual([{ id: 'dead', f1: '1', f2: 'since' }]);
  });
});

describe('a deletion that nobody has confirmed', () => {
  it('was seen by whoever writes the record anew', async () => {
    await open('ab');
    await sql('a', `INSERT INTO things VALUES ('dead', '1'), ('anew', '1')`);
    await spread();
    await sql('a', `DELETE FROM things WHERE id = 'anew'`);
    await spread();
    const backup = await replicas.backup('a');
    await sql('b', `DELETE FROM things WHERE id = 'dead'`);
    await spread();
    await spread();
    // Only what was deleted later is forgotten so far.
    await sql('b', `UPDATE replication.record SET changed_at = replication.clock() WHERE key = 'anew'`);
    await sql('b', `UPDATE replication.record SET changed_at = changed_at - 100000000 WHERE key = 'dead'`);
    await collect(replicas.at('b').replica, 50);
    await replicas.restore('a', backup);
    await replicas.sync('a', 'b');
    await sql('a', `INSERT INTO things VALUES ('anew', '2')`);
    await replicas.sync('b', 'a');
    await replicas.sync('a', 'b');
    for (const name of replicas.names) {
      expect(await sql(name, 'SELECT id, f1 FROM things')).toEqual([{ id: 'anew', f1: '2' }]);
      expect(await sql(name, 'SELECT FROM replication.conflict')).toEqual([]);
    }
    await settle();
  });
});

describe('a value that only one may have', () => {
  it('is free for another record, though a row that nobody has confirmed still has it', async () => {
    await restored(`INSERT INTO accounts (id, email) VALUES ('dead', 'x')`, 'DELETE FROM accounts', { schema: ACCOUNTS });
    await replicas.sync('a', 'b');
    await sql('b', `INSERT INTO accounts (id, email) VALUES ('new', 'x')`);
    await settle();
    for (const name of replicas.names) expect(await sql(name, 'SELECT id, email FROM accounts')).toEqual([{ id: 'new', email: 'x' }]);
    expect(await aside()).toEqual(['dead']);
  });
});

describe('a child', () => {
  it('written since waits for a parent that nobody has confirmed', async () => {
    await restored(`INSERT INTO parents VALUES ('p', 'P')`, 'DELETE FROM parents', { schema: FAMILY });
    await sql('a', `INSERT INTO children VALUES ('c', 'p', 'C')`);
    await settle();
    for (const name of replicas.names) expect(await sql(name, 'SELECT id FROM children')).toEqual([]);
    await asides().restore('Parent', 'p');
    await settle();
    for (const name of replicas.names) expect(await sql(name, 'SELECT id FROM children')).toEqual([{ id: 'c' }]);
  });
});
