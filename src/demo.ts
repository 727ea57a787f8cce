/** `npm run demo`: concurrent updates on two replicas, those that are running or its own. */
import { readFleetConfig } from './config.ts';
import type { Environment, FleetConfig, ReplicaConfig } from './config.ts';
import type { ReplicaClient } from './demo/client.ts';
import type { Pending } from './demo/story.ts';
import { createPaint } from './demo/terminal.ts';
import { createProgress } from './progress.ts';
import { StartError, byFleet, checkStart } from './startup.ts';
import { runFleet } from './supervisor.ts';

/** How long a replica that is running may take to say so. */
const ANSWER_MS = 2000;

/**
 * Plays the demo on the fleet of the configuration if that is running; else starts it, and at a terminal keeps it until the signal aborts.
 *
 * @throws ConfigError, StartError, ReplicaFailure, or RequestError when a replica does not do its part.
 */
export async function runDemo(env: Environment, signal: AbortSignal): Promise<void> {
  // The demo tells when to sync, and decides.
  const fleet = readFleetConfig({ ...env, SYNC_MODE: 'manual', CONFLICT_POLICY: 'manual' });
  const [first, second] = fleet.replicas;
  if (first === undefined || second === undefined) {
    throw new StartError(`the demo needs two replicas, and REPLICAS names ${fleet.replicas.length}. Name two, such as REPLICAS=a,b, or leave it out.`);
  }
  const pair = [first, second] as const;
  if (await isRunning(pair)) {
    const pending = await unlessAborted(signal, () => play(pair, signal));
    if (pending !== null) print(invitation(pending, pair));
  } else {
    await runOwn(fleet, pair, signal);
  }
}

type Pair = readonly [ReplicaConfig, ReplicaConfig];

/** @throws StartError when one runs without the other: a second fleet would get in its way. */
async function isRunning(pair: Pair): Promise<boolean> {
  const { createReplicaClient } = await loadParts();
  const found = await Promise.all(
    pair.map(async (config) => {
      const url = addressOf(config, pair);
      const signal = AbortSignal.timeout(ANSWER_MS);
      const alive = await fetch(`${url}/livez`, { signal }).then((response) => response.ok, () => false);
      return alive && (await createReplicaClient(config.name, url, signal).ask().catch(() => null)) === config.name;
    }),
  );
  const missing = pair.find((_, index) => found[index] === false);
  if (missing === undefined) return true;
  const running = pair.find((_, index) => found[index] === true);
  if (running === undefined) return false;
  throw new StartError(`replica ${running.name} is running, and ${missing.name} is not (${addressOf(missing, pair)}). Start it too, or stop ${running.name}: the demo then starts both.`);
}

async function runOwn(fleet: FleetConfig, pair: Pair, signal: AbortSignal): Promise<void> {
  await checkStart(fleet.replicas, byFleet);
  const progress = createProgress();
  const over = new AbortController();
  let played: Promise<void> = Promise.resolve();
  const tell = async () => {
    const pending = await unlessAborted(signal, () => play(pair, signal));
    if (pending === null) return;
    print(invitation(pending, pair));
    if (process.stdout.isTTY) return print('The replicas run until Ctrl-C. npm start has them again, with this conflict.\n');
    print('There is no terminal to play at, so the replicas stop now. npm start has them again, with this conflict.');
    over.abort();
  };
  try {
    await runFleet(fleet, {
      signal: AbortSignal.any([signal, over.signal]),
      onProgress: progress.say,
      onReady() {
        progress.end();
        played = tell();
        // What failed is told once all has stopped.
        played.catch(() => over.abort());
      },
    });
  } finally {
    progress.end();
  }
  await played;
  if (process.stdout.isTTY) process.stderr.write('\nAll replicas have stopped.\n');
}

async function play(pair: Pair, signal: AbortSignal): Promise<Pending> {
  const { createReplicaClient, tellStory } = await loadParts();
  const [here, there] = pair.map((config) => createReplicaClient(config.name, addressOf(config, pair), signal)) as [ReplicaClient, ReplicaClient];
  const coloured = process.stdout.isTTY && (process.env['NO_COLOR'] ?? '') === '';
  return tellStory({ here, there, paint: createPaint(coloured), say: print }, Date.now().toString(36));
}

/** The typed operations are generated, and not where only what a replica needs is installed. */
async function loadParts(): Promise<typeof import('./demo/client.ts') & typeof import('./demo/story.ts')> {
  try {
    const [client, story] = await Promise.all([import('./demo/client.ts'), import('./demo/story.ts')]);
    return { ...client, ...story };
  } catch (error) {
    if (!(error instanceof Error && 'code' in error && error.code === 'ERR_MODULE_NOT_FOUND')) throw error;
    throw new StartError('the demo uses the typed GraphQL operations, which are not generated. Run npm install, with the development packages.', { cause: error });
  }
}

/** @returns null where the work ended because of the signal. */
async function unlessAborted<T>(signal: AbortSignal, work: () => Promise<T>): Promise<T | null> {
  try {
    return await work();
  } catch (error) {
    if (signal.aborted) return null;
    throw error;
  }
}

function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

/** Where a replica of the fleet answers, as the other has it among its peers. */
function addressOf({ name }: ReplicaConfig, pair: Pair): string {
  return pair.flatMap(({ peers }) => peers).find((peer) => peer.name === name)?.url ?? '';
}

function invitation({ user, here, there }: Pending, pair: Pair): string {
  const [a, b] = pair.map((config) => ({ name: config.name, url: addressOf(config, pair) })) as [Address, Address];
  const post = `curl -X POST -H 'content-type: application/json'`;
  return `
This one is yours: conflict ${here.id} on ${a.name}, ${there.id} on ${b.name}, user ${user.id}.

   Look at both sides:
     curl ${a.url}/api/v1/conflicts/${here.id}
     curl ${b.url}/api/v1/conflicts/${there.id}
     ${a.url}/graphql   { conflict(id: ${here.id}) { fields versions { replica values changedFields } } }

   Settle it, in one of these ways:
     ${post} ${a.url}/api/v1/resolve-conflicts -d '{"strategy": "field-wise", "ids": [${here.id}]}'
     ${post} ${a.url}/api/v1/conflicts/${here.id}/resolve -d '{"chosen_version": "${b.name}"}'
     ${post} ${b.url}/api/v1/conflicts/${there.id}/resolve -d '{"values": {"nom": "Ada, Countess of Lovelace"}}'

   Then read it on both:
     curl ${a.url}/api/v1/users/${user.id}
     curl ${b.url}/api/v1/users/${user.id}
`;
}

interface Address {
  readonly name: string;
  readonly url: string;
}
