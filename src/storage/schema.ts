/** Installs the schema `replication` from the numbered files in sql/, each once. */
import { readdir, readFile } from 'node:fs/promises';

import type { Transaction } from './database.ts';

const FOLDER = new URL('sql/', import.meta.url);

export async function installSchema(tx: Transaction): Promise<void> {
  // Two processes of one replica may start at once.
  await tx.query('SELECT pg_advisory_xact_lock($1)', ['7020946418352319861']);
  const [exists] = await tx.query(`SELECT to_regclass('replication.installed') IS NOT NULL`);
  const installed = exists?.[0] === 't' ? (await tx.query('SELECT file FROM replication.installed')).map(([file]) => file) : [];
  const files = (await readdir(FOLDER)).filter((file) => file.endsWith('.sql')).toSorted();
  for (const file of files.filter((name) => !installed.includes(name))) {
    await tx.query(await readFile(new URL(file, FOLDER), 'utf8'));
    await tx.query('INSERT INTO replication.installed (file) VALUES ($1)', [file]);
  }
}
