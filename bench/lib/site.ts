/** A PostgreSQL 18 server of a run's own, with the same settings for everyone who is measured on it; each measure takes databases of its own there. */
import { withSession } from '../../src/storage/database.ts';
import { openEmbedded } from '../../src/storage/embedded.ts';

export interface Site {
  /** Makes an empty database and tells its address. */
  createDatabase(name: string): Promise<string>;
  dropDatabase(name: string): Promise<void>;
  close(): Promise<void>;
}

/** Commits are on the disk before they are acknowledged. Checkpoints of the server are kept out of the short measures. */
const SETTINGS = {
  fsync: 'on',
  synchronous_commit: 'on',
  wal_level: 'logical',
  max_connections: '300',
  max_replication_slots: '20',
  max_wal_senders: '20',
  max_worker_processes: '20',
  max_logical_replication_workers: '10',
  shared_buffers: '256MB',
  max_wal_size: '8GB',
  checkpoint_timeout: '1h',
  autovacuum_naptime: '10s',
};

export async function openSite(folder: string, name: string): Promise<Site> {
  const server = await openEmbedded({ dataDir: folder, name, settings: SETTINGS });
  const admin = async (statement: string): Promise<void> => withSession(server.url, async (client) => void (await client.query(statement)));
  return {
    async createDatabase(database) {
      await admin(`CREATE DATABASE ${database} TEMPLATE template0`);
      const url = new URL(server.url);
      url.pathname = `/${database}`;
      return url.href;
    },
    dropDatabase: (database) => admin(`DROP DATABASE IF EXISTS ${database} WITH (FORCE)`),
    close: server.close,
  };
}
