/** Who belongs to the replicas: an operator's word that a member does not come back. */
import { readAddresses } from '../storage/addresses.ts';
import { readRoster, strike, type Replica } from '../storage/replica.ts';
import { createAdmission } from './admission.ts';
import { ServiceError } from './errors.ts';
import { parse } from './input.ts';
import { z } from 'zod';

export interface Member {
  readonly name: string;
  /** True where it was struck: it holds nothing up, is refused, and its name and slot are free. */
  readonly struck: boolean;
}

export interface Roster {
  /** Everyone known, whether a peer or a peer's peer, in order of name. */
  members(): Promise<Member[]>;
  /**
   * Strikes a member; the word spreads with every handshake.
   * @param authorization - What the request carries: the peers' secret, where there is one.
   * @throws ServiceError NOT_FOUND, UNAUTHENTICATED, BAD_USER_INPUT (this replica itself; a peer that answers).
   */
  strike(name: unknown, authorization: string | null): Promise<void>;
}

const memberName = z.string().max(32);

/** @param secret - Shared by the peers. */
export function createRoster(replica: Replica, secret: string | null): Roster {
  const admit = createAdmission(secret, 'replicas are struck');
  return {
    async members() {
      return (await readRoster(replica.db)).map(({ name, struck }) => ({ name, struck: struck === true }));
    },

    async strike(value, authorization) {
      admit(authorization);
      const name = parse(memberName, value, 'name');
      if (name === replica.name) throw new ServiceError('BAD_USER_INPUT', `"${name}" is this replica itself: strike it on another one.`);
      const member = (await readRoster(replica.db)).find((known) => known.name === name && !known.struck);
      if (member === undefined) throw new ServiceError('NOT_FOUND', `there is no replica "${name}" in the roster, or it was struck already.`);
      // Whoever is struck is not listened to any more: what it writes from then on would be lost to the others.
      if ((await readAddresses(replica.db)).some((peer) => peer.name === name && peer.state === 'CONNECTED')) {
        throw new ServiceError('BAD_USER_INPUT', `"${name}" answers: it is no replica that does not come back. Sync with it and stop it first.`);
      }
      await strike(replica.db, member.id);
    },
  };
}
