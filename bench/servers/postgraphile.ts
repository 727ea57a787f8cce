/** PostGraphile as its documentation sets it up on node:http: `postgraphile.ts DATABASE_URL CONNECTIONS`. Tells its port on stdout. */
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';

import '../lib/node20.ts';

import { grafserv } from 'grafserv/node';
import { postgraphile } from 'postgraphile';
import { makePgService } from 'postgraphile/adaptors/pg';
import { PostGraphileAmberPreset } from 'postgraphile/presets/amber';

const [, , connectionString = '', connections = ''] = process.argv;
const instance = postgraphile({
  extends: [PostGraphileAmberPreset],
  pgServices: [makePgService({ connectionString, schemas: ['public'], poolConfig: { max: Number(connections) } })],
  grafserv: { graphqlPath: '/graphql', graphiql: false, watch: false },
});
const server = createServer();
await instance.createServ(grafserv).addTo(server);
await instance.getSchema();
server.listen(0, '127.0.0.1', () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`));
process.on('SIGTERM', () => process.exit());
