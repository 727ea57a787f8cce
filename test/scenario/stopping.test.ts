/** A server that stops waits for requests under way, and for nothing else. */
import { once } from 'node:events';
import { connect } from 'node:net';

import { expect, it } from 'vitest';

import { startEdges } from '../support/edges.ts';

it('a connection that asked for nothing holds nothing up', async () => {
  const edges = await startEdges({ closeGraceMs: 1_000_000 });
  // Once over keep-alive, once in silence.
  expect((await edges.rest('GET', '/livez')).status).toBe(200);
  const silent = connect(edges.port, '127.0.0.1');
  await once(silent, 'connect');
  // The server has taken the connection when it has answered one that came after it.
  const later = connect(edges.port, '127.0.0.1').end('GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n').resume();
  await once(later, 'close');
  const closed = once(silent, 'close');
  await edges.close();
  await closed;
});
