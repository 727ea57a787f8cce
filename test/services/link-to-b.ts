/** A link between two replicas, and how often it calls: what the tests of links do with it. */
import type { PeerClient } from '../../src/peers/client.ts';
import type { ChangesResponse, OutgoingChanges } from '../../src/replication/protocol.ts';
import { createIntroductions } from '../../src/services/introductions.ts';
import { createLink, type Link } from '../../src/services/links.ts';
import { createNotices } from '../../src/services/notices.ts';
import { clientTo } from '../support/memory-client.ts';
import { openReplicas, type Replicas } from '../support/replicas.ts';

/** Those that a test has opened. */
export let replicas: Replicas;
export const open = async (...options: Parameters<typeof openReplicas>): Promise<void> => {
  replicas = await openReplicas(...options);
};
/** Since the link was made. */
export let handshakes = 0;
export let batches = 0;

/** `onTaken`: is told where the peer has a batch, so that the next may be sent. */
export type Send = (request: OutgoingChanges, again: (request: OutgoingChanges, onTaken?: () => void) => Promise<ChangesResponse>, onTaken?: () => void) => Promise<ChangesResponse>;

/**
 * From a to whoever is b when it is called.
 *
 * @param send - How a batch is sent.
 * @param fold - What folding is; told by `folded` of a part.
 */
export function linkToB(asked: (request: OutgoingChanges) => OutgoingChanges = (request) => request, send: Send = (request, again) => again(request), folding?: (folded: () => void) => Promise<void>): Link {
  const { replica, settle } = replicas.at('a');
  const b = (): PeerClient => clientTo(replicas.at('b'), []);
  handshakes = 0;
  batches = 0;
  const client: PeerClient = {
    name: 'b',
    url: 'memory:b',
    handshake: (request) => {
      handshakes++;
      return b().handshake(request);
    },
    changes: (request, _signal, onTaken) => {
      batches++;
      return send(asked(request), (sent, told) => b().changes(sent, undefined, told), onTaken);
    },
    digest: (request) => b().digest(request),
    inspect: (request) => b().inspect(request),
    resend: (request) => b().resend(request),
  };
  const introductions = createIntroductions(replica, { skew: () => {}, warn: () => {} });
  return createLink({ replica, client, introductions, keeper: { settle: folding ? (folded = () => {}) => folding(folded) : settle }, notices: createNotices() });
}

export const capture = (key: string): Promise<unknown> => replicas.at('a').sql(`INSERT INTO things (id, f1, f2) VALUES ($1, '1', '2')`, [key]);
export const write = async (key: string): Promise<void> => {
  await capture(key);
  await replicas.at('a').settle();
};
