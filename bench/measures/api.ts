/** What one process answers: reads and writes over GraphQL, the same table behind each. */
import { makeTable } from '../lib/logical.ts';
import { operate, type Operation } from '../lib/load.ts';
import { US, type Bench, type Measure, type Sample } from '../lib/measure.ts';
import { processorTimeOf } from '../lib/process.ts';
import { fill } from '../lib/records.ts';
import { freePorts, startReplica } from '../lib/replica.ts';
import { startServer } from '../lib/server.ts';

const CLIENTS = 32;
const RECORDS = 10_000;
/** Until everything is compiled, which takes its time on a busy machine. */
const WARM_UP = { seconds: 2, least: 4_000 };
const SECONDS = 5;
/** Of each server's pool, as many as Replique has for its models. */
const CONNECTIONS = 10;

type Work = 'list of 20' | 'by id' | 'create' | 'update';
const WORKS: readonly Work[] = ['list of 20', 'by id', 'create', 'update'];
const timeOf = (work: Work): string => `${work}: processor time of the process`;

interface Api {
  readonly name: string;
  readonly operations: Readonly<Record<Work, string>>;
  start(bench: Bench, databaseUrl: string): Promise<{ readonly url: string; readonly pid: number; stop(): Promise<void> }>;
}

const FIELDS = 'id nom email telephone createdAt';
/** Mercurius has the same schema as we. */
const OPERATIONS: Api['operations'] = {
  'list of 20': `query { users(first: 20) { ${FIELDS} } }`,
  'by id': `query ($id: ID!) { user(id: $id) { ${FIELDS} } }`,
  create: `mutation ($nom: String!, $email: String!, $telephone: String) { createUser(input: { nom: $nom, email: $email, telephone: $telephone }) { ${FIELDS} } }`,
  update: `mutation ($id: ID!, $telephone: String) { updateUser(id: $id, input: { telephone: $telephone }) { ${FIELDS} } }`,
};

const POSTGRAPHILE = 'PostGraphile';
const MERCURIUS = 'Mercurius with jit';
const POSTGRAPHILE_FIELDS = 'rowId nom email telephone createdAt';

const APIS: readonly Api[] = [
  {
    name: US,
    operations: OPERATIONS,
    async start(bench, databaseUrl) {
      const [port] = (await freePorts(1)) as [number];
      return startReplica({ bench, name: 'a', port, databaseUrl, peers: {}, env: { NODE_ENV: 'production' } });
    },
  },
  {
    name: POSTGRAPHILE,
    operations: {
      'list of 20': `query { allUsers(first: 20) { nodes { ${POSTGRAPHILE_FIELDS} } } }`,
      'by id': `query ($id: Int!) { userByRowId(rowId: $id) { ${POSTGRAPHILE_FIELDS} } }`,
      create: `mutation ($nom: String!, $email: String!, $telephone: String) { createUser(input: { user: { nom: $nom, email: $email, telephone: $telephone } }) { user { ${POSTGRAPHILE_FIELDS} } } }`,
      update: `mutation ($id: Int!, $telephone: String) { updateUserByRowId(input: { rowId: $id, userPatch: { telephone: $telephone } }) { user { ${POSTGRAPHILE_FIELDS} } } }`,
    },
    start: (bench, databaseUrl) => startOther(bench, 'postgraphile.ts', databaseUrl),
  },
  { name: MERCURIUS, operations: OPERATIONS, start: (bench, databaseUrl) => startOther(bench, 'mercurius.ts', databaseUrl) },
];

async function startOther(bench: Bench, file: string, databaseUrl: string): ReturnType<Api['start']> {
  await makeTable(databaseUrl);
  return startServer(bench, file, [databaseUrl, String(CONNECTIONS)]);
}

export const api: Measure = {
  name: 'api',
  title: `GraphQL, ${CLIENTS} clients, one process, ${RECORDS.toLocaleString('en')} records`,
  labels: Object.fromEntries([
    ...WORKS.map((work) => [work, { unit: '/s', better: 'more', baseline: [POSTGRAPHILE, MERCURIUS] }] as const),
    ...WORKS.map((work) => [timeOf(work), { unit: 'ms', better: 'less', baseline: [POSTGRAPHILE, MERCURIUS] }] as const),
  ]),
  async run(bench) {
    const samples: Sample[] = [];
    for (const each of APIS) samples.push(...(await measured(bench, each)));
    return samples;
  },
};

async function measured(bench: Bench, { name, operations, start }: Api): Promise<Sample[]> {
  return bench.withDatabases(async (databaseUrl) => {
    const server = await start(bench, databaseUrl);
    try {
      await fill(databaseUrl, 1, RECORDS);
      const samples: Sample[] = [];
      for (const work of WORKS) {
        bench.say(`${name}: ${work}`);
        const next = operationsOf(work, operations[work]);
        await operate(server.url, { clients: CLIENTS, ...WARM_UP }, next);
        const before = processorTimeOf(server.pid);
        const { done, seconds } = await operate(server.url, { clients: CLIENTS, seconds: SECONDS }, next);
        samples.push(
          { label: work, subject: name, value: done / seconds },
          { label: timeOf(work), subject: name, value: (processorTimeOf(server.pid) - before) / done },
        );
      }
      return samples;
    } finally {
      await server.stop();
    }
  });
}

/** The same operations in the same order for everybody; keys in a stride that has no divisor in common with their count, so that they are spread. */
function operationsOf(work: Work, query: string): () => Operation {
  let count = 0;
  const key = (): number => ((count * 7919) % RECORDS) * 10 + 11;
  return () => {
    count++;
    if (work === 'list of 20') return { query };
    if (work === 'create') return { query, variables: { nom: `New ${count}`, email: `new${count}@example.org`, telephone: `+33 4 ${count}` } };
    return { query, variables: { id: key(), ...(work === 'update' && { telephone: `+44 ${count}` }) } };
  };
}
