/** Waits until replicas that are left alone have come to rest: everything folded, sent, acknowledged and compared. */
import { setTimeout as sleep } from 'node:timers/promises';

import type pg from 'pg';

import type { Violation } from './facts.ts';
import type { Plan } from './plan.ts';
import type { Site } from './site.ts';

interface Peer {
  readonly name: string;
  readonly state: string;
  readonly lastSyncAt: string | null;
  readonly pendingChanges: number;
  readonly consistency: number | null;
}

interface Overview {
  readonly replica: { readonly reseeding: boolean; readonly peers: readonly Peer[] };
}

/** Long enough for a machine that does much else; the wait ends as soon as all is at rest. */
const PATIENCE_MS = 180_000;
const LOOK_MS = 250;
const OVERVIEW = '{ replica { reseeding peers { name state lastSyncAt pendingChanges consistency } } }';

/** @returns What is still not at rest when patience ends, and what further syncs sent. */
export async function settle(sites: readonly Site[], { mode, edges, retention }: Plan): Promise<Violation[]> {
  const by = new Map(sites.map((site) => [site.name, site]));
  const wanted = edges.flatMap(([one, other]) => [[one, other], [other, one]] as const);
  /** The links that there are: one that was added may have come back with a restore. */
  let ways: readonly (readonly [string, string])[] = wanted;
  const sync = async ([from, to]: readonly [string, string]): Promise<number> => {
    const { data, errors } = await (by.get(from) as Site).graphql<{ syncTo: { sent: number } }>('mutation ($peer: String!) { syncTo(peer: $peer) { sent } }', { peer: to });
    if (!data) throw new Error(`sync from ${from} to ${to}: ${errors?.[0]?.message ?? 'no answer'}`);
    return data.syncTo.sent;
  };

  /** When the ends of each link had last met at the first look: what they knew then may be of before a restore of either. */
  const before = new Map<string, string | null>();
  const restless = await until(async () => {
    const missing = sites.flatMap(({ gateways }) => gateways.filter(({ ready }) => !ready).map(({ name }) => `gateway ${name} does not answer`));
    if (missing.length > 0) return missing;
    const overviews = await Promise.all(sites.map(overview));
    const met = sites.flatMap(({ name }, n) => (overviews[n]?.peers ?? []).map((peer) => ({ name, peer })));
    ways = met.map(({ name, peer }) => [name, peer.name] as const);
    const strangers = wanted.filter(([from, to]) => !ways.some((way) => way[0] === from && way[1] === to));
    if (strangers.length > 0) return strangers.map(([from, to]) => `${from} has no peer ${to}`);
    for (const { name, peer } of met) if (!before.has(`${name} ${peer.name}`)) before.set(`${name} ${peer.name}`, peer.lastSyncAt);
    if (mode === 'manual') {
      const sent: number[] = [];
      for (const way of ways) sent.push(await sync(way));
      if (sent.some((count) => count > 0)) return [`syncs still send (${sent.join(', ')})`];
    }
    const looks = await Promise.all(sites.map((site) => site.session(lookInside)));
    if (new Set(looks.map(({ digest }) => digest)).size > 1) return ['the replicas differ'];
    return sites.flatMap(({ name }, n) => {
      const { replica, look } = { replica: overviews[n] as Overview['replica'], look: looks[n] as Look };
      const unmet = mode === 'manual' ? [] : replica.peers.filter(({ name: peer, state, lastSyncAt }) => state !== 'CONNECTED' || lastSyncAt === before.get(`${name} ${peer}`));
      return [
        ...(look.open > 0 ? [`${name} has ${look.open} writes to fold`] : []),
        ...(look.untold > 0 ? [`${name} has not told of ${look.untold} clashes`] : []),
        ...(retention !== null && look.dead > 0 ? [`${name} has not forgotten ${look.dead} deletions`] : []),
        ...(replica.reseeding ? [`${name} has not heard of everyone since it began anew`] : []),
        ...unmet.map((peer) => `${name} has not met ${peer.name} since`),
        ...replica.peers.filter(({ pendingChanges }) => pendingChanges > 0).map((peer) => `${name} has ${peer.pendingChanges} changes for ${peer.name}`),
      ];
    });
  });
  if (restless.length > 0) return [{ rule: 'quiet', message: `no rest after ${PATIENCE_MS / 1000} s: ${restless.join('; ')}` }];

  const violations: Violation[] = [];
  for (const way of ways) {
    let sent = 0;
    // A connection may break at rest, too; what counts is what is sent when it does not.
    const unreached = await until(async () => {
      sent = await sync(way);
      return [];
    });
    if (unreached.length > 0) violations.push({ rule: 'quiet', message: `at rest, ${unreached.join('; ')}` });
    if (sent > 0) violations.push({ rule: 'quiet', message: `at rest, a sync from ${way[0]} to ${way[1]} sent ${sent} records` });
  }
  const unequal = await until(async () => (await Promise.all(sites.map(inconsistentPeers))).flat());
  if (unequal.length > 0) violations.push({ rule: 'quiet', message: `at rest, ${unequal.join('; ')}` });
  return violations;
}

interface Look {
  readonly open: number;
  readonly untold: number;
  /** Deletions that nothing opposes, and ghosts of them. */
  readonly dead: number;
  readonly digest: string | null;
}

async function lookInside(client: pg.Client): Promise<Look> {
  const { rows } = await client.query<{ open: string; untold: string; dead: string; digest: string | null }>(
    `SELECT (SELECT count(*) FROM replication.log) AS open, (SELECT count(*) FROM replication.deferral) AS untold,
            (SELECT count(*) FROM replication.record r WHERE dead AND NOT EXISTS (SELECT FROM json_array_elements(r.versions) v WHERE json_typeof(v -> 'f') IS DISTINCT FROM 'null')) AS dead,
            (SELECT md5(string_agg(d::text, ',' ORDER BY model, bucket)) FROM replication.digest d WHERE records > 0) AS digest`,
  );
  return { open: Number(rows[0]?.open), untold: Number(rows[0]?.untold), dead: Number(rows[0]?.dead), digest: rows[0]?.digest ?? null };
}

async function overview(site: Site): Promise<Overview['replica']> {
  const { data, errors } = await site.graphql<Overview>(OVERVIEW);
  if (!data) throw new Error(`${site.name} does not tell its state: ${errors?.[0]?.message ?? 'no answer'}`);
  return data.replica;
}

async function inconsistentPeers(site: Site): Promise<string[]> {
  // Of two gateways one leads a link, and that one compares.
  if (site.gateways.length > 1) return [];
  return (await overview(site)).peers.filter(({ consistency }) => consistency !== 1).map(({ name, consistency }) => `${site.name} says that consistency with ${name} is ${consistency}`);
}

/** Looks until nothing is left to wait for; what is left when patience ends. */
async function until(look: () => Promise<string[]>): Promise<string[]> {
  const end = performance.now() + PATIENCE_MS;
  for (;;) {
    const left = await look().catch((error: unknown) => [error instanceof Error ? error.message : String(error)]);
    if (left.length === 0 || performance.now() > end) return left;
    await sleep(LOOK_MS);
  }
}
