/** Puts a replica's database back to its last backup, and works out what may be gone with what came after it. */
import type { Load } from './load.ts';
import { readAsides, readDead, readLog, readNotes, readStates, tokensIn } from './evidence.ts';
import type { History } from './history.ts';
import type { Site } from './site.ts';
import { tokensOf } from './values.ts';

export interface Restores {
  /** One at a time: what one of two may take with it depends on what the other still has. */
  restore(site: Site): Promise<void>;
  /** Reads the notes that a replica has made since they were last read. */
  readNotes(site: Site): Promise<void>;
  /** All replicas have met, and are told of everything. */
  rested(): void;
}

export interface RestoreOptions {
  readonly sites: readonly Site[];
  readonly history: History;
  readonly load: () => Load | null;
  /** After gateways have come or gone. */
  readonly listen: () => Promise<void>;
}

export function createRestores({ sites, history, load, listen }: RestoreOptions): Restores {
  const read = new Map<Site, number>();
  /** Restored, and perhaps still without what others know. */
  const behind = new Set<Site>();
  let restoring: Promise<void> = Promise.resolve();

  async function takeNotes(site: Site): Promise<void> {
    for (const { id, ...capture } of await site.session((client) => readNotes(client, site.name, read.get(site) ?? 0))) {
      history.captures.push(capture);
      history.note({ noted: id, ...capture });
      read.set(site, id);
      // It wrote over a row that is deleted elsewhere, where that is forgotten: the write stays.
      if (behind.has(site) && capture.before !== null) history.forgivenDeletions.add(capture.key);
    }
  }

  /** What nobody else has of all that it held may be gone, whoever wrote it, and nothing else. */
  async function restoreNow(site: Site): Promise<void> {
    await load()?.pause(site);
    await site.shut();
    await listen();
    await takeNotes(site);
    history.formerLogs.push(...(await site.session(readLog)));
    const held = await heldBy(site);
    const dead = await site.session(readDead);
    const elsewhere = new Set<string>();
    const deadElsewhere = new Set<string>();
    for (const other of sites.filter((each) => each !== site)) {
      // One that does not answer is not relied on.
      for (const token of await heldBy(other).catch(() => new Set<string>())) elsewhere.add(token);
      for (const key of await other.session(readDead).catch(() => new Set<string>())) deadElsewhere.add(key);
    }
    await site.postgres.kill();
    await site.postgres.restore();
    await site.postgres.start();
    const kept = await site.session((client) => readNotes(client, site.name, 0));
    const still = new Set([...(await heldBy(site)), ...kept.flatMap(({ key, after }) => (after ? tokensOf(after).map((token) => `${key} ${token}`) : []))]);
    const stillDead = await site.session(readDead);
    for (const key of dead) if (!stillDead.has(key) && !deadElsewhere.has(key)) history.forgivenDeletions.add(key);
    const own = history.captures.flatMap(({ replica, key, after }) => (replica === site.name && after !== null ? tokensOf(after).map((token) => `${key} ${token}`) : []));
    for (const write of [...held, ...own]) if (!still.has(write) && !elsewhere.has(write)) history.forgiven.add(write);
    read.set(site, kept.at(-1)?.id ?? 0);
    behind.add(site);
    // Who writes by SQL may be back before the gateways are, and before any peer has given back what was lost.
    load()?.resume(site);
    await site.open();
    await listen();
  }

  return {
    readNotes: takeNotes,
    restore(site) {
      const turn = restoring.then(() => restoreNow(site));
      restoring = turn.catch(() => {});
      return turn;
    },
    rested: () => behind.clear(),
  };
}

async function heldBy(site: Site): Promise<Set<string>> {
  return site.session(async (client) => tokensIn([...(await readStates(client)), ...(await readAsides(client))]));
}
