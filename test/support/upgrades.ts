/** Later versions of the project's schema: its migrations with others after them, and the models that they make. */
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import type { StartOptions } from '../../src/main.ts';
import type { ModelSource } from '../../src/storage/tables.ts';
import { model } from './schemas.ts';

const OWN = fileURLToPath(new URL('../../prisma/migrations', import.meta.url));

/** The project's model, with these fields besides or instead. */
export function users(fields: Readonly<Record<string, string>> = {}): ModelSource {
  const source = model('User', 'users', { id: 'Int', nom: 'String', email: 'String', telephone: 'String?', createdAt: 'DateTime', ...fields });
  return { ...source, columns: { createdAt: 'created_at' } };
}

export interface Versions {
  /** A version of the schema: the project's migrations and then these, by name. */
  version(migrations: Readonly<Record<string, string>>, models: readonly ModelSource[]): Promise<NonNullable<StartOptions['schema']>>;
  /** Removes what was written for them. */
  close(): Promise<void>;
}

export function createVersions(): Versions {
  const folders: string[] = [];
  return {
    async version(migrations, models) {
      const folder = await mkdtemp(join(tmpdir(), 'migrations-'));
      folders.push(folder);
      await cp(OWN, folder, { recursive: true });
      for (const [name, sql] of Object.entries(migrations)) {
        await mkdir(join(folder, `2100_${name}`));
        await writeFile(join(folder, `2100_${name}`, 'migration.sql'), sql);
      }
      return { models, migrations: folder };
    },
    close: async () => void (await Promise.all(folders.splice(0).map((folder) => rm(folder, { recursive: true })))),
  };
}
