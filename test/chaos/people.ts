/** People who watch conflicts and decide on them, and who sync by hand where replicas do not by themselves. */
import { setTimeout as sleep } from 'node:timers/promises';

import { createClient } from 'graphql-ws';
import WebSocket from 'ws';

import { readAsides, tokensIn } from './evidence.ts';
import type { Hearing, Operation } from './facts.ts';
import type { Gateway } from './gateway.ts';
import type { History } from './history.ts';
import type { Random } from './random.ts';
import type { Site } from './site.ts';

export interface Person {
  stop(): Promise<void>;
}

export interface Subscriber extends Person {
  readonly hearing: Hearing;
}

const RETRY_MS = 300;
const PENDING = 'query { conflicts(status: PENDING, first: 20) { id kind recordId versions { replica recordId deleted } } }';

interface Conflict {
  readonly id: string;
  readonly kind: string;
  readonly recordId: string;
  readonly versions: readonly { readonly replica: string; readonly recordId: string; readonly deleted: boolean }[];
}

type Outcome = Operation['outcome'];

/** What a decision writes, beside what it chooses. */
type Decided = Pick<Operation, 'kind' | 'key' | 'token' | 'email'>;

/** Resolves conflicts now and then, in every way there is. */
export function startResolver(sites: readonly Site[], history: History, random: Random, pauseMs: number, isPaused: () => boolean): Person {
  return everyNowAndThen(random, pauseMs, async () => {
    const site = random.pick(sites);
    const way = random.int(7);
    if (isPaused() || site.closed) return;
    const { data } = await site.graphql<{ conflicts: Conflict[] }>(PENDING);
    const conflict = data?.conflicts.length ? random.pick(data.conflicts) : undefined;
    if (data == null || conflict === undefined) return;
    const mutate = async (query: string, variables: object): Promise<boolean> => (await site.graphql(query, variables)).errors === undefined;
    const resolve = 'mutation ($id: ID!, $chosen: String, $values: JSON) { resolveConflict(id: $id, chosenVersion: $chosen, values: $values) { id } }';
    const [decided, act] = ((): readonly [Decided, () => Promise<boolean>] => {
      const { id, kind, recordId, versions } = conflict;
      const chosen: Decided = { kind: 'resolve', key: recordId, token: null };
      if (way < 2) {
        const ids = data.conflicts.slice(0, 5).map((each) => each.id);
        return [chosen, () => mutate(`mutation ($ids: [ID!]) { resolveConflicts(strategy: ${way === 0 ? 'LATEST' : 'FIELD_WISE'}, ids: $ids) { resolved } }`, { ids })];
      }
      if (kind !== 'UNIQUE') {
        if (way > 2) return [chosen, () => mutate(resolve, { id, chosen: random.pick(versions).replica })];
        // Values over a deletion may lack a field, and are refused; whether one was is told by its absence.
        const token = history.token();
        return [{ ...chosen, token }, () => mutate(resolve, { id, values: { telephone: token } })];
      }
      const either = random.pick(versions);
      const email = history.address();
      if (way === 2) return [chosen, () => mutate(resolve, { id, chosen: either.replica })];
      if (way === 3) return [{ ...chosen, email }, () => mutate(resolve, { id, values: { email } })];
      if (way === 4) return [{ kind: 'delete', key: either.recordId, token: null }, () => mutate('mutation ($id: ID!) { deleteUser(id: $id) { id } }', { id: either.recordId })];
      return [{ kind: 'update', key: either.recordId, token: null, email }, () => mutate('mutation ($id: ID!, $email: String!) { updateUser(id: $id, input: { email: $email }) { id } }', { id: either.recordId, email })];
    })();
    const began = performance.now();
    const outcome = await act().then((done): Outcome => (done ? 'ok' : 'unknown'), (): Outcome => 'unknown');
    history.operation({ replica: site.name, via: 'person', ...decided, outcome }, began);
  });
}

const ASIDE = 'query { replica { setAside(first: 5) { model recordId } } }';

