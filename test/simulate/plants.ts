/**
 * Bugs to plant, one at a time, each in the place of a rule that the design rests on: what proves that the simulator can fail.
 *
 * They are planted in what a world is made of, never in src/.
 */
import { receive, sameCheckpoint } from '../../src/replication/exchange.ts';
import { merge, standing } from '../../src/replication/merge.ts';
import { latest, latestField, livingSides } from '../../src/replication/policy.ts';
import { claimsOf } from '../../src/replication/unique.ts';
import { lastWrite } from '../../src/replication/version.ts';
import { resolve, writeLocally } from '../../src/replication/write.ts';
import type { Rules } from '../support/rules.ts';
import type { SessionFaults } from '../support/sessions.ts';
import type { World } from '../support/world.ts';

export interface Plant {
  readonly name: string;
  readonly what: string;
  /** A seed under which it is caught. */
  readonly seed: number;
  readonly rules?: Partial<Rules>;
  readonly sessions?: SessionFaults;
  readonly around?: (world: World) => World;
}

export const PLANTS: readonly Plant[] = [
  {
    name: 'skipped-fence',
    what: 'a write takes its place in the feed before it commits, and the feed is read past it',
    seed: 18,
    sessions: { placeAtOpen: true },
  },
  {
    name: 'early-acknowledgement',
    what: 'a write is acknowledged before it commits',
    seed: 6,
    sessions: { acknowledgedAtOpen: true },
  },
  {
    name: 'forgotten-side',
    what: 'a merge keeps two sides at most',
    seed: 1,
    rules: { merge: shortMerge, receive: shortReceive },
  },
  {
    name: 'checkpoint-ahead',
    what: 'a batch is taken though one before it was lost',
    seed: 1,
    rules: { sameCheckpoint: (stored, start) => sameCheckpoint(stored, start) || (start !== null && start.position > (stored?.position ?? 0)) },
  },
  {
    name: 'torn-batch',
    what: 'of a batch only the first record is applied, and its checkpoint is stored',
    seed: 1,
    around: (world) => ({ ...world, deliver: (batch) => world.deliver({ ...batch, records: batch.records.slice(0, 1) }) }),
  },
  {
    name: 'same-incarnation',
    what: 'a restored database writes under the incarnation of its lost history',
    seed: 2,
    around: (world) => ({
      ...world,
      restore: (name, backup) => {
        const replica = world.replica(name);
        const { server } = replica;
        world.restore(name, backup);
        replica.server = server;
      },
    }),
  },
  {
    name: 'wall-clock',
    what: 'the later of two writes by the clock counts as having seen the other',
    seed: 1,
    rules: { merge: clockMerge, receive: clockReceive },
  },
  {
    name: 'old-stamps',
    what: 'a resolution keeps the stamps of the values it chose',
    seed: 5,
    rules: { resolve: oldStamps },
  },
  {
    name: 'kept-origin',
    what: 'the mark "came from you" is kept after a merge that changed the state',
    seed: 3,
    rules: { receive: (held, incoming, sender) => ({ ...receive(held, incoming, sender), origin: sender }) },
  },
  {
    name: 'believed-checkpoint',
    what: 'a checkpoint of an earlier incarnation is believed to the letter',
    seed: 2,
    rules: { resume: (taken) => ({ after: taken?.position ?? 0, restored: false }) },
  },
  {
    name: 'tombstone-dropped-early',
    what: 'a deletion is dropped although not everybody has it',
    seed: 4,
    rules: { stablePlace: () => Number.MAX_SAFE_INTEGER },
  },
  {
    name: 'floor-ignored',
    what: 'a replica that was restored to before what others have forgotten goes on as if nothing were',
    seed: 8,
    rules: { fellBehind: () => false },
  },
  {
    name: 'unconfirmed-kept',
    what: 'it is reseeded, and keeps what no peer has confirmed',
    seed: 8,
    rules: { partState: (state) => ({ kept: standing(state), unconfirmed: [] }) },
  },
  {
    name: 'holder-by-arrival',
    what: 'a unique value is held by the record that came first',
    seed: 2,
    rules: { holderOf: (claims) => [...claims][0] ?? null },
  },
  {
    name: 'claim-by-version',
    what: 'a claim has the stamp of its version, not that of its field',
    seed: 10,
    rules: { claimsOf: (...args) => new Map([...claimsOf(...args)].map(([value, claim]) => [value, { ...claim, stamp: lastWrite(claim.version.vector) }])) },
  },
  {
    name: 'unknown-field-dropped',
    what: 'a write leaves out the fields that its replica has no column for',
    seed: 2,
    rules: { writeLocally: knownOnly },
  },
  {
    name: 'roots-ignored',
    what: 'who took the feed of a replica that was restored to before what others have forgotten goes on as if nothing were',
    seed: 45,
    rules: { doubtBy: () => null },
  },
];

function shortMerge(...args: Parameters<Rules['merge']>): ReturnType<Rules['merge']> {
  return merge(...args).slice(0, 2);
}

function shortReceive(...args: Parameters<Rules['receive']>): ReturnType<Rules['receive']> {
  const received = receive(...args);
  return { ...received, state: received.state.slice(0, 2) };
}

function clockMerge(...args: Parameters<Rules['merge']>): ReturnType<Rules['merge']> {
  const state = merge(...args);
  return state.length > 1 ? [latest(state)] : state;
}

function clockReceive(...args: Parameters<Rules['receive']>): ReturnType<Rules['receive']> {
  const received = receive(...args);
  return received.state.length > 1 ? { ...received, state: [latest(received.state)] } : received;
}

function oldStamps(...args: Parameters<Rules['resolve']>): ReturnType<Rules['resolve']> {
  const [state, { fields }] = args;
  const version = resolve(...args);
  if (fields === null) return version;
  const living = livingSides(state);
  const stamps = Object.entries(fields).map(([name, value]) => {
    const chosen = latestField(living.filter((side) => side.fields?.[name] === value), name);
    return [name, chosen?.stamp ?? version.stamps['*'] ?? ['', 0]] as const;
  });
  return { ...version, stamps: Object.fromEntries(stamps) };
}

function knownOnly(...args: Parameters<Rules['writeLocally']>): ReturnType<Rules['writeLocally']> {
  const [state, , , , row] = args;
  return writeLocally(...args).map((version) => {
    if (state.includes(version) || version.fields === null || row === null) return version;
    return { ...version, fields: Object.fromEntries(Object.entries(version.fields).filter(([name]) => Object.hasOwn(row, name))) };
  });
}
