/** One replica of a run: its PostgreSQL, its gateways, and what is asked of it. */
import { join } from 'node:path';

import pg from 'pg';

import { freePort } from '../support/processes.ts';
import { startGateway, type Gateway, type GatewayOptions } from './gateway.ts';
import type { PostgresProcess } from './postgres-process.ts';

export interface Site {
  readonly name: string;
  readonly postgres: PostgresProcess;
  readonly gateways: readonly Gateway[];
  /** One that answers, in turns; null where none does. */
  gateway(): Gateway | null;
  addGateway(): Promise<void>;
  dropGateway(): Promise<void>;
  /** Stops all its gateways; `open` starts as many again. */
  shut(): Promise<void>;
  open(): Promise<void>;
  graphql<T>(query: string, variables?: object): Promise<{ data?: T | null; errors?: { message: string; extensions?: { code?: string } }[] }>;
  session<T>(work: (client: pg.Client) => Promise<T>): Promise<T>;
  /** Writers stay away while this is so: its database is being put back. */
  closed: boolean;
}

/** How long an operation may take before its outcome counts as unknown. */
export const PATIENCE_MS = 30_000;

type Shared = Pick<GatewayOptions, 'root' | 'env' | 'onCrash' | 'onError'>;

export function createSite(name: string, postgres: PostgresProcess, folder: string, shared: Shared): Site {
  const gateways: Gateway[] = [];
  let turn = 0;
  let wanted = 0;

  const gateway = (): Gateway | null => {
    const ready = gateways.filter((each) => each.ready);
    return ready.length === 0 ? null : (ready[turn++ % ready.length] as Gateway);
  };
  const add = async (): Promise<void> => {
    const own = gateways.length === 0 ? name : `${name}${gateways.length + 1}`;
    gateways.push(startGateway({ ...shared, name: own, port: await freePort(), logFile: join(folder, `gateway-${own}.log`) }));
  };

  return {
    name,
    postgres,
    gateways,
    closed: false,
    gateway,
    async addGateway() {
      wanted = gateways.length + 1;
      await add();
    },
    async dropGateway() {
      wanted = gateways.length - 1;
      await gateways.pop()?.stop();
    },
    async shut() {
      wanted = gateways.length;
      await Promise.all(gateways.splice(0).map((each) => each.stop()));
    },
    async open() {
      while (gateways.length < wanted) await add();
    },
    async graphql(query, variables = {}) {
      const at = gateway();
      if (at === null) throw new NobodyThere(`no gateway of ${name} is there`);
      const response = await fetch(`${at.url}/graphql`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ query, variables }),
        signal: AbortSignal.timeout(PATIENCE_MS),
      });
      return (await response.json()) as never;
    },
    async session(work) {
      const client = new pg.Client({ connectionString: postgres.url, connectionTimeoutMillis: PATIENCE_MS, query_timeout: PATIENCE_MS });
      client.on('error', () => {});
      try {
        await client.connect();
        return await work(client);
      } finally {
        // One that does not answer is not waited for.
        void client.end().catch(() => {});
      }
    },
  };
}

/** It was never sent. */
export class NobodyThere extends Error {}
