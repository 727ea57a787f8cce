import fc from 'fast-check';
import { describe, expect, test } from 'vitest';

import { ConfigError, readFleetConfig, readReplicaConfig, replicaEnvironment, withEnvFile } from '../src/config.ts';
import type { Environment } from '../src/config.ts';

const problemsOf = (read: (env: Environment) => unknown, env: Environment): readonly string[] => {
  try {
    read(env);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
};

describe('npm start', () => {
  test('needs nothing: a and b, each the other’s peer', () => {
    const { replicas } = readFleetConfig({});
    expect(replicas).toEqual([
      {
        name: 'a', slot: 1, stride: 10, host: '127.0.0.1', port: 8001, databaseUrl: null, sessionDatabaseUrl: null, dataDir: '.data',
        peers: [{ name: 'b', url: 'http://127.0.0.1:8002' }], syncMode: 'manual', conflictPolicy: 'manual',
        conflictRetention: 7_776_000, tombstoneRetention: 2_592_000, peerSecret: null,
      },
      expect.objectContaining({ name: 'b', slot: 2, port: 8002, peers: [{ name: 'a', url: 'http://127.0.0.1:8001' }] }),
    ]);
  });

  test('takes every variable', () => {
    const { replicas } = readFleetConfig({
      REPLICAS: 'paris, lyon ,nice', BASE_PORT: '9000', DATABASE_URL_LYON: 'postgresql://u:p@db/lyon', HOST: '::', PEER_SECRET: 's3cret', ID_STRIDE: '3',
      DATA_DIR: '/srv/data', CONFLICT_POLICY: 'field-wise', SYNC_MODE: '',
    });
    expect(replicas.map((replica) => [replica.name, replica.slot, replica.port, replica.databaseUrl])).toEqual([
      ['paris', 1, 9000, null],
      ['lyon', 2, 9001, 'postgresql://u:p@db/lyon'],
      ['nice', 3, 9002, null],
    ]);
    expect(replicas[0]).toMatchObject({
      host: '::', peerSecret: 's3cret', stride: 3, dataDir: '/srv/data', conflictPolicy: 'field-wise',
      peers: [{ name: 'lyon', url: 'http://[::1]:9001' }, { name: 'nice', url: 'http://[::1]:9002' }],
    });
  });

  test('each replica reads the same from the environment it is started with, whatever a .env says', () => {
    const { replicas } = readFleetConfig({ REPLICAS: 'x1,a', DATABASE_URL_A: 'postgres://h/d', SESSION_DATABASE_URL_A: 'postgres://around/d', PEER_SECRET: 'k', CONFLICT_POLICY: 'latest' });
    for (const replica of replicas) {
      const env = withEnvFile(replicaEnvironment(replica), 'DATABASE_URL=postgres://other/one\nSLOT=9\nPEERS=z=http://z\n');
      expect(readReplicaConfig(env)).toEqual(replica);
    }
  });

  test('reports every mistake at once', () => {
    const problems = problemsOf(readFleetConfig, {
      REPLICAS: 'a,a', BASE_PORT: '80a', ID_STRIDE: '0', HOST: '0.0.0.0', SYNC_MODE: 'sometimes', CONFLICT_POLICY: 'newest', DATABASE_URL_A: 'mysql://u:hidden@h/d',
    });
    expect(problems.map((problem) => problem.split(' ')[0])).toEqual(['REPLICAS', 'BASE_PORT', 'ID_STRIDE', 'SYNC_MODE', 'CONFLICT_POLICY', 'HOST', 'DATABASE_URL_A']);
    expect(problems.join()).not.toContain('hidden');
  });

  test.each<[string, Environment, RegExp]>([
    ['names alike but for case', { REPLICAS: 'a,A' }, /^REPLICAS names both "A" and "a"/],
    ['a name with a dash', { REPLICAS: 'a-b' }, /^REPLICAS is "a-b", which is no list/],
    ['an empty name', { REPLICAS: 'a,,b' }, /^REPLICAS is "a,,b"/],
    ['a name too long', { REPLICAS: 'x'.repeat(33) }, /^REPLICAS is/],
    ['more replicas than slots', { REPLICAS: 'a,b,c', ID_STRIDE: '2' }, /ID_STRIDE=2 has room for the keys of 2\. Set ID_STRIDE to at least 3/],
    ['ports past the last', { BASE_PORT: '65535' }, /^BASE_PORT=65535 leaves no port .* at most 65534/],
    ['one database for two', { DATABASE_URL_A: 'postgres://u@localhost/d', DATABASE_URL_B: 'postgresql://v@127.0.0.1:5432/d' }, /^DATABASE_URL_B and DATABASE_URL_A are the same/],
    ['a secret that no header holds', { PEER_SECRET: 'clé' }, /^PEER_SECRET is set to something that cannot/],
  ])('refuses %s', (_, env, message) => {
    expect(problemsOf(readFleetConfig, env)).toEqual([expect.stringMatching(message)]);
  });

  test('whatever the variables hold, the answer is a configuration or a list of problems', () => {
    const variable = fc.constantFrom('REPLICAS', 'BASE_PORT', 'HOST', 'ID_STRIDE', 'DATABASE_URL_A', 'PEER_SECRET', 'SYNC_MODE', 'CONFLICT_POLICY', 'DATA_DIR');
    const value = fc.oneof(fc.string(), fc.constantFrom('a,b', '1', '99999', 'postgres://', 'postgres://[', '::', 'é', '-1'));
    fc.assert(
      fc.property(fc.dictionary(variable, value), (env) => {
        const problems = problemsOf(readFleetConfig, env);
        if (problems.length === 0) expect(readFleetConfig(env).replicas.length).toBeGreaterThan(0);
      }),
    );
  });
});

describe('npm run replica', () => {
  test.each([['a', 1], ['C', 3], ['j', 10]])('the slot of %s is %i', (REPLICA, slot) => {
    expect(readReplicaConfig({ REPLICA })).toMatchObject({ name: REPLICA, slot, port: 8001, peers: [] });
  });

  test('takes peers', () => {
    const { peers } = readReplicaConfig({ REPLICA: 'a', PEERS: 'b=http://127.0.0.1:8002, c=https://example.org/replique/' });
    expect(peers).toEqual([{ name: 'b', url: 'http://127.0.0.1:8002' }, { name: 'c', url: 'https://example.org/replique' }]);
  });

  test.each<[string, Environment, RegExp]>([
    ['no name', {}, /^REPLICA is not set/],
    ['a name that is none', { REPLICA: 'é', SLOT: '1' }, /^REPLICA is "é", which is no replica name/],
    ['a longer name without a slot', { REPLICA: 'paris' }, /^SLOT is not set/],
    ['a slot past the stride', { REPLICA: 'a', SLOT: '11' }, /^SLOT is 11, and ID_STRIDE=10 leaves the slots 1 to 10/],
    ['slot 0', { REPLICA: 'a', SLOT: '0' }, /^SLOT is 0/],
    ['a letter past the stride', { REPLICA: 'z' }, /^the slot of "z" is its place among the letters, 26/],
    ['itself as a peer', { REPLICA: 'a', PEERS: 'a=http://h:1' }, /^PEERS names "a", which is this replica itself/],
    ['a peer twice', { REPLICA: 'a', PEERS: 'b=http://h:1,b=http://h:2' }, /^PEERS is/],
    ['two peers at one address', { REPLICA: 'a', PEERS: 'b=http://h:1,c=http://h:1/' }, /^PEERS is/],
    ['a peer without an address', { REPLICA: 'a', PEERS: 'b' }, /^PEERS is "b", which is no list of different peers/],
    ['a peer over another protocol', { REPLICA: 'a', PEERS: 'b=ftp://h' }, /^PEERS is/],
    ['port 0', { REPLICA: 'a', PORT: '0' }, /^PORT is "0", which is no port/],
    ['a host with a port', { REPLICA: 'a', HOST: '127.0.0.1:80' }, /^HOST is/],
    ['another machine’s access without a secret', { REPLICA: 'a', HOST: '10.0.0.1' }, /^HOST is "10.0.0.1", .* PEER_SECRET/],
    ['a database without a name', { REPLICA: 'a', DATABASE_URL: 'postgresql://u:p@h/' }, /^DATABASE_URL is set to something/],
  ])('refuses %s', (_, env, message) => {
    expect(problemsOf(readReplicaConfig, env)).toEqual([expect.stringMatching(message)]);
  });

  test.each([['90d', 7_776_000], ['12h', 43_200], ['30m', 1_800], ['5s', 5], ['0', 0], ['0s', 0], ['36525d', 3_155_760_000], ['forever', Infinity]])('keeps resolved conflicts %s', (text, seconds) => {
    const config = readReplicaConfig({ REPLICA: 'a', CONFLICT_RETENTION: text });
    expect(config.conflictRetention).toBe(seconds);
    expect(readReplicaConfig(replicaEnvironment(config)).conflictRetention).toBe(seconds);
  });

  test.each(['90', '-1d', '1.5h', '1d12h', '90 d', '1y', 'never', '36526d'])('%s is no span of time', (CONFLICT_RETENTION) => {
    expect(problemsOf(readReplicaConfig, { REPLICA: 'a', CONFLICT_RETENTION })).toEqual([expect.stringMatching(/^CONFLICT_RETENTION is .*no span of time\. Set a whole number and its unit/)]);
  });

  test.each(['127.0.0.1', '127.8.9.1', 'localhost', '::1'])('needs no secret on %s', (HOST) => {
    expect(readReplicaConfig({ REPLICA: 'a', HOST })).toMatchObject({ host: HOST, peerSecret: null });
  });
});

test('a .env lies under the environment, and an empty variable counts as not given', () => {
  const env = withEnvFile({ REPLICA: 'b', PORT: '' }, '# comment\nREPLICA=a\nPORT=9000\nHOST="localhost"\n');
  expect(readReplicaConfig(env)).toMatchObject({ name: 'b', port: 8001, host: 'localhost' });
});
