/** What goes wrong: drawn from the seed, one after the other and one over the other, and healed again. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { History } from './history.ts';
import type { Link } from './link.ts';
import type { Random } from './random.ts';
import type { Site } from './site.ts';

export interface Faults {
  /** Lets none begin, and heals those that last. */
  pause(): Promise<void>;
  resume(): void;
  stop(): Promise<void>;
}

export interface FaultOptions {
  readonly sites: readonly Site[];
  readonly links: readonly Link[];
  /** Between replicas that are no peers to begin with. */
  readonly spare: readonly Link[];
  readonly history: History;
  readonly random: Random;
  readonly restore: (site: Site) => Promise<void>;
  /** A gateway more, or one less. */
  readonly doubled: (site: Site, twice: boolean) => Promise<void>;
  /** A fault that could not be made, or not be healed. */
  readonly onTrouble: (what: string, error: unknown) => void;
  /** Whether deletions are forgotten in the run: it is restored more often then, and no clock jumps so far that it takes hours until one may be. */
  readonly collecting: boolean;
  /** Kinds that are drawn ten times as often. */
  readonly often?: readonly FaultKind[];
}

export const FAULT_KINDS = [
  'gateway killed',
  'PostgreSQL killed',
  'gateway stopped',
  'PostgreSQL stopped',
  'link cut',
  'link slow',
  'link narrow',
  'link broken in mid-body',
  'gateway doubled',
  'clock skewed',
  'backed up',
  'restored',
  'peer removed',
  'peer added',
] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** Lasts until the signal, or as long as it was drawn to. */
type Fault = (site: Site, link: Link, last: () => Promise<void>) => Promise<void>;

const HOUR_US = 3_600_000_000;
const SECOND_US = 1_000_000;
/** How long a peer that was removed is tried to be added again. */
const PATIENCE_MS = 60_000;

export function startFaults({ sites, links, spare, history, random, restore, doubled, collecting, onTrouble, often = [] }: FaultOptions): Faults {
  const backedUp = new Set<Site>();
  const busy = new Set<Site | Link>();
  const running = new Set<Promise<void>>();
  let healing = new AbortController();
  let paused = false;
  const closing = new AbortController();

  const onLink = (make: (link: Link) => void): Fault => async (_site, link, last) => {
    make(link);
    await last();
    link.heal();
  };
  const kinds: readonly (readonly [weight: number, kind: FaultKind, on: 'site' | 'link', fault: Fault])[] = [
    [4, 'gateway killed', 'site', async ({ gateways }) => void (await gateways[random.int(gateways.length)]?.kill())],
    [3, 'PostgreSQL killed', 'site', async ({ postgres }, _link, last) => {
      await postgres.kill();
      await last();
      await postgres.start();
    }],
    [2, 'gateway stopped', 'site', async ({ gateways }, _link, last) => {
      const gateway = gateways[random.int(gateways.length)];
      gateway?.pause();
      await last();
      gateway?.resume();
    }],
    [2, 'PostgreSQL stopped', 'site', async ({ postgres }, _link, last) => {
      postgres.pause();
      await last();
      postgres.resume();
    }],
    [5, 'link cut', 'link', onLink((link) => link.cut())],
    [2, 'link slow', 'link', onLink((link) => link.delay(random.between(20, 600)))],
    [1, 'link narrow', 'link', onLink((link) => link.throttle(random.between(2_000, 20_000)))],
    [3, 'link broken in mid-body', 'link', onLink((link) => link.breakAfter(random.int(6_000)))],
    [1, 'gateway doubled', 'site', async (site) => doubled(site, site.gateways.length < 2)],
    [2, 'clock skewed', 'site', async (site) => {
      const most = collecting ? 3 * SECOND_US : HOUR_US;
      const offset = Math.round(random.between(-most, most));
      await site.session((client) =>
        client.query(`CREATE OR REPLACE FUNCTION replication.clock() RETURNS bigint VOLATILE LANGUAGE sql AS 'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + (${offset})'`),
      );
    }],
    [1, 'backed up', 'site', (site) => backUp(site)],
    [collecting ? 3 : 1, 'restored', 'site', async (site, _link, last) => {
      if (!backedUp.has(site)) {
        await backUp(site);
        // What is written meanwhile goes with it.
        await last();
      }
      await restore(site);
    }],
    // Of one of the two: the other goes on sending.
    [2, 'peer removed', 'link', async (_site, { from, to, url }, last) => {
      const site = siteOf(from);
      await changePeers(site, REMOVE, { name: to });
      await last();
      await persist(() => changePeers(site, ADD, { name: to, url }));
    }],
    [spare.length === 0 ? 0 : 1, 'peer added', 'link', async (_site, _link, last) => {
      const { from, to, url } = random.pick(spare);
      const site = siteOf(from);
      await changePeers(site, ADD, { name: to, url });
      await last();
      await persist(() => changePeers(site, REMOVE, { name: to }));
    }],
  ];
  const drawn = kinds.flatMap(([weight, ...kind]) => Array.from({ length: often.includes(kind[0]) ? 10 * weight : weight }, () => kind));

  function siteOf(name: string): Site {
    return sites.find((site) => site.name === name) as Site;
  }

  /** Until a gateway is there to be told. */
  async function persist(act: () => Promise<void>): Promise<void> {
    for (const end = performance.now() + PATIENCE_MS; ; await sleep(100)) {
      try {
        return await act();
      } catch (error) {
        if (closing.signal.aborted || performance.now() > end) throw error;
      }
    }
  }

  async function backUp(site: Site): Promise<void> {
    await site.postgres.backUp();
    backedUp.add(site);
  }

  async function strike(): Promise<void> {
    const [kind, on, fault] = random.pick(drawn);
    const site = random.pick(sites);
    const link = random.pick(links);
    const ms = random.between(200, 6_000);
    const target = on === 'site' ? site : link;
    if (paused || busy.has(target)) return;
    busy.add(target);
    const { signal } = healing;
    try {
      await fault(site, link, () => sleep(ms, undefined, { signal }).catch(() => {}));
      history.fault(kind, on === 'site' ? site.name : `${link.from} to ${link.to}`);
    } catch (error) {
      // A backup or a skew of a server that is gone, say.
      onTrouble(`${kind} ${site.name}`, error);
    } finally {
      busy.delete(target);
    }
  }

  const striking = (async () => {
    while (!closing.signal.aborted) {
      await sleep(random.between(300, 3_000), undefined, { signal: closing.signal }).catch(() => {});
      if (paused || closing.signal.aborted) continue;
      const fault = strike();
      running.add(fault);
      void fault.finally(() => running.delete(fault));
    }
  })();

  return {
    async pause() {
      paused = true;
      healing.abort();
      await Promise.all(running);
    },
    resume() {
      healing = new AbortController();
      paused = false;
    },
    async stop() {
      closing.abort();
      await striking;
      paused = true;
      healing.abort();
      await Promise.all(running);
    },
  };
}

const ADD = 'mutation ($name: String!, $url: String!) { addPeer(name: $name, url: $url) { name } }';
const REMOVE = 'mutation ($name: String!) { removePeer(name: $name) { name } }';
/** It is so already: a restart or a restore was faster. */
const DONE = new Set(['PEER_EXISTS', 'UNKNOWN_PEER']);

async function changePeers(site: Site, mutation: string, variables: object): Promise<void> {
  const { errors } = await site.graphql(mutation, variables);
  if (errors && !errors.every(({ extensions }) => DONE.has(extensions?.code ?? ''))) throw new Error(errors[0]?.message);
}
