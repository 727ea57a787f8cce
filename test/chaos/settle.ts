/** Waits until replicas that are left alone have come to rest: everything folded, sent, acknowledged and compared. */
import { setTimeout as sleep } from 'node:timers/promises';

import type { Violation } from './checker.ts';
import type { Plan } from './plan.ts';
import type { Site } from './site.ts';

interface Overview {
  readonly replica: { readonly peers: readonly { readonly name: string; readonly pendingChanges: number; readonly consistency: number | null }[] };
}

/** Long enough for a machine that does much else; the wait ends as soon as all is at rest. */
const PATIENCE_MS = 180_000;
const LOOK_MS = 250;
const OVERVIEW = '{ replica { peers { name pendingChanges consistency } } }';

/** @returns What is still not at rest when patience ends, and what further syncs sent. */
export async function settle(sites: readonly Site[], { mode, edges }: Plan): Promise<Violation[]> {
  const by = new Map(sites.map((site) => [site.name, site]));
  const ways = edges.flatMap(([one, other]) => [[one, other], [other, one]] as const);
  const sync = async ([from, to]: readonly [string, string]): Promise<number> => {
    const { data, errors } = await (by.get(from) as Site).graphql<{ syncTo: { sent: number } }>('mutation ($peer: String!) { syncTo(peer: $peer) { sent } }', { peer: to });
    if (!data) throw new Error(`sync from ${from} to ${to}: ${errors?.[0]?.message ?? 'no answer'}`);
    return data.syncTo.sent;
  };

  const restless = await until(async () => {
    const missing = sites.flatMap(({ gateways }) => gateways.filter(({ ready }) => !ready).map(({ name }) => `gateway ${name} does not answer`));
    if (missing.length > 0) return missing;
    if (mode === 'manual') {
      const sent: number[] = [];
      for (const way of ways) sent.push(await sync(way));
      if (sent.some((count) => count > 0)) return [`syncs still send (${sent.join(', ')})`];
    }
    const digests = await Promise.all(sites.map((site) => site.session(async (client) => {
      const { rows } = await client.query<{ open: string; digest: string }>(
        `SELECT (SELECT count(*) FROM replication.log) AS open, (SELECT md5(string_agg(d::text, ',' ORDER BY model, bucket)) FROM replication.digest d WHERE records > 0) AS digest`,
      );
      return { site: site.name, open: Number(rows[0]?.open), digest: rows[0]?.digest };
    })));
    const open = digests.filter((each) => each.open > 0).map(({ site, open: count }) => `${site} has ${count} writes to fold`);
    if (open.length > 0) return open;
    if (new Set(digests.map(({ digest }) => digest)).size > 1) return ['the replicas differ'];
    return (await Promise.all(sites.map(restlessPeers))).flat();
  });
  if (restless.length > 0) return [{ rule: 'quiet', message: `no rest after ${PATIENCE_MS / 1000} s: ${restless.join('; ')}` }];

  const violations: Violation[] = [];
  for (const way of ways) {
    const sent = await sync(way);
    if (sent > 0) violations.push({ rule: 'quiet', message: `at rest, a sync from ${way[0]} to ${way[1]} sent ${sent} records` });
  }
  const unequal = await until(async () => (await Promise.all(sites.map(inconsistentPeers))).flat());
  if (unequal.length > 0) violations.push({ rule: 'quiet', message: `at rest, ${unequal.join('; ')}` });
  return violations;
}

async function overview(site: Site): Promise<Overview['replica']['peers']> {
  const { data, errors } = await site.graphql<Overview>(OVERVIEW);
  if (!data) throw new Error(`${site.name} does not tell its state: ${errors?.[0]?.message ?? 'no answer'}`);
  return data.replica.peers;
}

async function restlessPeers(site: Site): Promise<string[]> {
  return (await overview(site)).filter(({ pendingChanges }) => pendingChanges > 0).map(({ name, pendingChanges }) => `${site.name} has ${pendingChanges} changes for ${name}`);
}

async function inconsistentPeers(site: Site): Promise<string[]> {
  // Of two gateways one leads a link, and that one compares.
  if (site.gateways.length > 1) return [];
  return (await overview(site)).filter(({ consistency }) => consistency !== 1).map(({ name, consistency }) => `${site.name} says that consistency with ${name} is ${consistency}`);
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
