/** Clients that do the same work over and over, each its next piece as soon as the last is done. */
import pg from 'pg';
import { Pool } from 'undici';

export interface Operation {
  readonly query: string;
  readonly variables?: Readonly<Record<string, unknown>>;
}

interface Span {
  readonly clients: number;
  /** How long they go on, and longer where fewer than `least` pieces are done by then. */
  readonly seconds: number;
  readonly least?: number;
}

export interface Load {
  readonly done: number;
  readonly seconds: number;
}

/** GraphQL operations, over a connection for each client. @throws Error at the first answer that is an error. */
export async function operate(url: string, span: Span, next: () => Operation): Promise<Load> {
  const pool = new Pool(url, { connections: span.clients, pipelining: 1 });
  try {
    return await repeat(span, async () => {
      const { statusCode, body } = await pool.request({ path: '/graphql', method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify(next()) });
      const text = await body.text();
      if (statusCode !== 200 || text.includes('"errors"')) throw new Error(`${url} answered ${statusCode}: ${text.slice(0, 300)}`);
    });
  } finally {
    await pool.destroy();
  }
}

/** A prepared statement, each time in a transaction of its own, over a session for each client. */
export async function execute(databaseUrl: string, span: Span, statement: string, next: () => readonly unknown[]): Promise<Load> {
  const sessions = await Promise.all(
    Array.from({ length: span.clients }, async () => {
      const session = new pg.Client({ connectionString: databaseUrl });
      await session.connect();
      return session;
    }),
  );
  try {
    return await repeat(span, async (client) => void (await sessions[client]?.query({ name: 'work', text: statement, values: [...next()] })));
  } finally {
    await Promise.all(sessions.map((session) => session.end()));
  }
}

async function repeat({ clients, seconds, least = 0 }: Span, work: (client: number) => Promise<void>): Promise<Load> {
  const began = performance.now();
  const end = began + seconds * 1000;
  let done = 0;
  const client = async (_: unknown, own: number): Promise<void> => {
    while (performance.now() < end || done < least) {
      await work(own);
      done++;
    }
  };
  await Promise.all(Array.from({ length: clients }, client));
  return { done, seconds: (performance.now() - began) / 1000 };
}
