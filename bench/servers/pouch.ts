/** PouchDB behind HTTP, as its documentation sets it up: `pouch.ts FOLDER`. Tells its port on stdout. */
import { mkdirSync } from 'node:fs';
import type { AddressInfo } from 'node:net';

import express from 'express';
import expressPouch from 'express-pouchdb';
import PouchDB from 'pouchdb';

const [, , folder = ''] = process.argv;
mkdirSync(folder, { recursive: true });
const app = express();
app.use('/', expressPouch(PouchDB.defaults({ prefix: `${folder}/` }), { mode: 'minimumForPouchDB', inMemoryConfig: true, logPath: `${folder}/log.txt` }));
const server = app.listen(0, '127.0.0.1', () => process.stdout.write(`${(server.address() as AddressInfo).port}\n`));
process.on('SIGTERM', () => process.exit());
