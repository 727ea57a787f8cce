/**
 * Reading the conflict log and keeping it bounded, at any length: no question here reads more of it than it answers with.
 */
import type { ConflictEntry } from './conflicts.ts';
import type { Database } from './database.ts';
import { beginChange, type Replica } from './replica.ts';

/** Entries older than `before`, and those alone that fit what is given beside; the newest of them. */
export interface ConflictPage {
  readonly first: number;
  readonly before: string | null;
  readonly status?: ConflictEntry['status'] | null;
  readonly model?: string | null;
  readonly key?: string | null;
  readonly kind?: string | null;
}

/** The ids of a page's entries, newest first. */
export async function findConflicts(db: Pick<Database, 'query'>, page: ConflictPage): Promise<string[]> {
  const { status = null, model = null, key = null, kind = null, before, first } = page;
  const rows = await db.query(key === null && (status ?? model ?? kind) !== null ? BY_KIND : STRAIGHT, [status, model, key, kind, before, first]);
  return rows.map(([id]) => id as string);
}

/** How many entries there are, by status. */
export async function countConflicts(db: Pick<Database, 'query'>): Promise<{ readonly pending: number; readonly resolved: number }> {
  const rows = await db.query('SELECT status, entries FROM replication.conflict_count');
  const counts = new Map(rows.map(([status, entries]) => [status, Number(entries)]));
  return { pending: counts.get('PENDING') ?? 0, resolved: counts.get('RESOLVED') ?? 0 };
}

/** The last id given out, that of an entry deleted since included; '0' where there is none. */
export async function lastIdGiven(db: Pick<Database, 'query'>): Promise<string> {
  const [row] = await db.query(`SELECT coalesce(pg_sequence_last_value(pg_get_serial_sequence('replication.conflict', 'id')::regclass), 0)`);
  return row?.[0] ?? '0';
}

/**
 * Deletes resolved entries that were resolved more than `seconds` ago, at most `limit` of them, oldest resolution first; how many. Pending ones stay, whatever their age.
 *
 * The order of resolutions has an index already, and only a clock that was set back makes it another than that of their times: what stands behind such an entry goes when that one does.
 */
export async function purgeResolved(replica: Replica, seconds: number, limit: number): Promise<number> {
  const due = `SELECT id FROM (SELECT id, resolved_at FROM replication.conflict WHERE resolved_seq IS NOT NULL ORDER BY resolved_seq LIMIT $2) AS oldest
                WHERE resolved_at <= replication.clock() - $1::bigint`;
  const values = [Math.round(seconds * 1e6), limit];
  const [any] = await replica.db.query(`SELECT EXISTS (${due})`, values);
  if (any?.[0] !== 't') return 0;
  return replica.db.transaction(async (tx) => {
    await beginChange(tx);
    return (await tx.query(`DELETE FROM replication.conflict WHERE id = ANY (ARRAY(${due})) RETURNING 1`, values)).length;
  });
}

const ENDLESS = '9223372036854775807';

/** In order of id, or over the few entries of one record. */
const STRAIGHT = `SELECT id FROM replication.conflict
  WHERE ($1::text IS NULL OR status = $1) AND ($2::text IS NULL OR model = $2) AND ($3::text IS NULL OR key = $3) AND ($4::text IS NULL OR kind = $4)
    AND ($5::bigint IS NULL OR id < $5)
  ORDER BY id DESC LIMIT $6`;

/**
 * By status, model or kind: the newest of each kind and status of each model, and of them the newest. One index answers for every combination, and what is rare among a million
 * entries, or old, is found without passing the others. Rows are compared whole, since with a part of the index given the planner would rather walk in order of id and pass them after all.
 */
const BY_KIND = `WITH RECURSIVE models AS (
    SELECT coalesce($2::text, (SELECT min(model) FROM replication.conflict)) AS model
    UNION ALL
    SELECT (SELECT min(c.model) FROM replication.conflict c WHERE c.model > m.model) FROM models m WHERE m.model IS NOT NULL AND $2::text IS NULL
  )
  SELECT found.id FROM models m
   CROSS JOIN unnest(ARRAY['UPDATE_UPDATE', 'UPDATE_DELETE', 'INSERT_INSERT', 'UNIQUE']) AS k (kind)
   CROSS JOIN unnest(ARRAY['PENDING', 'RESOLVED']) AS s (status)
   CROSS JOIN LATERAL (
     SELECT id FROM replication.conflict c
      WHERE (c.model, c.kind, c.status, c.id) > (m.model, k.kind, s.status, 0) AND (c.model, c.kind, c.status, c.id) < (m.model, k.kind, s.status, coalesce($5::bigint, ${ENDLESS}))
      ORDER BY c.model DESC, c.kind DESC, c.status DESC, c.id DESC LIMIT $6
   ) AS found
   WHERE ($1::text IS NULL OR s.status = $1) AND ($4::text IS NULL OR k.kind = $4) AND $3::text IS NULL
   ORDER BY found.id DESC LIMIT $6`;
