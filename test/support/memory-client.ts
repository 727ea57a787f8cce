/** Talking to a replica in this process, through JSON and the protocol's schemas as over HTTP; a batch can be lost or torn on the way. */
import { PeerRejectedError, PeerUnreachableError, type PeerClient } from '../../src/peers/client.ts';
import { RefusalError, type PeerHandlers } from '../../src/peers/endpoint.ts';
import {
  changesRequest,
  changesResponse,
  digestRequest,
  digestResponse,
  handshakeRequest,
  handshakeResponse,
  inspectRequest,
  inspectResponse,
  resendRequest,
  resendResponse,
  encodeChanges,
  type ChangesResponse,
  type OutgoingChanges,
} from '../../src/replication/protocol.ts';

/** What becomes of a batch: its answer arrives, it does not, it comes twice, or its second half is missing; or its answer does not arrive; or it is held up for so long. */
export type Fate = 'arrives' | 'batch lost' | 'answer lost' | 'twice' | 'torn' | (() => Promise<void>);

/** A message or its answer did not arrive. */
export class LostError extends PeerUnreachableError {}

/** A client of a replica in this process. */
export function clientTo({ name, handlers }: { readonly name: string; readonly handlers: PeerHandlers }, fates: Fate[]): PeerClient {
  const arrive = (request: OutgoingChanges): Promise<ChangesResponse> => answered(() => handlers.changes(changesRequest.parse(JSON.parse(encodeChanges(request)))));
  return {
    name,
    url: `memory:${name}`,
    handshake: async (request) => handshakeResponse.parse(wire(await answered(() => handlers.handshake(handshakeRequest.parse(wire(request)))))),
    digest: async (request) => digestResponse.parse(wire(await answered(() => handlers.digest(digestRequest.parse(wire(request)))))),
    inspect: async (request) => inspectResponse.parse(wire(await answered(() => handlers.inspect(inspectRequest.parse(wire(request)))))),
    resend: async (request) => resendResponse.parse(wire(await answered(() => handlers.resend(resendRequest.parse(wire(request)))))),
    async changes(request, _signal, onTaken) {
      const fate = fates.shift() ?? 'arrives';
      if (typeof fate === 'function') await fate();
      if (fate === 'batch lost') throw new LostError('the batch was lost');
      if (fate === 'torn') {
        const text = encodeChanges(request);
        const read = parse(text.slice(0, text.length / 2));
        if (changesRequest.safeParse(read).success) throw new Error('half a batch was taken for a whole one');
        throw new LostError('the batch was torn');
      }
      const answering = arrive(request);
      onTaken?.();
      const answer = await answering;
      if (fate === 'answer lost') throw new LostError('the answer was lost');
      if (fate === 'twice') {
        const again = await arrive(request).then(() => 'taken', (error: unknown) => (error as PeerRejectedError).code);
        if (again !== 'CHECKPOINT_MISMATCH') throw new Error(`a batch that came again: ${again}`);
      }
      return changesResponse.parse(wire(answer));
    },
  };
}

async function answered<T>(work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (error instanceof RefusalError) throw new PeerRejectedError(error.code, error.message);
    throw error;
  }
}

function wire(message: unknown): unknown {
  return JSON.parse(JSON.stringify(message));
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
