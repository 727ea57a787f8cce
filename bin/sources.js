/**
 * Which sources a build was made of. The whole of them is read, since times of files do not survive copies and images; that takes
 * some ten milliseconds.
 */
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

export const ROOT = fileURLToPath(new URL('..', import.meta.url));
export const BUILD = join(ROOT, 'build');
/** Written last, so that a build that was broken off counts as none. */
export const DIGEST_FILE = join(BUILD, 'digest');

/** What tells one set of installed packages from another; npm writes the second at each install. */
const PACKAGES = ['package-lock.json', join('node_modules', '.package-lock.json')];

/** @returns a digest of all that a build is made of; equal sources and packages give the same. */
export function digestOfSources() {
  const hash = createHash('sha256').update(process.version);
  for (const path of [...filesOf('src'), ...filesOf('bin'), ...PACKAGES]) hash.update(`${path}\0`).update(read(path) ?? '').update('\0');
  return hash.digest('hex');
}

/** @returns the digest of the sources that the present build was made of; null where there is none. */
export function digestOfBuild() {
  return read(DIGEST_FILE.slice(ROOT.length))?.toString() ?? null;
}

/** @param {string} folder */
function filesOf(folder) {
  return readdirSync(join(ROOT, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(ROOT.length))
    .toSorted();
}

/** @param {string} path */
function read(path) {
  try {
    return readFileSync(join(ROOT, path));
  } catch {
    return null;
  }
}
