/** The rules of who may import what, over the sources as they are; and that each rule can fail. */
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { builtinModules } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { describe, expect, it } from 'vitest';

import { readModules, roomOf, UNREADABLE, type Import, type Module } from './support/imports.ts';

const src = fileURLToPath(new URL('../src', import.meta.url));

interface Rule {
  /** What it may import of ours beside its own room: a room, or a path's beginning. */
  readonly values: readonly string[];
  /** What it may import types from, in addition. */
  readonly types?: readonly string[];
  /** The packages and built-in modules it may import; any, where not given. */
  readonly packages?: readonly string[];
}

/** By room; a module at the top has a rule of its own. */
const RULES: Readonly<Record<string, Rule>> = {
  // Pure. A package here does no I/O either.
  replication: { values: [], packages: ['zod'] },
  storage: { values: ['replication/'] },
  peers: { values: ['replication/'] },
  services: { values: ['replication/', 'storage/', 'peers/', 'generated/prisma/'] },
  // Pothos plans reads straight over Prisma.
  graphql: { values: ['services/', 'generated/prisma/', 'generated/pothos.ts'] },
  rest: { values: ['services/'], types: ['telemetry/'] },
  telemetry: { values: [], types: ['services/'] },
  demo: { values: ['generated/graphql/'] },

  'main.ts': { values: [''] },
  'models.ts': { values: ['generated/prisma/', 'generated/pothos.ts'], types: ['replication/', 'storage/'] },
  'server.ts': { values: [], types: ['graphql/', 'rest/'] },
  'config.ts': { values: ['config-values.ts'] },
  'config-values.ts': { values: [], types: ['config.ts'] },
  'progress.ts': { values: [], packages: [] },
  'startup.ts': { values: ['config.ts', 'storage/embedded.ts', 'storage/migrate.ts'] },
  'supervisor.ts': { values: ['config.ts', 'storage/embedded.ts'] },
  'reset.ts': { values: ['config.ts', 'startup.ts', 'storage/embedded.ts'] },
  'demo.ts': { values: ['config.ts', 'demo/', 'progress.ts', 'startup.ts', 'supervisor.ts'] },
  'cli.ts': { values: ['config.ts', 'demo.ts', 'main.ts', 'progress.ts', 'reset.ts', 'startup.ts', 'supervisor.ts', 'telemetry/log.ts'] },
};

/** What a pure module may not touch. */
const IMPURE = /\b(?:Date\.now|new Date\(\s*\)|Math\.random|process|performance|crypto|console|globalThis|fetch|require|set(?:Timeout|Interval|Immediate))\b|\bnew Date\(\s*\)/;