/** Brings back what is set aside, or lets it go, now and then. */
export function startRestorer(sites: readonly Site[], history: History, random: Random, pauseMs: number, isPaused: () => boolean): Person {
  return everyNowAndThen(random, pauseMs, async () => {
    const site = random.pick(sites);
    const name = random.chance(0.5) ? 'restoreSetAside' : 'discardSetAside';
    if (isPaused() || site.closed) return;
    const { data } = await site.graphql<{ replica: { setAside: { model: string; recordId: string }[] } }>(ASIDE);
    const [record] = data?.replica.setAside ?? [];
    if (record === undefined) return;
    const { recordId } = record;
    const aside = (await site.session(readAsides)).filter(({ key }) => key === recordId);
    const began = performance.now();
    const outcome = await site.graphql(`mutation ($model: String!, $recordId: ID!) { ${name}(model: $model, recordId: $recordId) { name } }`, record).then(
      ({ errors }): Outcome => (errors ? 'failed' : 'ok'),
      (): Outcome => 'unknown',
    );
    history.operation({ replica: site.name, via: name, kind: 'resolve', key: recordId, token: null, outcome }, began);
    if (outcome === 'failed') return;
    // Of several versions the latest is brought back.
    for (const token of tokensIn(aside)) history.forgiven.add(token);
    if (name === 'discardSetAside') return;
    history.forgivenDeletions.add(recordId);
    history.broughtBack.add(recordId);
  });
}

/** Syncs one link now and then. */
export function startSyncer(sites: readonly Site[], edges: readonly (readonly [string, string])[], random: Random, pauseMs: number, isPaused: () => boolean): Person {
  return everyNowAndThen(random, pauseMs, async () => {
    const [one, other] = random.pick(edges);
    const [from, to] = random.chance(0.5) ? [one, other] : [other, one];
    const site = sites.find(({ name }) => name === from);
    if (!isPaused() && site !== undefined && !site.closed) await site.graphql('mutation ($peer: String!) { syncTo(peer: $peer) { sent } }', { peer: to });
  });
}

/** One that is given up before it is open tells of an error, which would end the run where nobody listens. */
class PatientSocket extends WebSocket {
  constructor(...options: ConstructorParameters<typeof WebSocket>) {
    super(...options);
    this.on('error', () => {});
  }
}

/** Listens to one gateway's conflicts, and again after each break, from where it had come. What was there before it first listened is not for it to hear. */
export function startSubscriber(site: Site, gateway: Gateway): Subscriber {
  const ids: number[] = [];
  let from: number | null = null;
  const closing = new AbortController();

  async function listen(): Promise<void> {
    const client = createClient({ url: `${gateway.url.replace('http', 'ws')}/graphql`, webSocketImpl: PatientSocket, retryAttempts: 0, keepAlive: 2_000 });
    const { data: newest } = await site.graphql<{ conflicts: { id: string }[] }>('{ conflicts(first: 1) { id } }');
    from ??= newest?.conflicts[0] === undefined ? null : Number(newest.conflicts[0].id);
    const after = ids.at(-1) ?? from;
    const stream = client.iterate<{ conflictDetected: { id: string } }>({
      query: 'subscription ($after: ID) { conflictDetected(after: $after) { id } }',
      variables: { after: after === null ? null : String(after) },
    });
    const end = (): void => void client.terminate();
    closing.signal.addEventListener('abort', end);
    try {
      for await (const { data } of stream) {
        // An error, of a database that is not there: listened again.
        if (!data) break;
        const id = Number(data.conflictDetected.id);
        // Listening from an empty log on: the first is where it begins.
        from ??= id - 1;
        ids.push(id);
      }
    } catch {
      // It broke: listened again.
    } finally {
      closing.signal.removeEventListener('abort', end);
      await client.dispose();
    }
  }

  const listening = (async () => {
    while (!closing.signal.aborted) {
      if (gateway.ready) await listen().catch(() => {});
      await sleep(RETRY_MS, undefined, { signal: closing.signal }).catch(() => {});
    }
  })();
  return {
    get hearing() {
      return { replica: site.name, who: `the subscriber of ${gateway.name}`, from: from ?? Infinity, ids };
    },
    async stop() {
      closing.abort();
      await listening;
    },
  };
}

function everyNowAndThen(random: Random, pauseMs: number, act: () => Promise<void>): Person {
  const closing = new AbortController();
  const living = (async () => {
    while (!closing.signal.aborted) {
      await sleep(random.between(0.3, 1.7) * pauseMs, undefined, { signal: closing.signal }).catch(() => {});
      // A replica that is not there is asked another time.
      if (!closing.signal.aborted) await act().catch(() => {});
    }
  })();
  return {
    async stop() {
      closing.abort();
      await living;
    },
  };
}
