/** Commands run from a build that is made of the sources as they are now. Tried on a project of two files, under the real bin/. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { cp, mkdir, mkdtemp, readdir, rm, symlink, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { afterEach, beforeEach, expect, test } from 'vitest';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const COMPILING = 'compiling the sources …\n';

let folder: string;

beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), 'replique-build-'));
  await mkdir(join(folder, 'src/storage/sql'), { recursive: true });
  await cp(join(ROOT, 'bin'), join(folder, 'bin'), { recursive: true });
  await cp(join(ROOT, 'package-lock.json'), join(folder, 'package-lock.json'));
  await writeFile(join(folder, 'package.json'), '{ "type": "module" }');
  await symlink(join(ROOT, 'node_modules'), join(folder, 'node_modules'));
  await writeFile(join(folder, 'src/storage/sql/001.sql'), 'SELECT 1');
  await source('cli.ts', "const { say } = await import('./part.ts');\nsay(process.argv[2] as string);\n");
  await say('one');
});

afterEach(() => rm(folder, { recursive: true, force: true }));

const source = (name: string, text: string) => writeFile(join(folder, 'src', name), text);
const say = (what: string) => source('part.ts', `interface Unused { readonly a: string }\n\nexport function say(to: string): void {\n  process.stdout.write(\`${what} \${to}\`);\n}\n`);

interface Ended {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

async function run(): Promise<Ended> {
  const child = spawn(process.execPath, [join(folder, 'bin/replique.js'), 'you'], { cwd: tmpdir(), stdio: ['ignore', 'pipe', 'pipe'] });
  const said = { stdout: '', stderr: '' };
  child.stdout.on('data', (text) => (said.stdout += String(text)));
  child.stderr.on('data', (text) => (said.stderr += String(text)));
  const [code] = (await once(child, 'close')) as [number | null];
  return { code, ...said };
}

test('compiles what has changed, and only then', async () => {
  expect(await run()).toEqual({ code: 0, stdout: 'one you', stderr: COMPILING });
  expect(await run()).toEqual({ code: 0, stdout: 'one you', stderr: '' });
  const before = await readdir(join(folder, 'build'));
  await say('two');
  expect(await run()).toEqual({ code: 0, stdout: 'two you', stderr: COMPILING });
  expect(await readdir(join(folder, 'build'))).toHaveLength(before.length);
});

test('of the files that it reads at run time it has those that there are now', async () => {
  await run();
  await rm(join(folder, 'src/storage/sql/001.sql'));
  await writeFile(join(folder, 'src/storage/sql/002.sql'), 'SELECT 2');
  expect((await run()).code).toBe(0);
  expect(await readdir(join(folder, 'build/sql'))).toEqual(['002.sql']);
});

test('packages that were installed anew are compiled in', async () => {
  await run();
  await writeFile(join(folder, 'package-lock.json'), '{}');
  expect((await run()).stderr).toBe(COMPILING);
});

test('a build that was broken off is made anew', async () => {
  await run();
  await rm(join(folder, 'build/digest'));
  expect(await run()).toEqual({ code: 0, stdout: 'one you', stderr: COMPILING });
});

test('two that start at once both run', async () => {
  const both = await Promise.all([run(), run()]);
  expect(both.map(({ code, stdout }) => ({ code, stdout }))).toEqual([
    { code: 0, stdout: 'one you' },
    { code: 0, stdout: 'one you' },
  ]);
});

test('a stack trace names the source and its line', async () => {
  await source('part.ts', 'interface Unused { readonly a: string }\n\nexport function say(): void {\n  throw new Error("fault");\n}\n');
  const { code, stderr } = await run();
  expect(code).toBe(1);
  expect(stderr).toMatch(/at .*say.* \(?.*src\/part\.ts:4:\d+/);
});

test('what does not compile is said, and nothing runs', async () => {
  await source('part.ts', 'export function say(');
  const { code, stdout, stderr } = await run();
  expect(code).toBe(1);
  expect(stdout).toBe('');
  expect(stderr).toMatch(/src\/part\.ts:1:\d+[\s\S]*The sources could not be compiled\./);
});
