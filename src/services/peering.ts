/** Peers that are added and removed while the replica runs. Every gateway of the replica follows, and a restart keeps them. */
import { addAddress, removeAddress } from '../storage/addresses.ts';
import type { Replica } from '../storage/replica.ts';
import { createAdmission } from './admission.ts';
import type { Channels } from './channels.ts';
import { ServiceError } from './errors.ts';
import { parse, peerAddress } from './input.ts';
import type { PeerStatus, ReplicaStatus } from './status.ts';

export interface Peering {
  /**
   * Adds a peer; one that is there already with this address is left as it is.
   * @param authorization - What the request carries: the peers' secret, where there is one.
   * @throws ServiceError BAD_USER_INPUT, PEER_EXISTS, UNAUTHENTICATED.
   */
  add(name: string, url: string, authorization: string | null): Promise<PeerStatus>;
  /**
   * Removes a peer, and gives it back as it was. It stays in the roster: its writes are known on.
   * @throws ServiceError UNKNOWN_PEER, UNAUTHENTICATED.
   */
  remove(name: string, authorization: string | null): Promise<PeerStatus>;
}

export interface PeeringOptions {
  readonly replica: Replica;
  readonly status: Pick<ReplicaStatus, 'peers'>;
  readonly channels: Pick<Channels, 'refresh'>;
  /** Shared by the peers. It is sent to every one of them, so that whoever names one has to know it; null: there is none to betray. */
  readonly secret: string | null;
}

export function createPeering({ replica, status, channels, secret }: PeeringOptions): Peering {
  const admit = createAdmission(secret, 'peers are added and removed');
  const find = async (name: string): Promise<PeerStatus | undefined> => (await status.peers()).find((peer) => peer.name === name);
  const unknown = (name: string): ServiceError => new ServiceError('UNKNOWN_PEER', `"${name}" is no peer of replica "${replica.name}": nothing was removed.`);

  return {
    async add(name, url, authorization) {
      admit(authorization);
      const address = parse(peerAddress, { name, url }, 'peer');
      if (address.name === replica.name) {
        throw new ServiceError('BAD_USER_INPUT', `"${name}" is this replica itself. Name another.`, [{ field: 'name', message: 'is this replica itself' }]);
      }
      const taken = await addAddress(replica.db, address);
      if (taken !== null) {
        const why = taken.name === address.name ? `"${taken.name}" is a peer already, at ${taken.url}` : `${taken.url} is the address of peer "${taken.name}"`;
        throw new ServiceError('PEER_EXISTS', `${why}. To change it, remove peer "${taken.name}" first.`);
      }
      await channels.refresh();
      const added = await find(address.name);
      if (added === undefined) throw new ServiceError('UNKNOWN_PEER', `peer "${name}" was added, and removed again at the same time.`);
      return added;
    },

    async remove(name, authorization) {
      admit(authorization);
      const before = await find(name);
      if (before === undefined || (await removeAddress(replica.db, name)) === null) throw unknown(name);
      await channels.refresh();
      return before;
    },
  };
}
