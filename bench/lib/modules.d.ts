/** What is used of packages that bring no types, or that only `bench/` installs: the project is type-checked without them. */
declare module 'pouchdb' {
  interface Document {
    readonly _id: string;
    readonly _rev?: string;
    readonly [field: string]: unknown;
  }
  interface Replicated {
    readonly docs_written: number;
  }
  export default class PouchDB {
    constructor(name: string);
    static defaults(options: { readonly prefix: string }): typeof PouchDB;
    bulkDocs(documents: readonly Document[]): Promise<unknown>;
    allDocs(options: { readonly include_docs: true; readonly limit: number }): Promise<{ readonly rows: readonly { readonly doc: Document }[] }>;
    readonly replicate: { to(target: string, options?: { readonly batch_size: number }): Promise<Replicated> };
    close(): Promise<void>;
  }
}
declare module 'express-pouchdb' {
  import type PouchDB from 'pouchdb';
  export default function expressPouch(database: typeof PouchDB, options: { readonly mode: 'minimumForPouchDB'; readonly inMemoryConfig: true; readonly logPath: string }): (...args: unknown[]) => void;
}
declare module 'express' {
  import type { Server } from 'node:http';
  export default function express(): { use(path: string, handler: (...args: unknown[]) => void): void; listen(port: number, host: string, ready: () => void): Server };
}
declare module 'fastify' {
  import type { Server } from 'node:http';
  interface App {
    readonly server: Server;
    register(plugin: unknown, options: object): Promise<unknown>;
    listen(at: { readonly port: number; readonly host: string }): Promise<string>;
  }
  export default function fastify(options?: { readonly bodyLimit: number }): App;
}
declare module 'mercurius' {
  const plugin: unknown;
  export default plugin;
}
declare module 'undici' {
  interface Answer {
    readonly statusCode: number;
    readonly body: { text(): Promise<string> };
  }
  export class Pool {
    constructor(origin: string, options: { readonly connections: number; readonly pipelining: number });
    request(options: { readonly path: string; readonly method: 'POST'; readonly headers: Readonly<Record<string, string>>; readonly body: string }): Promise<Answer>;
    destroy(): Promise<void>;
  }
}
declare module 'postgraphile' {
  import type { Server } from 'node:http';
  interface PostGraphile {
    createServ(grafserv: unknown): { addTo(server: Server): Promise<void> };
    getSchema(): Promise<unknown>;
  }
  export function postgraphile(preset: object): PostGraphile;
}
declare module 'postgraphile/adaptors/pg' {
  export function makePgService(options: { readonly connectionString: string; readonly schemas: readonly string[]; readonly poolConfig: { readonly max: number } }): object;
}
declare module 'postgraphile/presets/amber' {
  export const PostGraphileAmberPreset: object;
}
declare module 'grafserv/node' {
  export const grafserv: unknown;
}
declare module 'rxdb' {
  interface Collection<T> {
    readonly storageInstance: { findDocumentsById(ids: readonly string[], withDeleted: boolean): Promise<T[]> };
    bulkInsert(documents: readonly T[]): Promise<{ readonly error: readonly unknown[] }>;
    bulkUpsert(documents: readonly T[]): Promise<{ readonly error: readonly unknown[] }>;
    find(): { exec(): Promise<T[]> };
  }
  interface Database {
    addCollections<T>(collections: Readonly<Record<string, object>>): Promise<Readonly<Record<string, Collection<T>>>>;
    close(): Promise<unknown>;
  }
  export function createRxDatabase(options: { readonly name: string; readonly storage: unknown; readonly multiInstance: false }): Promise<Database>;
}
declare module 'rxdb/plugins/storage-memory' {
  export function getRxStorageMemory(): unknown;
}
declare module 'rxdb/plugins/replication-graphql' {
  interface Request {
    readonly query: string;
    readonly variables: object;
  }
  interface Replication {
    readonly error$: { subscribe(next: (error: unknown) => void): { unsubscribe(): void } };
    awaitInitialReplication(): Promise<unknown>;
    cancel(): Promise<unknown>;
  }
  export function replicateGraphQL<T>(options: {
    readonly collection: import('rxdb').Collection<T>;
    readonly replicationIdentifier: string;
    readonly url: { readonly http: string };
    readonly deletedField: string;
    readonly live: false;
    readonly push: { readonly batchSize: number; queryBuilder(rows: readonly object[]): Request };
    readonly pull: { readonly batchSize: number; queryBuilder(checkpoint: object | undefined, limit: number): Request };
  }): Replication;
}
