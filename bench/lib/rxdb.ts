/** RxDB in this process, its documents in memory, replicating over GraphQL with a server over PostgreSQL (`servers/rxdb.ts`). */
import type { Bench } from './measure.ts';
import { startServer } from './server.ts';

export const RXDB = 'RxDB over GraphQL';

interface Document {
  readonly id: string;
  readonly nom: string;
  readonly email: string;
  readonly telephone: string | null;
}

const SCHEMA = {
  version: 0,
  primaryKey: 'id',
  type: 'object',
  properties: { id: { type: 'string', maxLength: 20 }, nom: { type: 'string' }, email: { type: 'string' }, telephone: { type: ['string', 'null'] } },
  required: ['id', 'nom', 'email'],
} as const;
const FIELDS = 'id nom email telephone deleted';
const BATCH = 1000;
const CONNECTIONS = 10;

/** Fields that one side alone has changed keep that change; of one that both have, the client's counts. */
const fieldWise = {
  isEqual: (a: Document, b: Document) => a.nom === b.nom && a.email === b.email && a.telephone === b.telephone,
  resolve: async ({ assumedMasterState: base, realMasterState: theirs, newDocumentState: ours }: { assumedMasterState?: Document; realMasterState: Document; newDocumentState: Document }) => ({
    ...theirs,
    ...Object.fromEntries((['nom', 'email', 'telephone'] as const).filter((field) => base === undefined || ours[field] !== base[field]).map((field) => [field, ours[field]])),
  }),
};

export interface Rx {
  /** The server's database. */
  readonly databaseUrl: string;
  insert(from: number, to: number): Promise<void>;
  /** Sets a field of the first `count` documents. */
  touch(field: 'nom' | 'telephone', value: string, count: number): Promise<void>;
  /** Pushes and pulls until both sides agree; how long it took, in milliseconds. */
  sync(): Promise<number>;
  /** How many documents of the client have one of these values. */
  count(test: (document: Document) => boolean): Promise<number>;
}

export async function withRx<T>(bench: Bench, work: (rx: Rx) => Promise<T>): Promise<T> {
  const [{ createRxDatabase }, { getRxStorageMemory }, { replicateGraphQL }] = await Promise.all([import('rxdb'), import('rxdb/plugins/storage-memory'), import('rxdb/plugins/replication-graphql')]);
  return bench.withDatabases(async (databaseUrl) => {
    const server = await startServer(bench, 'rxdb.ts', [databaseUrl, String(CONNECTIONS)]);
    const database = await createRxDatabase({ name: `bench${process.hrtime.bigint()}`, storage: getRxStorageMemory(), multiInstance: false });
    try {
      const { users } = await database.addCollections<Document>({ users: { schema: SCHEMA, conflictHandler: fieldWise } });
      if (users === undefined) throw new Error(`${RXDB}: no collection`);
      return await work({
        databaseUrl,
        async insert(from, to) {
          await users.bulkInsert(Array.from({ length: to - from + 1 }, (_, i) => ({ id: String(from + i), nom: `Nom ${from + i}`, email: `person${from + i}@example.org`, telephone: `+33 1 23 ${from + i}` })));
        },
        async touch(field, value, count) {
          const documents = await users.storageInstance.findDocumentsById(Array.from({ length: count }, (_, i) => String(i + 1)), false);
          const { error } = await users.bulkUpsert(documents.map(({ id, nom, email, telephone }) => ({ id, nom, email, telephone, [field]: `${value} ${id}` })));
          if (error.length > 0) throw new Error(`${RXDB}: ${error.length} documents were not changed`);
        },
        async sync() {
          const began = performance.now();
          const replication = replicateGraphQL<Document>({
            collection: users,
            replicationIdentifier: 'bench',
            url: { http: `${server.url}/graphql` },
            deletedField: 'deleted',
            live: false,
            push: {
              batchSize: BATCH,
              queryBuilder: (rows) => ({ query: `mutation ($rows: [PushRow!]!) { pushUser(rows: $rows) { ${FIELDS} } }`, variables: { rows } }),
            },
            pull: {
              batchSize: BATCH,
              queryBuilder: (checkpoint, limit) => ({
                query: `query ($checkpoint: CheckpointInput, $limit: Int!) { pullUser(checkpoint: $checkpoint, limit: $limit) { documents { ${FIELDS} } checkpoint { place } } }`,
                variables: { checkpoint, limit },
              }),
            },
          });
          let failure: unknown;
          const watch = replication.error$.subscribe((error) => (failure ??= error));
          await replication.awaitInitialReplication();
          watch.unsubscribe();
          await replication.cancel();
          if (failure !== undefined) throw new Error(`${RXDB}: ${String(failure)}`);
          return performance.now() - began;
        },
        count: async (test) => (await users.find().exec()).filter((document) => test(document)).length,
      });
    } finally {
      await database.close();
      await server.stop();
    }
  });
}
