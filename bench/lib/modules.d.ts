/** What is used of packages that bring no types. */
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
