/**
 * What is written, so that a row tells what its writer had seen.
 *
 * Each write puts a token of its own into the row: appended to the list in `nom`, as `telephone`, or as `email`. A list keeps its last tokens; what came before them is known from the writes that
 * dropped them. An address is given to several records, to each of them once: it is a token of its record.
 */

/** The fields that carry tokens. */
export interface Values {
  readonly nom: string;
  readonly telephone: string | null;
  readonly email: string;
}

/** Tokens of a list that are kept, so that it fits the field. */
const KEPT = 8;

export function appended(nom: string, token: string): string {
  return [...nom.split(' ').slice(-(KEPT - 1)), token].join(' ');
}

/** The same, as PostgreSQL does it: an expression over the column `nom`; `token` is an expression too. */
export function appendedSql(token: string): string {
  const list = `string_to_array(nom, ' ')`;
  return `array_to_string((${list})[greatest(1, cardinality(${list}) - ${KEPT - 2}):], ' ') || ' ' || ${token}`;
}

/** The address behind what a record shows that does not hold its own: `e1@x.org` of `e1@x.org#7`. Nobody writes a `#`. */
export function unmarked(email: string): string {
  return email.replace(/#\d+$/, '');
}

/** Every token in a value. */
export function tokensOf({ nom, telephone, email }: Values): string[] {
  return [...nom.split(' ').filter((token) => token !== ''), ...(telephone === null ? [] : [telephone]), unmarked(email)];
}

/** The last writes of each field: what a writer has seen who saw the value. */
export function lastTokens({ nom, telephone, email }: Values): string[] {
  const last = nom.split(' ').at(-1) ?? '';
  return [...(last === '' ? [] : [last]), ...(telephone === null ? [] : [telephone]), unmarked(email)];
}

export function sameValues(a: Values | null, b: Values | null): boolean {
  if (a === null || b === null) return a === b;
  return a.nom === b.nom && a.telephone === b.telephone && a.email === b.email;
}
