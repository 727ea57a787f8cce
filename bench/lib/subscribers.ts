/** Many that follow a subscription, each over a WebSocket of its own (graphql-transport-ws). */
import { once } from 'node:events';

import { WebSocket } from 'ws';

export interface Conflict {
  readonly id: string;
  /** When the server noted it. */
  readonly detectedAt: string;
}

export interface Subscribers {
  /**
   * Resolves once everybody has got so many conflicts, in all since the beginning.
   *
   * @returns for each conflict and subscriber, in order of arrival, the milliseconds from when it was noted until it was here.
   * @throws Error where that takes more than a minute.
   */
  all(conflicts: number): Promise<readonly number[]>;
  close(): Promise<void>;
}

/** @param query - A subscription to `conflictDetected`. */
export async function subscribeMany(url: string, count: number, query: string, variables: object): Promise<Subscribers> {
  const delays: number[] = [];
  const received = Array.from({ length: count }, () => 0);
  let wanted: { readonly conflicts: number; readonly reached: () => void; readonly failed: (error: Error) => void } | undefined;
  const look = (): void => {
    if (wanted !== undefined && delays.length >= wanted.conflicts * count && received.every((own) => own >= (wanted as { conflicts: number }).conflicts)) wanted.reached();
  };
  const sockets: WebSocket[] = [];
  for (let index = 0; index < count; index++) {
    const socket = new WebSocket(`${url.replace('http', 'ws')}/graphql`, 'graphql-transport-ws');
    sockets.push(socket);
    await once(socket, 'open');
    socket.send('{"type":"connection_init"}');
    const [answer] = (await once(socket, 'message')) as [Buffer];
    if (!answer.toString().includes('connection_ack')) throw new Error(`${url} does not take a subscriber: ${answer.toString()}`);
    socket.on('message', (text: Buffer) => {
      const at = Date.now();
      const message = JSON.parse(text.toString()) as { readonly type: string; readonly payload?: { readonly data?: { readonly conflictDetected: Conflict } } };
      if (message.type === 'ping') return void socket.send('{"type":"pong"}');
      const conflict = message.payload?.data?.conflictDetected;
      if (conflict === undefined) return wanted?.failed(new Error(`${url} ended a subscription: ${text.toString()}`));
      delays.push(at - Date.parse(conflict.detectedAt));
      received[index] = (received[index] as number) + 1;
      look();
    });
    socket.send(JSON.stringify({ id: '1', type: 'subscribe', payload: { query, variables } }));
  }
  return {
    async all(conflicts) {
      let deadline: NodeJS.Timeout | undefined;
      try {
        return await new Promise<readonly number[]>((resolve, reject) => {
          deadline = setTimeout(() => reject(new Error(`${url}: after a minute ${delays.length} of ${conflicts * count} conflicts were received`)), 60_000);
          wanted = { conflicts, reached: () => resolve(delays), failed: reject };
          look();
        });
      } finally {
        clearTimeout(deadline);
      }
    },
    async close() {
      await Promise.all(
        sockets.map(async (socket) => {
          const closed = once(socket, 'close');
          socket.close();
          await closed;
        }),
      );
    },
  };
}
