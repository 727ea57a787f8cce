import { readdir, readFile } from 'node:fs/promises';

import { parse, validate } from 'graphql';
import { describe, expect, it } from 'vitest';

import { printAll } from '../schema/print.ts';
import { schema } from '../src/graphql/schema.ts';

const text = (path: string): Promise<string> => readFile(new URL(path, import.meta.url), 'utf8');

describe('the published contract', () => {
  it.each(Object.entries(printAll()))('%s is what the code prints (else: npm run schema)', async (name, printed) => {
    expect(await text(`../schema/${name}`)).toBe(printed);
  });

  it('allows every operation that types are made of', async () => {
    const files = await readdir(new URL('../src/operations', import.meta.url));
    const documents = await Promise.all(files.map((file) => text(`../src/operations/${file}`)));
    expect(validate(schema, parse(documents.join('\n')))).toEqual([]);
  });
});
