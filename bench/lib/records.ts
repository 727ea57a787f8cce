/** The records that everybody is measured with. */
import { withSession } from '../../src/storage/database.ts';

export const TABLE = `CREATE TABLE users (
  id serial PRIMARY KEY, nom text NOT NULL, email text NOT NULL UNIQUE, telephone text, created_at timestamptz(3) NOT NULL DEFAULT CURRENT_TIMESTAMP)`;

/** Makes records `from` to `to`, each in a transaction of its own, and has the keys go on after them. Making them is not measured, so that nobody waits for the disk here. */
export async function fill(url: string, from: number, to: number): Promise<void> {
  await withSession(url, async (client) => {
    await client.query('SET synchronous_commit = off');
    await client.query(
      `DO $$ BEGIN
         FOR i IN ${from}..${to} LOOP
           INSERT INTO users (id, nom, email, telephone) VALUES (i * 10 + 1, 'Nom ' || i, 'person' || i || '@example.org', '+33 1 23 ' || i);
           COMMIT;
         END LOOP;
       END $$`,
    );
    await client.query(`SELECT setval(pg_get_serial_sequence('users', 'id'), ${to * 10 + 1})`);
  });
}

/** Sets a field of the first `count` records, each in a transaction of its own. */
export async function touch(url: string, field: 'nom' | 'telephone', value: string, count: number): Promise<void> {
  await withSession(url, async (client) => {
    await client.query('SET synchronous_commit = off');
    await client.query(
      `DO $$ BEGIN
         FOR i IN 1..${count} LOOP
           UPDATE users SET ${field} = '${value} ' || i WHERE id = i * 10 + 1;
           COMMIT;
         END LOOP;
       END $$`,
    );
  });
}

/** All rows of the table as one text: equal tables have equal ones. */
export async function contents(url: string): Promise<string> {
  return withSession(url, async (client) => {
    const { rows } = await client.query<{ text: string }>(`SELECT md5(string_agg(u::text, '|' ORDER BY id)) || ' ' || count(*) AS text FROM users u`);
    return rows[0]?.text ?? '';
  });
}

export async function countRows(url: string, where = 'true'): Promise<number> {
  return withSession(url, async (client) => Number((await client.query<{ count: string }>(`SELECT count(*) FROM users WHERE ${where}`)).rows[0]?.count));
}
