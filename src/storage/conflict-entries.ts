/** Entries of the conflict log as they are written: opened, brought up to date, closed. Each of these is one statement for any number of them. */
import type { ConflictKind } from '../replication/conflict.ts';
import type { Strategy } from '../replication/version.ts';
import { numbers, texts } from './arrays.ts';
import type { ConflictChanges, ConflictRef } from './conflicts.ts';
import type { Transaction } from './database.ts';

interface Content {
  readonly kind: ConflictKind;
  readonly fields: readonly string[];
  /** The sides, as they are stored. */
  readonly sides: string;
  /** Of a conflict over a unique value: who holds it, as `encodeHolder` writes it. */
  readonly holder?: string;
}

/** How a conflict ended. */
export interface Ending {
  readonly strategy: Strategy;
  readonly by: string;
  /** The values that remain, as JSON; null where the record is deleted. */
  readonly values: string | null;
}

export interface OpenedEntry extends Omit<Content, 'sides'> {
  /** Null: the versions of the record, whole, as they are stored. */
  readonly sides: string | null;
  readonly model: string;
  readonly key: string;
  /** The unique constraint that it is over; left out where it is over none. */
  readonly name?: string;
  /** Of one that is resolved at once. */
  readonly ending?: Ending;
}

export interface UpdatedEntry extends Content {
  readonly id: string;
}

export interface ClosedEntry extends Ending {
  readonly id: string;
  readonly kind: ConflictKind;
  readonly fields: readonly string[];
  /** Null: as they stand. */
  readonly sides: string | null;
}

/** Opens entries, in their order; those with an ending are resolved at once. */
export async function openEntries(tx: Transaction, clock: number, entries: readonly OpenedEntry[]): Promise<ConflictRef[]> {
  if (entries.length === 0) return [];
  const rows = await tx.query(
    `INSERT INTO replication.conflict (model, key, kind, status, fields, sides, detected_at, resolved_at, resolution, resolved_by, resolved_values, resolved_seq, name, holder)
     SELECT model, key, kind, CASE WHEN strategy IS NULL THEN 'PENDING' ELSE 'RESOLVED' END, fields::text[],
            coalesce(sides::json, (SELECT versions FROM replication.record r WHERE r.model = x.model AND r.key = x.key)), $1::bigint,
            CASE WHEN strategy IS NOT NULL THEN $1::bigint END, strategy, "by", "values"::json,
            CASE WHEN strategy IS NOT NULL THEN nextval('replication.resolution') END, coalesce(name, ''), holder::json
       FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[], $9::text[], $10::text[], $11::text[])
            AS x (model, key, kind, fields, sides, strategy, "by", "values", name, holder)
     RETURNING id`,
    [
      clock,
      texts(entries.map(({ model }) => model)),
      texts(entries.map(({ key }) => key)),
      ...contentOf(entries),
      ...endingOf(entries.map(({ ending }) => ending ?? NO_ENDING)),
      texts(entries.map(({ name }) => name ?? null)),
      texts(entries.map(({ holder }) => holder ?? null)),
    ],
  );
  return entries.map(({ model, key, kind }, n) => ({ id: rows[n]?.[0] as string, model, key, kind }));
}

/** Brings pending entries up to date. */
export async function updateEntries(tx: Transaction, entries: readonly UpdatedEntry[]): Promise<void> {
  if (entries.length === 0) return;
  await tx.query(
    `UPDATE replication.conflict c SET kind = x.kind, fields = x.fields::text[], sides = x.sides::json, holder = x.holder::json
       FROM unnest($1::bigint[], $2::text[], $3::text[], $4::text[], $5::text[]) AS x (id, kind, fields, sides, holder) WHERE c.id = x.id`,
    [numbers(entries.map(({ id }) => id)), ...contentOf(entries), texts(entries.map(({ holder }) => holder ?? null))],
  );
}

export async function closeEntries(tx: Transaction, clock: number, entries: readonly ClosedEntry[]): Promise<ConflictChanges['resolved']> {
  if (entries.length === 0) return [];
  const rows = await tx.query(
    `UPDATE replication.conflict c
        SET status = 'RESOLVED', kind = x.kind, fields = x.fields::text[], sides = coalesce(x.sides::json, c.sides), resolved_at = $1::bigint, resolution = x.strategy,
            resolved_by = x."by", resolved_values = x."values"::json, resolved_seq = nextval('replication.resolution')
       FROM unnest($2::bigint[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[]) AS x (id, kind, fields, sides, strategy, "by", "values")
      WHERE c.id = x.id
      RETURNING c.id, c.resolution, c.resolved_at - c.detected_at`,
    [clock, numbers(entries.map(({ id }) => id)), ...contentOf(entries), ...endingOf(entries)],
  );
  return rows.map(([id, strategy, micros]) => ({ id: id as string, strategy: strategy as Strategy, seconds: Number(micros) / 1e6 }));
}

const NO_ENDING = { strategy: null, by: null, values: null };

/** Kinds, fields and sides. */
function contentOf(entries: readonly { readonly kind: ConflictKind; readonly fields: readonly string[]; readonly sides: string | null }[]): Buffer[] {
  return [texts(entries.map(({ kind }) => kind)), texts(entries.map(({ fields }) => `{${fields.map((field) => JSON.stringify(field)).join()}}`)), texts(entries.map(({ sides }) => sides))];
}

function endingOf(endings: readonly (Ending | typeof NO_ENDING)[]): Buffer[] {
  return [texts(endings.map(({ strategy }) => strategy)), texts(endings.map(({ by }) => by)), texts(endings.map(({ values }) => values))];
}
