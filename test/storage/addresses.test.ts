import { afterAll, beforeAll, beforeEach, describe, expect, it } from 'vitest';

import { addAddress, forgetSeen, nameAddresses, readAddresses, removeAddress, storeConsistency, storeState } from '../../src/storage/addresses.ts';
import { PENDING_COUNTED, readPeer, readPending } from '../../src/storage/checkpoints.ts';
import type { Replica } from '../../src/storage/replica.ts';
import { createParties, type Parties } from '../services/parties.ts';

let parties: Parties;
let replica: Replica;
beforeAll(() => {
  parties = createParties();
});
afterAll(() => parties.close());
beforeEach(async () => {
  parties.giveBack();
  replica = await parties.open('a', { slot: 1 });
});

const b = { name: 'b', url: 'http://b' };
const c = { name: 'c', url: 'http://c' };
const present = async () => (await readAddresses(replica.db)).map(({ name, url }) => `${name}=${url}`);

describe('addresses', () => {
  it('are those of PEERS and those added; PEERS wins, and takes back what it named before', async () => {
    await nameAddresses(replica.db, [b]);
    expect(await addAddress(replica.db, c)).toBeNull();
    expect(await present()).toEqual(['b=http://b', 'c=http://c']);
    await nameAddresses(replica.db, [{ name: 'd', url: 'http://d' }]);
    expect(await present()).toEqual(['c=http://c', 'd=http://d']);
    await nameAddresses(replica.db, [{ name: 'c', url: 'http://c2' }]);
    expect(await present()).toEqual(['c=http://c2']);
    await nameAddresses(replica.db, [{ name: 'e', url: 'http://c2' }]);
    expect(await present()).toEqual(['e=http://c2']);
  });

  it('are added once, by name and by address', async () => {
    await addAddress(replica.db, b);
    expect(await addAddress(replica.db, b)).toBeNull();
    expect(await addAddress(replica.db, { name: 'b', url: 'http://other' })).toEqual(b);
    expect(await addAddress(replica.db, { name: 'c', url: 'http://b' })).toEqual(b);
    expect(await removeAddress(replica.db, 'c')).toBeNull();
    expect(await removeAddress(replica.db, 'b')).toEqual(b);
    expect(await present()).toEqual([]);
  });

  it('carry what was seen, until that is forgotten', async () => {
    await addAddress(replica.db, b);
    const seen = async () => {
      const { state, consistency } = await readPeer(replica.db, 'b');
      return [state, consistency];
    };
    await storeState(replica.db, 'b', 'REJECTED', { reason: 'it does not fit' });
    await storeState(replica.db, 'b', 'CONNECTED', { unless: ['REJECTED'] });
    expect(await seen()).toEqual(['REJECTED', null]);
    await storeState(replica.db, 'b', 'CONNECTED');
    await storeConsistency(replica.db, 'b', 0.5);
    expect(await seen()).toEqual(['CONNECTED', 0.5]);
    await forgetSeen(replica.db);
    expect(await seen()).toEqual(['UNKNOWN', null]);
  });
});

describe('pending changes', () => {
  const write = (count: number) =>
    replica.db.query(
      `INSERT INTO replication.record (model, key, position, versions, hash, bucket, changed_at)
       SELECT 'User', n::text, n, '[]', 0, 0, 1000000 * n::bigint FROM generate_series(1, $1::int) n`,
      [count],
    );

  it('count each record once, whether its last write is folded or not, and not what came from the peer', async () => {
    await write(5);
    await replica.db.query(`UPDATE replication.record SET origin = 'b.1' WHERE position <= 2`);
    await replica.db.query(`INSERT INTO replication.log (model, key, op, clock, incarnation) VALUES ('User', '1', 'U', 5000000, 'a'), ('User', '5', 'U', 1, 'a'), ('User', '9', 'I', 1, 'a'), ('User', '9', 'U', 1, 'a')`);
    const peer = { ...(await readPeer(replica.db, 'b')), incarnation: '1' };
    expect((await readPending(replica, peer)).changes).toBe(5);
    expect((await readPending(replica, { ...peer, acknowledged: { incarnation: 'x', position: 4, taker: '1' } })).changes).toBe(3);
  });

  it('are counted up to a bound', async () => {
    await write(PENDING_COUNTED + 500);
    const { changes, lagSeconds } = await readPending(replica, await readPeer(replica.db, 'b'));
    expect(changes).toBe(PENDING_COUNTED);
    expect(lagSeconds).toBeGreaterThan(0);
  });
});
