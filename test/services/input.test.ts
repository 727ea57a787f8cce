import fc from 'fast-check';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

import { ServiceError } from '../../src/services/errors.ts';
import { createUserInput, localId, pageSize, parse, updateUserInput, userId } from '../../src/services/input.ts';
import type { Database } from '../../src/storage/database.ts';
import { createParties, type Parties } from './parties.ts';

let parties: Parties;
let db: Database;
beforeAll(async () => {
  parties = createParties();
  ({ db } = await parties.open('a', { slot: 1 }));
});
afterAll(() => parties.close());

const problem = (schema: Parameters<typeof parse>[0], value: unknown): ServiceError | null => {
  try {
    parse(schema, value, 'it');
    return null;
  } catch (error) {
    return error as ServiceError;
  }
};

/** Anything that JavaScript calls a string: NUL, lone surrogates, noncharacters, marks that combine, right to left. */
const anyText = fc.oneof(
  fc.string({ unit: 'binary', maxLength: 20 }),
  fc.string({ unit: 'grapheme', maxLength: 210 }),
  fc.array(fc.integer({ min: 0, max: 0xffff }), { maxLength: 20 }).map((units) => String.fromCharCode(...units)),
  fc.constantFrom('\0', '\ud800', '\udc00a', '\uffff', '\ufeff', '\u202e', '\u200b', ' ', '', "'; DROP TABLE users; --", '\\x00', '\\', '{}', 'NULL'),
);
const anyEmail = fc.oneof(
  { weight: 4, arbitrary: fc.emailAddress() },
  { weight: 1, arbitrary: anyText },
  { weight: 1, arbitrary: fc.tuple(anyText, fc.constantFrom('@x.org', '@', '@é.org')).map(([name, host]) => name + host) },
);

describe('what passes', () => {
  it('PostgreSQL stores and gives back as it was', async () => {
    const one = fc.oneof(
      anyText.map((nom) => ({ nom, email: 'x@x.org' })),
      anyEmail.map((email) => ({ nom: 'x', email })),
      anyText.map((telephone) => ({ nom: 'x', email: 'x@x.org', telephone })),
    );
    const passed: { nom: string; email: string; telephone?: string }[] = [];
    fc.assert(
      fc.property(one, (input) => {
        const error = problem(createUserInput, input);
        if (error === null) passed.push(input);
        else expect(error).toMatchObject({ code: 'BAD_USER_INPUT', errors: expect.arrayContaining([{ field: expect.stringMatching(/^(nom|email|telephone)$/), message: expect.any(String) }]) });
      }),
      { numRuns: 2_000 },
    );
    expect(passed.length).toBeGreaterThan(50);
    // The same email is no other user's.
    await db.query('ALTER TABLE users DROP CONSTRAINT IF EXISTS users_email_key; DROP INDEX IF EXISTS users_email_key');
    const values = passed.map(({ nom, email, telephone }) => [nom, email, telephone ?? null] as const);
    const stored = await db.query(
      `INSERT INTO users (nom, email, telephone) SELECT n, e, t FROM unnest($1::text[], $2::text[], $3::text[]) AS x (n, e, t) RETURNING nom, email, telephone`,
      [0, 1, 2].map((column) => values.map((value) => value[column])),
    );
    expect(stored).toEqual(values);
  });

  it('is within the limits, to the character', () => {
    const user = { nom: 'x', email: 'x@x.org' };
    const long = (length: number) => `${'x'.repeat(60)}@${'y.'.repeat((length - 64) / 2)}org`;
    for (const [over, fits] of [
      [{ nom: 'x'.repeat(200) }, true],
      [{ nom: 'x'.repeat(201) }, false],
      [{ telephone: '1'.repeat(40) }, true],
      [{ telephone: '1'.repeat(41) }, false],
      [{ email: long(254) }, true],
      [{ email: long(256) }, false],
      [{ telephone: null }, true],
      [{ telephone: undefined }, true],
      [{ nom: null }, false],
      [{ email: null }, false],
    ] as const) {
      expect(problem(createUserInput, { ...user, ...over }) === null, JSON.stringify(over)).toBe(fits);
      expect(problem(updateUserInput, { nom: 'y', ...over }) === null, JSON.stringify(over)).toBe(fits);
    }
    expect(problem(updateUserInput, {})?.message).toContain('at least one field');
    expect(problem(updateUserInput, { nom: undefined })?.message).toContain('at least one field');
  });

  it('is no member that is not known, under whatever name', () => {
    fc.assert(
      fc.property(fc.string().filter((name) => !['nom', 'email', 'telephone'].includes(name)), (name) => {
        const input = JSON.parse(`{"nom": "x", "email": "x@x.org", ${JSON.stringify(name)}: 1}`) as unknown;
        expect(problem(createUserInput, input)?.errors).toEqual([{ field: name, message: 'is not a known field' }]);
      }),
    );
    expect(problem(createUserInput, JSON.parse('{"nom": "x", "email": "x@x.org", "__proto__": {}}'))).toBeInstanceOf(ServiceError);
  });
});

describe('numbers', () => {
  it.each<[string, Parameters<typeof parse>[0], readonly unknown[], readonly unknown[]]>([
    ['a user', userId, [1, '1', 2_147_483_647, '2147483647'], [0, '0', -1, 1.5, '1.5', '01', '+1', ' 1', '1e3', '2147483648', 2 ** 31, Number.NaN, Infinity, '', null, undefined, true, [1], {}, 10n]],
    ['a conflict', localId, [1, '1', '999999999999999999'], [0, '0', -1, 1.5, '01', '9999999999999999999', Number.NaN, Infinity, '', null, [1], {}]],
    ['a page', pageSize, [1, 1000], [0, 1001, 1.5, '10', Number.NaN, null, {}, -1]],
  ])('of %s', (_what, schema, good, bad) => {
    for (const value of good) expect(problem(schema, value), String(value)).toBeNull();
    for (const value of bad) expect(problem(schema, value)?.code, typeof value).toBe('BAD_USER_INPUT');
  });
});
