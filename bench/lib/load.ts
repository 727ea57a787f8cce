/** Clients that send GraphQL operations, each its next as soon as the last is answered, over a connection of its own. */
import { Pool } from 'undici';

export interface Operation {
  readonly query: string;
  readonly variables?: Readonly<Record<string, unknown>>;
}

export interface LoadOptions {
  readonly url: string;
  readonly clients: number;
  /** How long operations are sent, and longer where fewer than `least` were answered by then. */
  readonly seconds: number;
  readonly least?: number;
  /** The next operation. */
  readonly next: () => Operation;
}

export interface Load {
  readonly answered: number;
  readonly seconds: number;
}

/** @throws Error at the first answer that is an error. */
export async function drive({ url, clients, seconds, least = 0, next }: LoadOptions): Promise<Load> {
  const pool = new Pool(url, { connections: clients, pipelining: 1 });
  const began = performance.now();
  const end = began + seconds * 1000;
  let answered = 0;
  const client = async (): Promise<void> => {
    while (performance.now() < end || answered < least) {
      const { statusCode, body } = await pool.request({ path: '/graphql', method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(next()) });
      const text = await body.text();
      if (statusCode !== 200 || text.includes('"errors"')) throw new Error(`${url} answered ${statusCode}: ${text.slice(0, 300)}`);
      answered++;
    }
  };
  try {
    await Promise.all(Array.from({ length: clients }, client));
    return { answered, seconds: (performance.now() - began) / 1000 };
  } finally {
    await pool.destroy();
  }
}
