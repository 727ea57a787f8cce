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
  readonly history: History;
  readonly random: Random;
  readonly restore: (site: Site) => Promise<void>;
  /** A gateway more, or one less. */
  readonly doubled: (site: Site, twice: boolean) => Promise<void>;
  /** A fault that could not be made, or not be healed. */
  readonly onTrouble: (what: string, error: unknown) => void;
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
] as const;
export type FaultKind = (typeof FAULT_KINDS)[number];

/** Lasts until the signal, or as long as it was drawn to. */
type Fault = (site: Site, link: Link, last: () => Promise<void>) => Promise<void>;

const HOUR_US = 3_600_000_000;

export function startFaults({ sites, links, history, random, restore, doubled, onTrouble, often = [] }: FaultOptions): Faults {
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
      const offset = Math.round(random.between(-HOUR_US, HOUR_US));
      await site.session((client) =>
        client.query(`CREATE OR REPLACE FUNCTION replication.clock() RETURNS bigint VOLATILE LANGUAGE sql AS 'SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint + (${offset})'`),
      );
    }],
    [1, 'backed up', 'site', (site) => backUp(site)],
    [1, 'restored', 'site', async (site, _link, last) => {
      if (!backedUp.has(site)) {
        await backUp(site);
        // What is written meanwhile goes with it.
        await last();
      }
      await restore(site);
    }],
  ];
  const drawn = kinds.flatMap(([weight, ...kind]) => Array.from({ length: often.includes(kind[0]) ? 10 * weight : weight }, () => kind));

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
