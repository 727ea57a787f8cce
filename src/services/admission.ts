/** Who may say which replicas belong together: whoever knows the secret that they share. */
import { createHash, timingSafeEqual } from 'node:crypto';

import { ServiceError } from './errors.ts';

/**
 * @param secret - Shared by the peers; null: nobody else can reach this replica.
 * @param what - What is asked for, in words: "peers are added and removed".
 * @returns What throws ServiceError UNAUTHENTICATED unless a request carries the secret.
 */
export function createAdmission(secret: string | null, what: string): (authorization: string | null) => void {
  const digest = (text: string): Buffer => createHash('sha256').update(text).digest();
  return (authorization) => {
    if (secret === null || timingSafeEqual(digest(authorization ?? ''), digest(`Bearer ${secret}`))) return;
    throw new ServiceError('UNAUTHENTICATED', `${what} by who knows PEER_SECRET. Send the header "Authorization: Bearer …" with it, over HTTP.`);
  };
}
