import { afterEach, expect, it } from 'vitest';

import { PROTOCOL, type ChangesRequest } from '../../src/replication/protocol.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';

let replicas: Replicas;
afterEach(() => replicas.close());

it('batches of one sender wait for each other, a few at most', async () => {
  replicas = await openReplicas('ab');
  await replicas.sync('a', 'b');
  const [a, b] = [replicas.at('a'), replicas.at('b')];
  const standing = async (of: typeof a): Promise<string> => (await of.sql('SELECT replication.incarnation() AS i'))[0]?.['i'] as string;
  const [incarnation, receiver] = [await standing(a), await standing(b)];
  const batch = (position: number): ChangesRequest => ({
    protocol: PROTOCOL,
    sender: { name: 'a', id: a.replica.id, incarnation },
    receiver,
    start: position === 1 ? null : { incarnation, position: position - 1 },
    end: { incarnation, position },
    more: false,
    records: [],
    columns: [],
  });
  await b.session(async (holder) => {
    // Nobody changes a state meanwhile.
    await holder.query(`BEGIN; SELECT replication.begin_change()`);
    const taking = [1, 2, 3, 4].map((position) => b.handlers.changes(batch(position)));
    await expect(b.handlers.changes(batch(5))).rejects.toMatchObject({ code: 'REFUSED', message: expect.stringContaining('4 batches of replica "a"') });
    await holder.query('ROLLBACK');
    // In their order, or each would be refused for where it starts.
    expect(await Promise.all(taking)).toHaveLength(4);
  });
  expect(await b.handlers.changes(batch(5))).toMatchObject({ applied: 0 });
});
