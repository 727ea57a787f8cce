/** One run: replicas are set up, written to and hurt for a while, left alone until they rest, and checked; again and again until the time is over. */
import { mkdir, mkdtemp, rename, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

import { freePort } from '../support/processes.ts';
import { check } from './checker.ts';
import { NOTES_SQL, readAll } from './evidence.ts';
import type { Violation } from './facts.ts';
import { startFaults, type FaultKind } from './faults.ts';
import type { Gateway } from './gateway.ts';
import { createHistory, type History } from './history.ts';
import { openLink, type Link } from './link.ts';
import { startLoad, type Load } from './load.ts';
import { startResolver, startRestorer, startSubscriber, startSyncer, type Subscriber } from './people.ts';
import { drawPlan, type Fixed, type Plan } from './plan.ts';
import { plantIn } from './plants.ts';
import { createPostgres } from './postgres-process.ts';
import { createRandom } from './random.ts';
import { createRestores } from './restores.ts';
import { settle } from './settle.ts';
import { createSite, type Site } from './site.ts';

export interface RunOptions extends Fixed {
  readonly seed: number;
  /** Of load and faults; coming to rest is beside it. */
  readonly seconds: number;
  /** Load and faults between two checks. */
  readonly roundSeconds?: number;
  /** A bug to run with; see plants.ts. */
  readonly plant?: string;
  readonly faults?: boolean;
  /** Faults that are to come often. */
  readonly often?: readonly FaultKind[];
  readonly signal?: AbortSignal;
  readonly onProgress?: (line: string) => void;
}

export interface Report {
  readonly seed: number;
  readonly plan: Omit<Plan, 'doubled'>;
  readonly plant: string | null;
  readonly seconds: number;
  readonly rounds: number;
  readonly operations: Readonly<Record<string, number>>;
  readonly faults: Readonly<Record<string, number>>;
  readonly conflicts: number;
  /** Of them, those over an address. */
  readonly clashes: number;
  /** Deletions that were forgotten. */
  readonly forgotten: number;
  /** Replicas that were restored to before that, and began anew. */
  readonly reseeded: readonly string[];
  readonly records: number;
  /** Megabytes of each gateway at the first rest and at the last, and the most in between. */
  readonly memory: Readonly<Record<string, readonly [first: number, last: number, most: number]>>;
  /** Lines of level error in the gateways' logs, by message. */
  readonly errors: Readonly<Record<string, number>>;
  readonly violations: readonly Violation[];
  /** Where history and logs are; removed where nothing was found. */
  readonly folder: string;
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url));
const ROUND_SECONDS = 40;
const WRITER_PAUSE_MS = 220;
/** A gateway that needs more than this has kept something. */
const MEMORY_LIMIT = 800;

export async function run(options: RunOptions): Promise<Report> {
  const random = createRandom(options.seed);
  const plan = drawPlan(random.fork('plan'), options);
  const folder = await mkdtemp(join(tmpdir(), `replique-chaos-${options.seed}-`));
  const history = createHistory(join(folder, 'history.jsonl'));
  const closers: (() => Promise<unknown>)[] = [() => history.close()];
  try {
    return await play(options, plan, folder, history, closers);
  } catch (error) {
    throw new Error(`the run itself failed; what there is of it is in ${folder}`, { cause: error });
  } finally {
    for (const close of closers.toReversed()) await close();
    for (const name of plan.names) await rename(join(folder, 'data', name, 'postgres.log'), join(folder, `postgres-${name}.log`)).catch(() => {});
    await rm(join(folder, 'data'), { recursive: true, force: true });
  }
}

