/** Who imports what under a folder of sources, read from their text. */
import { readdir, readFile } from 'node:fs/promises';
import { dirname, join, posix, relative, sep } from 'node:path';

export interface Import {
  /** A module of the folder as `room/name.ts`; a package or built-in module by its name. */
  readonly target: string;
  readonly isOurs: boolean;
  /** Nothing of it is left when the program runs. */
  readonly typeOnly: boolean;
  /** What is taken by name; empty for the whole module. */
  readonly names: readonly string[];
}

export interface Module {
  /** `room/name.ts`; without a room at the top. */
  readonly path: string;
  readonly imports: readonly Import[];
  readonly text: string;
  /** The text without its comments. */
  readonly code: string;
}

/** @returns every module of a folder and every file of SQL, but those of `generated/`, in order of path. */
export async function readModules(root: string): Promise<Module[]> {
  const entries = await readdir(root, { recursive: true, withFileTypes: true });
  const paths = entries
    .filter((entry) => entry.isFile() && /\.([cm]?[jt]sx?|sql)$/.test(entry.name))
    .map((entry) => relative(root, join(entry.parentPath, entry.name)).split(sep).join('/'))
    .filter((path) => !path.startsWith('generated/'))
    .toSorted();
  return Promise.all(
    paths.map(async (path) => {
      const text = await readFile(join(root, path), 'utf8');
      const code = withoutComments(text);
      return { path, text, code, imports: importsOf(path, code) };
    }),
  );
}

/** The folder under the root that a module is in; empty for one at the top. */
export function roomOf(path: string): string {
  return path.includes('/') ? (path.split('/')[0] ?? '') : '';
}

const STATIC = /\b(?:import|export)\s+(type\s+)?([\w$*{},\s]+?)\s*\bfrom\s*(['"])([^'"]+)\3/g;
const EFFECT = /\bimport\s*(['"])([^'"]+)\1/g;
/** `import('…')`, and the type that is written `typeof import('…')` or `import('…').Name`. */
const CALL = /(\btypeof\s+)?\bimport\s*\(\s*(?:(['"`])([^'"`$]+)\2)?/g;
const REQUIRE = /\brequire\s*\(\s*(['"`])([^'"`$]+)\1/g;

function importsOf(path: string, code: string): Import[] {
  const found: Import[] = [];
  const add = (name: string, typeOnly: boolean, names: readonly string[]): void => {
    const isOurs = name.startsWith('.');
    const target = isOurs ? posix.normalize(posix.join(dirname(path), name)) : name;
    found.push({ target, isOurs, typeOnly, names });
  };
  for (const [, type, clause = '', , name = ''] of code.matchAll(STATIC)) {
    const names = /\{([^}]*)\}/.exec(clause)?.[1]?.split(',').map((part) => part.trim()).filter((part) => part !== '') ?? [];
    const allTypes = names.length > 0 && names.every((part) => part.startsWith('type ')) && clause.trim().startsWith('{');
    add(name, type !== undefined || allTypes, names.map((part) => part.replace(/^type /, '').replace(/\s+as\s.*/, '')));
  }
  for (const [, , name = ''] of code.matchAll(EFFECT)) add(name, false, []);
  for (const [, type, , name] of code.matchAll(CALL)) add(name ?? UNREADABLE, type !== undefined, []);
  for (const [, , name = ''] of code.matchAll(REQUIRE)) add(name, false, []);
  return found;
}

/** The target of an import whose name is made while the program runs. */
export const UNREADABLE = '(computed)';

/** Strings are kept whole, so that an address in one is no comment. */
function withoutComments(text: string): string {
  return text.replaceAll(/('(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")|\/\*[\s\S]*?\*\/|(?<=^|\s)\/\/.*$/gm, (_, literal: string | undefined) => literal ?? '');
}
