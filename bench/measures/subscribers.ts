/** A conflict told to many subscribers at once, and whether all of them get all. */
import { US, type Bench, type Measure, type Sample } from '../lib/measure.ts';
import { timedSync, withPair } from '../lib/pair.ts';
import { fill } from '../lib/records.ts';
import { quantile } from '../lib/report.ts';
import { ask } from '../lib/replica.ts';
import { startServer } from '../lib/server.ts';
import { subscribeMany, type Subscribers } from '../lib/subscribers.ts';
import { withSession } from '../../src/storage/database.ts';

const MERCURIUS = 'Mercurius with jit';
const SUBSCRIBERS = 1000;
const CONFLICTS = 20;
/** Conflicts before those, until everything is compiled. */
const FIRST_CONFLICTS = 3;
const DELIVERIES = 'conflicts received, all subscribers together';
const MEDIAN = 'detected to received: median';
const P99 = 'detected to received: p99';

export const subscribers: Measure = {
  name: 'subscribers',
  title: `${CONFLICTS} conflicts, one at a time, to ${SUBSCRIBERS.toLocaleString('en')} subscribers`,
  labels: { [DELIVERIES]: { unit: '', better: 'more' }, [MEDIAN]: { unit: 'ms', better: 'less', baseline: [MERCURIUS] }, [P99]: { unit: 'ms', better: 'less', baseline: [MERCURIUS] } },
  run: async (bench) => [...(await ours(bench)), ...(await theirs(bench))],
};

async function ours(bench: Bench): Promise<Sample[]> {
  return withPair(bench, {}, async ({ a, b }) => {
    await fill(a.databaseUrl, 1, FIRST_CONFLICTS + CONFLICTS + 2);
    await timedSync(a, b);
    const clash = async (number: number): Promise<void> => {
      for (const { name, databaseUrl } of [a, b]) await withSession(databaseUrl, (client) => client.query('UPDATE users SET telephone = $1 WHERE id = $2', [`+${name} ${number}`, number * 10 + 1]));
      const { conflictsDetected } = await timedSync(a, b);
      if (conflictsDetected !== 1) throw new Error(`${US}: ${conflictsDetected} conflicts detected, and not one`);
    };
    await clash(1);
    await clash(2);
    const { conflicts } = await b.ask<{ conflicts: { id: string }[] }>('{ conflicts(first: 2) { id } }');
    bench.say(`${US}: subscribing`);
    // Whoever is told of the second, which is there already, will be told of what comes.
    const query = 'subscription ($after: ID) { conflictDetected(after: $after) { id model recordId detectedAt fields versions { replica values } } }';
    const followers = await subscribeMany(b.url, SUBSCRIBERS, query, { after: conflicts[1]?.id });
    try {
      await followers.all(1);
      bench.say(`${US}: conflicts`);
      return await measured(US, followers, 1, (number) => clash(number + 2));
    } finally {
      await followers.close();
    }
  });
}

async function theirs(bench: Bench): Promise<Sample[]> {
  const server = await startServer(bench, 'mercurius-subscriptions.ts', []);
  try {
    bench.say(`${MERCURIUS}: subscribing`);
    const query = 'subscription { conflictDetected { id model recordId detectedAt fields versions { replica nom telephone } } }';
    const followers = await subscribeMany(server.url, SUBSCRIBERS, query, {});
    try {
      while ((await ask<{ subscribed: number }>(server.url, '{ subscribed }')).subscribed < SUBSCRIBERS);
      bench.say(`${MERCURIUS}: conflicts`);
      return await measured(MERCURIUS, followers, 0, async (number) => void (await ask(server.url, 'mutation ($id: ID!) { announce(id: $id) }', { id: String(number) })));
    } finally {
      await followers.close();
    }
  } finally {
    await server.stop();
  }
}

/** @param already - Conflicts that everybody has got before. */
async function measured(subject: string, followers: Subscribers, already: number, detect: (number: number) => Promise<void>): Promise<Sample[]> {
  let delays: readonly number[] = [];
  for (let number = 1; number <= FIRST_CONFLICTS + CONFLICTS; number++) {
    await detect(number);
    delays = await followers.all(already + number);
  }
  const own = delays.slice((already + FIRST_CONFLICTS) * SUBSCRIBERS);
  return [
    { label: DELIVERIES, subject, value: own.length },
    { label: MEDIAN, subject, value: quantile(own, 0.5) },
    { label: P99, subject, value: quantile(own, 0.99) },
  ];
}
