/** Replicas as processes of their own, and a proxy between them that can hold a message while something is done to either. */
import { spawn, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { createServer, type IncomingMessage, type ServerResponse } from 'node:http';
import { createServer as createSocketServer, type AddressInfo } from 'node:net';
import { fileURLToPath } from 'node:url';

export interface ReplicaProcess {
  readonly url: string;
  post(path: string): Promise<Response>;
  /** kill -9; resolves once it is gone. */
  kill(): Promise<void>;
  /** Stops it where it stands, or lets it go on. */
  signal(signal: 'SIGSTOP' | 'SIGCONT'): void;
}

const ROOT = fileURLToPath(new URL('../..', import.meta.url));

/** Starts `npm run replica` and waits until it says that it is ready. */
export async function startProcess(env: Readonly<Record<string, string>>): Promise<ReplicaProcess> {
  const child = spawn(process.execPath, ['bin/replique.js', 'replica'], {
    cwd: ROOT,
    env: { PATH: process.env['PATH'] ?? '', LOG_LEVEL: 'error', ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const url = `http://127.0.0.1:${env['PORT']}`;
  await ready(child);
  return {
    url,
    post: (path) => fetch(url + path, { method: 'POST', headers: { 'content-type': 'application/json' } }),
    signal: (signal) => void child.kill(signal),
    async kill() {
      if (child.exitCode !== null || child.signalCode !== null) return;
      const gone = once(child, 'exit');
      child.kill('SIGKILL');
      await gone;
    },
  };
}

async function ready(child: ChildProcess): Promise<void> {
  let said = '';
  await new Promise<void>((resolve, reject) => {
    child.stdout?.on('data', (text) => {
      said += String(text);
      if (said.includes('is ready')) resolve();
    });
    child.stderr?.on('data', (text) => {
      said += String(text);
    });
    child.once('exit', () => reject(new Error(`the replica ended:\n${said}`)));
  });
}

/** A port that nothing listens on now. */
export async function freePort(): Promise<number> {
  const server = createSocketServer();
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}

/** A message on its way. It goes on when told, or never arrives. */
export interface HeldMessage {
  pass(): void;
  drop(): void;
}

export interface Proxy {
  readonly port: number;
  /** Holds the next `nth` batch on its way there, or its answer on its way back. */
  hold(what: 'batch' | 'answer', nth?: number): Promise<HeldMessage>;
  close(): Promise<void>;
}

/** Passes HTTP on to `target`, each message whole. */
export async function startProxy(target: string): Promise<Proxy> {
  let held: { what: 'batch' | 'answer'; nth: number; tell: (message: HeldMessage) => void } | null = null;

  /** False where the message is to be dropped. */
  async function stop(what: 'batch' | 'answer', path: string): Promise<boolean> {
    if (held === null || held.what !== what || !path.endsWith('/changes') || --held.nth > 0) return true;
    const { tell } = held;
    held = null;
    return new Promise((resolve) => tell({ pass: () => resolve(true), drop: () => resolve(false) }));
  }

  async function relay(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? '';
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    if (!(await stop('batch', path))) throw new Error('dropped');
    const answer = await fetch(target + path, { method: 'POST', headers: { 'content-type': 'application/json' }, body: Buffer.concat(chunks) });
    const body = Buffer.from(await answer.arrayBuffer());
    if (!(await stop('answer', path))) throw new Error('dropped');
    response.writeHead(answer.status, { 'content-type': 'application/json', 'content-length': body.length });
    response.end(body);
  }

  const server = createServer((request, response) => {
    relay(request, response).catch(() => request.socket.destroy());
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    port: (server.address() as AddressInfo).port,
    hold: (what, nth = 1) =>
      new Promise((tell) => {
        held = { what, nth, tell };
      }),
    async close() {
      server.close();
      server.closeAllConnections();
      await once(server, 'close');
    },
  };
}
