/**
 * What may come in, said once: GraphQL and REST both validate with these schemas, and the REST ones are printed into OpenAPI.
 */
import { z } from 'zod';

import { ServiceError } from './errors.ts';

const INT4_MAX = 2_147_483_647;

/** PostgreSQL stores no NUL, and a lone surrogate is no text in UTF-8. */
const text = (max: number) =>
  z
    .string()
    .max(max)
    .refine((value) => !value.includes('\0'), 'must not contain a NUL character')
    .refine((value) => value.isWellFormed(), 'must not contain a lone surrogate');

const nom = text(200).refine((value) => value.trim() !== '', 'must not be blank');
const email = z
  .string()
  .max(254)
  .refine((value) => z.email().safeParse(value).success && value.isWellFormed(), 'must be an email address');
const telephone = text(40).nullable();

export const createUserInput = z.strictObject({ nom, email, telephone: telephone.optional() });

export const updateUserInput = z
  .strictObject({ nom: nom.optional(), email: email.optional(), telephone: telephone.optional() })
  .refine((input) => Object.values(input).some((value) => value !== undefined), 'must name at least one field');

/** A user's key as it comes in: an integer that PostgreSQL's `integer` holds, as a number or in decimal digits. */
export const userId = z
  .union([z.string().regex(/^[1-9]\d{0,9}$/), z.number()], 'must be a positive integer')
  .transform(Number)
  .refine((id) => Number.isInteger(id) && id >= 1 && id <= INT4_MAX, 'must be a positive integer');

/** A number that this replica gave (a conflict's id), kept as decimal digits. */
export const localId = z
  .union([z.string().regex(/^[1-9]\d{0,17}$/), z.number().int().positive()], 'must be a positive integer')
  .transform(String);

/** A peer's name, and where it answers: as in PEERS. */
export const peerAddress = z.strictObject({
  name: z.string().regex(/^[A-Za-z0-9_]{1,32}$/, 'must be 1 to 32 letters (a to z), digits and _'),
  url: z
    .string()
    .max(2_048)
    .transform((url) => url.trim().replace(/\/+$/, ''))
    .refine(isBaseUrl, 'must be an address such as http://127.0.0.1:8002, without user, query or fragment'),
});

export const pageSize = z.number().int().min(1).max(1000);

export type CreateUserInput = z.infer<typeof createUserInput>;
export type UpdateUserInput = z.infer<typeof updateUserInput>;

/**
 * Parses what came from outside.
 *
 * @param what - Named in the message: `user`, `id`, …
 * @throws ServiceError BAD_USER_INPUT, with each field and why.
 */
export function parse<T extends z.ZodType>(schema: T, value: unknown, what: string): z.output<T> {
  const result = schema.safeParse(value);
  if (result.success) return result.data;
  const errors = result.error.issues.flatMap((issue) => {
    const path = issue.path.map(String);
    if (issue.code === 'unrecognized_keys') {
      return issue.keys.map((key) => ({ field: [...path, key].join('.'), message: 'is not a known field' }));
    }
    return [{ field: path.join('.'), message: issue.message }];
  });
  const first = errors[0];
  const where = first?.field ? `${what}.${first.field}` : what;
  throw new ServiceError('BAD_USER_INPUT', `${where}: ${first?.message ?? 'does not fit'}`, errors);
}

function isBaseUrl(address: string): boolean {
  if (!/^https?:\/\//i.test(address) || !URL.canParse(address)) return false;
  const { search, hash, username, password } = new URL(address);
  return search === '' && hash === '' && username === '' && password === '';
}