/** The rooms that take any model's description, and know none. */
const ANY_MODEL = new Set(['replication', 'storage', 'peers']);
const A_MODEL = /\bUsers?\b|['"`]users['"`]/;

/** A room's parts are put together in `main.ts`; anywhere else they come in as arguments. */
const BUILDER = /^(?:create|open|start)[A-Z](?!.*Input$)/;
const BUILDS_ELSEWHERE = new Set(['cli.ts telemetry/log.ts', 'demo.ts demo/client.ts', 'demo.ts demo/terminal.ts']);

function faultsOf(module: Module): string[] {
  const { path, code, text, imports } = module;
  const room = roomOf(path);
  const rule = RULES[room || path];
  if (rule === undefined) return [`${path} has no rule: say in RULES what it may import`];
  const faults = imports.flatMap((each) => importFault(path, room, rule, each));
  const impure = room === 'replication' ? IMPURE.exec(code) : null;
  if (impure !== null) faults.push(`${path} is not pure: ${impure[0]}`);
  if (ANY_MODEL.has(room) && A_MODEL.test(text)) faults.push(`${path} names a model`);
  return faults;
}

function importFault(path: string, room: string, rule: Rule, { target, isOurs, typeOnly, names }: Import): string[] {
  const says = typeOnly ? 'types of ' : '';
  if (!isOurs) {
    const name = target.startsWith('node:') || builtinModules.includes(target) ? target : target.split('/').slice(0, target.startsWith('@') ? 2 : 1).join('/');
    const fits = target !== UNREADABLE && (rule.packages?.includes(name) ?? true);
    return fits ? [] : [`${path} imports ${says}${target}`];
  }
  if (target === 'main.ts' && path !== 'cli.ts') return [`${path} imports ${says}main.ts`];
  if (target.startsWith('../')) return [`${path} imports ${says}${target}`];
  const own = room !== '' && roomOf(target) === room;
  const allowed = [...rule.values, ...(typeOnly ? (rule.types ?? []) : [])];
  if (!own && !allowed.some((start) => target.startsWith(start))) return [`${path} imports ${says}${target}`];
  const builder = own || typeOnly || path === 'main.ts' || BUILDS_ELSEWHERE.has(`${path} ${target}`) ? undefined : names.find((name) => BUILDER.test(name));
  return builder === undefined || roomOf(target) === '' ? [] : [`${path} builds with ${builder} of ${target}`];
}

describe('the sources', () => {
  it('keep the rules, every module of them', async () => {
    const modules = await readModules(src);
    expect(modules.flatMap(faultsOf)).toEqual([]);
    expect(modules.length).toBeGreaterThan(60);
    // An import that the reader misses would be one that no rule holds: nearly every module has some.
    expect(modules.flatMap(({ imports }) => imports).length).toBeGreaterThan(3 * modules.length);
    for (const { path, imports } of modules) {
      for (const { isOurs, target } of imports) {
        if (isOurs && !target.startsWith('generated/')) expect([path, modules.some((module) => module.path === target)]).toEqual([path, true]);
      }
    }
    for (const room of Object.keys(RULES)) expect([room, modules.some(({ path }) => path === room || roomOf(path) === room)]).toEqual([room, true]);
  });
});

describe('a rule', () => {
  it.each<[path: string, text: string, faults: string[]]>([
    ['replication/a.ts', "import { x } from '../storage/x.ts';", ['imports storage/x.ts']],
    ['replication/a.ts', "import type { X } from '../services/x.ts';", ['imports types of services/x.ts']],
    ['replication/a.ts', "export * from '../config.ts';", ['imports config.ts']],
    ['replication/a.ts', "import { readFile } from 'node:fs/promises';", ['imports node:fs/promises']],
    ['replication/a.ts', "import fs from 'fs';", ['imports fs']],
    ['replication/a.ts', "import pg from 'pg';", ['imports pg']],
    ['replication/a.ts', 'export const now = () => Date.now();', ['is not pure: Date.now']],
    ['replication/a.ts', 'export const now = () => new Date();', ['is not pure: new Date()']],
    ['replication/a.ts', 'export const die = Math.random();', ['is not pure: Math.random']],
    ['replication/a.ts', 'export const name = process.env.NAME;', ['is not pure: process']],
    ['replication/a.ts', "// Math.random is not used; see 'http://x'.\nimport { z } from 'zod';\nimport { b } from './b.ts';\nexport const c = new Date(b);", []],
    ['storage/a.ts', "import { x } from '../peers/x.ts';", ['imports peers/x.ts']],
    ['storage/a.ts', "import { PrismaClient } from '../generated/prisma/client.ts';", ['imports generated/prisma/client.ts']],
    ['storage/a.ts', "const { x } = await import('../services/x.ts');", ['imports services/x.ts']],
    ['storage/a.ts', 'const x = await import(name);', ['imports (computed)']],
    ['storage/a.ts', "let x: typeof import('../config.ts');", ['imports types of config.ts']],
    ['storage/a.ts', "// The table of User\nimport { x } from '../replication/x.ts';", ['names a model']],
    ['peers/a.ts', "import '../storage/x.ts';", ['imports storage/x.ts']],
    ['peers/a.ts', "const table = 'users';", ['names a model']],
    ['storage/sql/001.sql', 'SELECT * FROM "users";', ['names a model']],
    ['services/a.ts', "import { x } from '../graphql/x.ts';", ['imports graphql/x.ts']],
    ['services/a.ts', "import { openDatabase } from '../storage/database.ts';", ['builds with openDatabase of storage/database.ts']],
    ['graphql/a.ts', "import { type X } from '../storage/x.ts';", ['imports types of storage/x.ts']],
    ['graphql/a.ts', "import {\n  type X,\n  y,\n} from '../replication/x.ts';", ['imports replication/x.ts']],
    ['rest/a.ts', "import { PrismaClient } from '../generated/prisma/client.ts';", ['imports generated/prisma/client.ts']],
    ['rest/a.ts', "import { createMetrics } from '../telemetry/metrics.ts';", ['imports telemetry/metrics.ts']],
    ['rest/a.ts', "import { createUsers } from '../services/users.ts';", ['builds with createUsers of services/users.ts']],
    ['telemetry/a.ts', "import { x } from '../services/x.ts';", ['imports services/x.ts']],
    ['reset.ts', "import { startReplica } from './main.ts';", ['imports main.ts']],
    ['cli.ts', "import { createSync } from './services/sync.ts';", ['imports services/sync.ts']],
    ['server.ts', "import { readFile } from '../test/support/x.ts';", ['imports ../test/support/x.ts']],
    ['drawer/a.ts', '', ['has no rule: say in RULES what it may import']],
  ])('fails for %s with %j', async (path, text, expected) => {
    const root = await mkdtemp(join(tmpdir(), 'replique-planted-'));
    try {
      await mkdir(dirname(join(root, path)), { recursive: true });
      await writeFile(join(root, path), text);
      const faults = (await readModules(root)).flatMap(faultsOf);
      expect(faults).toEqual(expected.map((fault) => `${path} ${fault}`));
    } finally {
      await rm(root, { recursive: true, force: true });
    }
  });
});
