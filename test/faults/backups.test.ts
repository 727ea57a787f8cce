/** A database goes back in time for real: from a base backup, or because a standby that lagged was promoted. */
import { afterEach, beforeEach, describe, expect, it } from 'vitest';

import { expectSame, valuesOf } from '../support/compare.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';
import { PEOPLE, type Schema } from '../support/schemas.ts';
import { createServerCopies, type ServerCopies } from '../support/server-copies.ts';

let server: ServerCopies;
let replicas: Replicas;

beforeEach(async () => {
  server = await createServerCopies();
});
afterEach(async () => {
  await replicas.close();
  await server.close();
});

/** How the database is kept, and how it goes back to that. */
const WAYS: readonly (readonly [string, (at: ServerCopies) => Promise<void>, (at: ServerCopies) => Promise<string>])[] = [
  ['a base backup', (at) => at.backUp(), (at) => at.restore()],
  ['a standby that lagged', (at) => at.makeStandby(), (at) => at.failOver()],
];

const sql = (name: string, text: string) => replicas.at(name).sql(text);
const incarnation = async (): Promise<string> => (await sql('a', 'SELECT replication.incarnation() AS i'))[0]?.['i'] as string;
const open = async (names: string, schema?: Schema): Promise<void> => {
  replicas = await openReplicas(names, { urls: { a: server.url() }, ...(schema && { schema }) });
};
/** What is told of the restore is no fault. */
async function rest(): Promise<void> {
  await replicas.rest();
  for (const name of replicas.names) {
    for (const problem of replicas.at(name).problems.splice(0)) expect(problem).toContain('this database went back in time');
  }
  await expectSame(replicas);
}

describe.each(WAYS)('from %s', (_, keep, goBack) => {
  it('restored-replica-gets-its-writes-back, and write-before-first-handshake-after-restore', async () => {
    await open('ab');
    await sql('a', `INSERT INTO things VALUES ('r', '0', '0'), ('s', '0', '0')`);
    await replicas.rest();
    const before = await incarnation();
    await keep(server);
    await sql('a', `UPDATE things SET f1 = 'lost'`);
    await sql('a', `INSERT INTO things VALUES ('t', 'lost', '0')`);
    await replicas.sync('a', 'b');
    await replicas.move('a', () => goBack(server));
    expect(await incarnation()).not.toBe(before);
    // The first write, by plain SQL, covers nothing that it has not seen.
    await sql('a', `UPDATE things SET f2 = 'since' WHERE id = 's'`);
    expect(await sql('a', 'SELECT DISTINCT incarnation FROM replication.log')).toEqual([{ incarnation: await incarnation() }]);
    await rest();
    expect(await valuesOf(replicas.at('a'), 'r')).toEqual(['lost,0']);
    expect(await valuesOf(replicas.at('a'), 's')).toEqual(['0,since', 'lost,0']);
    expect(await valuesOf(replicas.at('a'), 't')).toEqual(['lost,0']);
  });

  it('…-through-a-third-replica', async () => {
    await open('abc');
    await sql('a', `INSERT INTO things VALUES ('r', '0', '0')`);
    await replicas.rest();
    await keep(server);
    await sql('a', `UPDATE things SET f1 = 'lost'`);
    await replicas.sync('a', 'b');
    await replicas.move('a', () => goBack(server));
    await sql('a', `UPDATE things SET f1 = 'since'`);
    await replicas.sync('a', 'c');
    await sql('c', `UPDATE things SET f2 = 'c'`);
    await replicas.sync('c', 'b');
    await rest();
    expect(await valuesOf(replicas.at('b'), 'r')).toEqual(['lost,0', 'since,c']);
  });

  it('keys that were given out in the lost history are not given out again once they are known', async () => {
    await open('ab', PEOPLE);
    await sql('a', 'INSERT INTO people (age) VALUES (1)');
    await replicas.rest();
    await keep(server);
    await sql('a', 'INSERT INTO people (age) VALUES (2), (3)');
    await replicas.sync('a', 'b');
    await replicas.move('a', () => goBack(server));
    await replicas.sync('b', 'a');
    await sql('a', 'INSERT INTO people (age) VALUES (4)');
    await rest();
    expect(await sql('b', 'SELECT id, age FROM people ORDER BY id')).toEqual(['1', '2', '3', '4'].map((age, i) => ({ id: String(i * 10 + 1), age })));
  });
});