async function play(options: RunOptions, plan: Plan, folder: string, history: History, closers: (() => Promise<unknown>)[]): Promise<Report> {
  const { seed, seconds, roundSeconds = ROUND_SECONDS, plant = null, signal, onProgress = () => {} } = options;
  const random = createRandom(seed);
  const root = plant === null ? ROOT : await plantIn(ROOT, folder, plant);
  history.note({ seed, plant, topology: plan.topology, policy: plan.policy, mode: plan.mode, retention: plan.retention, doubled: [...plan.doubled] });
  const found: Violation[] = [];
  const errors = new Map<string, number>();
  const sites: Site[] = [];
  const links: Link[] = [];
  const spare: Link[] = [];
  const byName = (name: string): Site => sites.find((site) => site.name === name) as Site;

  for (const [from, to] of plan.names.flatMap((one) => plan.names.filter((other) => other !== one).map((other) => [one, other] as const))) {
    const isEdge = plan.edges.some((edge) => edge.includes(from) && edge.includes(to));
    const link = await openLink(from, to, () => byName(to).gateway()?.port ?? null);
    closers.push(link.close);
    (isEdge ? links : spare).push(link);
  }
  await mkdir(join(folder, 'data'), { recursive: true });
  for (const [index, name] of plan.names.entries()) {
    onProgress(`making the database of ${name}`);
    const postgres = await createPostgres(join(folder, 'data'), name, await freePort());
    closers.push(postgres.stop);
    await postgres.start();
    const peers = links.filter(({ from }) => from === name).map(({ to, url }) => `${to}=${url}`);
    const site = createSite(name, postgres, folder, {
      root,
      env: { REPLICA: name, SLOT: String(index + 1), DATABASE_URL: postgres.url, PEERS: peers.join(','), SYNC_MODE: plan.mode, CONFLICT_POLICY: plan.policy, ...(plan.retention !== null && { TOMBSTONE_RETENTION: `${plan.retention}s` }) },
      onCrash: (gateway, last) => found.push({ rule: 'process', message: `gateway ${gateway} ended by itself: ${last}` }),
      onError(gateway, line) {
        const { msg, err } = JSON.parse(line) as { msg: string; err?: { message: string } };
        const text = `${msg}${err ? `: ${err.message.split('\n').at(-1)}` : ''}`;
        errors.set(text, (errors.get(text) ?? 0) + 1);
        history.note({ errorOf: gateway, text });
      },
    });
    closers.push(site.shut);
    sites.push(site);
  }
  onProgress('starting the gateways');
  await Promise.all(sites.map((site) => site.addGateway()));
  // A second one of a replica comes when the first has made its tables.
  await until(() => sites.every((site) => site.gateway() !== null), signal);
  for (const site of sites) await site.session((client) => client.query(NOTES_SQL));
  const subscribers = new Map<Gateway, { site: Site; subscriber: Subscriber }>();
  const listen = async (): Promise<void> => {
    for (const site of sites) for (const gateway of site.gateways) if (!subscribers.has(gateway)) subscribers.set(gateway, { site, subscriber: startSubscriber(site, gateway) });
    for (const [gateway, { site, subscriber }] of subscribers) {
      if (site.gateways.includes(gateway)) continue;
      subscribers.delete(gateway);
      await subscriber.stop();
    }
  };
  for (const site of sites) if (plan.doubled.has(site.name)) await site.addGateway();
  await listen();
  closers.push(() => Promise.all([...subscribers.values()].map(({ subscriber }) => subscriber.stop())));

  let load = null as Load | null;
  let resting = true;
  const restores = createRestores({ sites, history, load: () => load, listen });

  load = startLoad(sites, history, random.fork('load'), WRITER_PAUSE_MS, plan.retention === null ? 1 : 3);
  closers.push(load.stop);
  const isPaused = (): boolean => resting;
  // Clashes wait for people under every policy.
  const people = [1, 2].map((n) => startResolver(sites, history, random.fork(`person ${n}`), 900, isPaused));
  if (plan.retention !== null) people.push(startRestorer(sites, history, random.fork('restorer'), 3_000, isPaused));
  if (plan.mode === 'manual') people.push(startSyncer(sites, plan.edges, random.fork('syncer'), 250, isPaused));
  closers.push(() => Promise.all(people.map((person) => person.stop())));
  const faults = startFaults({
    sites,
    links,
    spare,
    collecting: plan.retention !== null,
    history,
    random: random.fork('faults'),
    restore: restores.restore,
    async doubled(site, twice) {
      if (twice) await site.addGateway();
      else await site.dropGateway();
      await listen();
    },
    ...(options.often && { often: options.often }),
    onTrouble: (what, error) => history.note({ trouble: what, error: String(error) }),
  });
  closers.push(faults.stop);
  if (options.faults === false) await faults.pause();

  const began = performance.now();
  const memory = new Map<string, [number, number, number]>();
  let active = 0;
  let rounds = 0;
  let conflicts = 0;
  let clashes = 0;
  let records = 0;
  const forgotten = new Set<string>();
  const reseeded = new Set<string>();
  let activity = 'load and faults';
  const telling = setInterval(() => {
    const minutes = ((performance.now() - began) / 60_000).toFixed(1);
    const struck = [...history.faults.values()].reduce((sum, count) => sum + count, 0);
    onProgress(`seed ${seed} · minute ${minutes} · ${load.operations} operations · ${struck} faults · ${conflicts} conflicts · ${rounds} checks · ${activity}`);
  }, 1_000);
  closers.push(async () => clearInterval(telling));

  const isOver = (): boolean => active >= seconds * 1000 || found.length > 0 || signal?.aborted === true;
  while (!isOver()) {
    resting = false;
    const length = Math.min(roundSeconds * 1000, seconds * 1000 - active);
    await sleep(length, undefined, signal && { signal }).catch(() => {});
    active += length;
    activity = 'coming to rest';
    resting = true;
    if (options.faults !== false) await faults.pause();
    for (const link of [...links, ...spare]) link.heal();
    await load.pause();
    history.note({ resting: rounds });
    found.push(...(await settle(sites, plan)));
    activity = 'checking';
    for (const site of sites) await restores.readNotes(site);
    restores.rested();
    const { states, logs, asides, collected } = await readAll(sites);
    const entries = [...logs.values()];
    conflicts = Math.max(...entries.map((own) => own.length));
    clashes = Math.max(...entries.map((own) => own.filter(({ kind }) => kind === 'UNIQUE').length));
    records = Math.max(...[...states.values()].map((own) => own.length));
    for (const [name, own] of collected) {
      for (const key of own.forgotten) forgotten.add(key);
      if (own.reseeds > 0) reseeded.add(name);
    }
    const last = (replica: string): number => logs.get(replica)?.at(-1)?.id ?? 0;
    const hearings = (): Subscriber['hearing'][] => [...subscribers.values()].map(({ subscriber }) => subscriber.hearing);
    // What they hear is on its way; what never comes is told by the check.
    await until(() => hearings().every(({ replica, from, ids }) => from === Infinity || (ids.at(-1) ?? from) >= last(replica)), signal, 15_000);
    found.push(...check({ ...history, manual: plan.policy === 'manual', states, logs, asides, reseeded, hearings: hearings() }));
    for (const { name, memory: used } of sites.flatMap(({ gateways }) => gateways)) {
      const now = Math.round(used() ?? 0);
      const [first = now, , most = now] = memory.get(name) ?? [];
      memory.set(name, [first, now, Math.max(most, now)]);
      if (now > MEMORY_LIMIT) found.push({ rule: 'process', message: `gateway ${name} takes ${now} MB` });
    }
    rounds++;
    for (const violation of found) history.note({ violation });
    if (found.length > 0) break;
    load.resume();
    if (options.faults !== false) faults.resume();
    activity = 'load and faults';
  }
  const counted = (wanted: string): number => history.operations.filter(({ outcome }) => outcome === wanted).length;
  const { doubled: _, ...shown } = plan;
  return {
    seed,
    plan: shown,
    plant,
    seconds: Math.round((performance.now() - began) / 1000),
    rounds,
    operations: { all: load.operations, ok: counted('ok'), failed: counted('failed'), unknown: counted('unknown'), committed: history.captures.length },
    faults: Object.fromEntries([...history.faults].toSorted()),
    conflicts,
    clashes,
    forgotten: forgotten.size,
    reseeded: [...reseeded],
    records,
    memory: Object.fromEntries(memory),
    errors: Object.fromEntries(errors),
    violations: found,
    folder,
  };
}

/** Waits until something holds, or patience or the run ends. */
async function until(holds: () => boolean, signal?: AbortSignal, patienceMs = 120_000): Promise<void> {
  const end = performance.now() + patienceMs;
  const isOver = (): boolean => holds() || performance.now() > end || signal?.aborted === true;
  while (!isOver()) await sleep(50);
}
