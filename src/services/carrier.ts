/** Carrying to the peers what is resolved while more is: both sides work at once, and the delivery at the end, which tells of each peer, has little left. */
import type { Undelivered } from './conflicts.ts';

/**
 * Delivers when it is asked to, unless a delivery is under way, or one has not reached everybody: a peer that does not answer holds up the delivery at the end, and no other.
 */
export function createCarrier(deliver: () => Promise<readonly Undelivered[]>): () => void {
  let idle = true;
  return () => {
    if (!idle) return;
    idle = false;
    deliver().then(
      ({ length }) => {
        idle = length === 0;
      },
      () => {},
    );
  };
}
