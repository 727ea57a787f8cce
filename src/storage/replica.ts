/** What the parts of storage share: the database, the models' tables, and who this replica is. */
import { createHash } from 'node:crypto';

import type { ReplicatedModel } from '../replication/model.ts';
import type { Policy } from '../replication/policy.ts';
import type { Era } from '../replication/exchange.ts';
import type { RosterMember } from '../replication/protocol.ts';
import { installCapture } from './capture.ts';
import type { Database, Transaction } from './database.ts';
import { installSchema } from './schema.ts';
import { showCarried } from './upgrade.ts';
import { adoptFields, keepDefaults, registerFields } from './fields.ts';
import { describeTables, refreshTable, type ModelSource, type ModelTable } from './tables.ts';

/** This replica's own side of the roster. */
export interface Identity {
  readonly id: string;
  readonly name: string;
  readonly slot: number;
  readonly stride: number;
}

export interface Replica extends Identity {
  readonly db: Database;
  readonly policy: Policy;
  /** By model. */
  readonly tables: ReadonlyMap<string, ModelTable>;
  /** What a fault of a peer or of the disk would show: told once each, never thrown. */
  readonly report: (problem: string) => void;
}

export interface ReplicaOptions extends Omit<Identity, 'id'> {
  readonly policy: Policy;
  readonly models: readonly ModelSource[];
  readonly report: (problem: string) => void;
}

/** The database belongs to another replica, or was set up otherwise. */
export class IdentityError extends Error {}

/**
 * Makes a migrated database a replica's, or takes it up again: the schema `replication`, the triggers, the key sequences, and who it is.
 *
 * @throws IdentityError where the database was another replica's, or had another slot or stride.
 */
export async function openReplica(db: Database, options: ReplicaOptions): Promise<Replica> {
  return db.transaction(async (tx) => {
    await installSchema(tx);
    const id = await identify(tx, options);
    // Before any table's lock, as in every transaction that changes states.
    const now = await beginChange(tx);
    const sources = await adoptFields(tx, options.models);
    const added = new Map<string, string[]>();
    for (const source of sources) added.set(source.name, await registerFields(tx, source));
    const tables = await describeTables(tx, sources);
    for (const { name: model, fields } of tables) await keepDefaults(tx, model, fields);
    await installCapture(tx, tables);
    const { name, slot, stride, policy, report } = options;
    const replica: Replica = { id, name, slot, stride, db, policy, report, tables: new Map(tables.map((table) => [table.name, table])) };
    for (const table of tables) {
      await spaceKeys(tx, table, options);
      const fields = added.get(table.name) ?? [];
      if (fields.length > 0) await showCarried(tx, replica, now, table, fields);
    }
    return replica;
  });
}

/** The models without what only storage needs to know. */
export function modelsOf(replica: Pick<Replica, 'tables'>): ReplicatedModel[] {
  return [...replica.tables.values()].map(({ name, key, fields }) => ({ name, key, fields }));
}

/** Looks whether another process has changed the models' fields or constraints, and describes those tables anew. */
export async function refreshSchema(replica: Replica): Promise<void> {
  const generations = new Map((await replica.db.query('SELECT model, generation FROM replication.generation')).map(([model, generation]) => [model, Number(generation)]));
  const stale = [...replica.tables.values()].filter(({ name, generation }) => generations.get(name) !== generation);
  if (stale.length === 0) return;
  await replica.db.transaction(async (tx) => {
    for (const table of stale) await refreshTable(tx, table);
  });
}

/** By model, the fields of each unique constraint. */
export function uniqueOf(replica: Replica): Record<string, string[][]> {
  return Object.fromEntries([...replica.tables.values()].map(({ name, unique }) => [name, unique.map(({ fields }) => [...fields])]));
}

/** What `schemaOf` has made of which fields: it is asked for with each batch, and changes as good as never. */
const schemas = new WeakMap<Replica['tables'], { readonly fields: readonly ModelTable['fields'][]; readonly schema: string }>();

/** Stands for the models as they are described now: another where a peer that has compared them would have to do so again. */
export function schemaOf(replica: Pick<Replica, 'tables'>): string {
  const fields = Array.from(replica.tables.values(), (table) => table.fields);
  const known = schemas.get(replica.tables);
  if (known?.fields.every((each, n) => each === fields[n])) return known.schema;
  const schema = digestOfModels(replica);
  schemas.set(replica.tables, { fields, schema });
  return schema;
}

function digestOfModels(replica: Pick<Replica, 'tables'>): string {
  const models = modelsOf(replica).map(({ name, key, fields }) => [name, key, fields.toSorted((a, b) => (a.name < b.name ? -1 : 1))]);
  // Two processes of one replica may know the same in different orders.
  const text = JSON.stringify(models.toSorted(([a], [b]) => ((a as string) < (b as string) ? -1 : 1)));
  return createHash('sha256').update(text).digest('base64url');
}

/** This replica's incarnations in the order they began, within a transaction. */
export async function erasOf(tx: Pick<Transaction, 'query'>): Promise<Era[]> {
  const rows = await tx.query('SELECT incarnation, first FROM replication.era ORDER BY ordinal');
  return rows.map(([incarnation, first]) => ({ incarnation: incarnation as string, first: Number(first) }));
}

/** This replica's incarnations in the order they began, the present one last. Begins the present one where no change of state has yet. */
export async function readEras(replica: Replica): Promise<Era[]> {
  const [eras, present] = await Promise.all([erasOf(replica.db), readIncarnation(replica)]);
  if (eras.at(-1)?.incarnation === present) return eras;
  return replica.db.transaction(async (tx) => {
    await beginChange(tx);
    return erasOf(tx);
  });
}

/** The present incarnation, which a restart of the database changes under a running process. */
export async function readIncarnation(replica: Replica): Promise<string> {
  const [row] = await replica.db.query('SELECT replication.incarnation()');
  return row?.[0] as string;
}

/** What a transaction that changes states knows from its beginning on: nobody else changes it meanwhile. */
export interface Now {
  /** The present incarnation. */
  readonly incarnation: string;
  /** The database's, in microseconds since 1970. */
  readonly clock: number;
  /** Whether anything is set aside (see reseed.ts). */
  readonly aside: boolean;
  /** The last place in the feed that was given out. */
  readonly lastPlace: number;
  /** How often this replica had forgotten records, and how often what its records go back to had changed. */
  readonly generation: number;
  readonly rootChanges: number;
  /** Whether a record may claim a unique value that its row does not tell, and whether a collision may not be told yet. Whoever in this transaction adds the first of them notes it here. */
  claimed: boolean;
  deferred: boolean;
}

/**
 * Takes the state lock: one transaction at a time changes states, so that places in the feed become visible in the order they are given out. Writers of the models' tables do
 * not wait for it.
 */
export async function beginChange(tx: Transaction): Promise<Now> {
  return (await begin(tx, 'replication.begin_change()')) as Now;
}

/** The same for whoever does not wait: null where somebody else is changing states. */
export function beginChangeIfFree(tx: Transaction): Promise<Now | null> {
  return begin(tx, 'replication.begin_change_if_free()');
}

async function begin(tx: Transaction, how: string): Promise<Now | null> {
  const [row] = await tx.query(`SELECT incarnation, clock, aside, claimed, deferred, last_place, generation, root_changes FROM ${how}`);
  if (row?.[0] === null) return null;
  const [incarnation, clock, aside, claimed, deferred, lastPlace, generation, rootChanges] = row ?? [];
  tx.sized(Number(lastPlace));
  return {
    incarnation: incarnation as string,
    clock: Number(clock),
    aside: aside === 't',
    claimed: claimed === 't',
    deferred: deferred === 't',
    lastPlace: Number(lastPlace),
    generation: Number(generation),
    rootChanges: Number(rootChanges),
  };
}

/** Everyone this replica knows of, itself included. */
export async function readRoster(db: Pick<Transaction, 'query'>): Promise<RosterMember[]> {
  const rows = await db.query('SELECT id, name, slot, stride, struck FROM replication.roster ORDER BY name, id');
  return rows.map(([id, name, slot, stride, struck]) => ({
    id: id as string,
    name: name as string,
    slot: Number(slot),
    stride: Number(stride),
    ...(struck === 't' && { struck: true as const }),
  }));
}

/** Learns of replicas, and of those that were struck. They must not clash with those known (see `rosterClash`). */
export async function learnRoster(db: Pick<Transaction, 'query'>, members: readonly RosterMember[]): Promise<void> {
  for (const { id } of members.filter(({ struck }) => struck)) await strike(db, id);
  await db.query(
    `INSERT INTO replication.roster (id, name, slot, stride, struck)
     SELECT id, name, slot, stride, coalesce(struck, false) FROM json_to_recordset($1) AS x(id uuid, name text, slot integer, stride integer, struck boolean)
     ON CONFLICT DO NOTHING`,
    [JSON.stringify(members)],
  );
}

/** Strikes a member from the roster. What is known of its feed goes with it, since its name may be given anew. */
export async function strike(db: Pick<Transaction, 'query'>, id: string): Promise<void> {
  await db.query(
    `WITH struck AS (UPDATE replication.roster SET struck = true WHERE id = $1 AND NOT struck RETURNING id, name),
          word AS (DELETE FROM replication.knowledge USING struck WHERE member = struck.id),
          told AS (DELETE FROM replication.hearsay USING struck WHERE peer = struck.name)
     UPDATE replication.peer p SET taken_incarnation = NULL, taken_position = NULL, taken_by = NULL, acked_incarnation = NULL, acked_position = NULL, acked_by = NULL,
            incarnation = NULL, owed = false FROM struck WHERE p.name = struck.name`,
    [id],
  );
}

async function identify(tx: Transaction, options: ReplicaOptions): Promise<string> {
  const { name, slot, stride, policy } = options;
  await tx.query(
    'INSERT INTO replication.replica (name, slot, stride, policy) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING',
    [name, slot, stride, policy],
  );
  const [row] = await tx.query('SELECT id, name, slot, stride FROM replication.replica');
  const [id, storedName, storedSlot, storedStride] = row ?? [];
  if (storedName !== name) {
    throw new IdentityError(`this database belongs to replica "${storedName}", not "${name}". Give "${name}" a database of its own.`);
  }
  if (Number(storedSlot) !== slot || Number(storedStride) !== stride) {
    throw new IdentityError(
      `this database was set up with SLOT ${storedSlot} and ID_STRIDE ${storedStride}, not ${slot} and ${stride}: the keys already given out would collide with other replicas'. Set them back.`,
    );
  }
  await learnRoster(tx, [{ id: id as string, name, slot, stride }]);
  return id as string;
}

/**
 * Sets a model's key sequence to give out the keys of this replica's slot alone, past the largest there is: a database that was restored may meet keys that it gave out
 * before.
 */
async function spaceKeys(tx: Transaction, table: ModelTable, { slot, stride }: ReplicaOptions): Promise<void> {
  const { column } = table.keyColumn;
  const sequence = await keySequence(tx, table);
  if (sequence === null) return;
  const [row] = await tx.query(
    `SELECT s.last_value, s.is_called, q.seqincrement, coalesce((SELECT max(${column}) FROM ${table.table}), 0)
       FROM ${sequence} s, pg_sequence q WHERE q.seqrelid = $1::regclass`,
    [sequence],
  );
  const [last, called, increment, largest] = row ?? [];
  const next = Number(last) + (called === 't' ? Number(increment) : 0);
  if (Number(increment) === stride && next % stride === slot % stride && next > (await largestOwn(tx, table, slot, stride))) return;
  const from = Math.max(Number(largest), 0);
  const start = from - (from % stride) + slot + (slot <= from % stride ? stride : 0);
  await tx.query(`ALTER SEQUENCE ${sequence} INCREMENT BY ${stride}`);
  await tx.query('SELECT setval($1::regclass, $2, false)', [sequence, start]);
}

/** A key sequence that has not given out yet what was given out before. */
export interface LateSequence {
  readonly sequence: string;
  /** How many keys it has to pass, and the last of them. */
  readonly steps: number;
  readonly largest: number;
}

/** Looks whether keys of this replica's slot that come back from peers lie before a model's key sequence: it gave them out itself, in a history that was lost. Null where none does. */
export async function findPassed(tx: Transaction, table: ModelTable, { slot, stride }: Pick<Identity, 'slot' | 'stride'>, keys: readonly string[]): Promise<LateSequence | null> {
  if (!/^(integer|bigint|smallint)$/.test(table.keyColumn.type)) return null;
  let largest = 0;
  for (const key of keys) if (Number(key) % stride === slot % stride) largest = Math.max(largest, Number(key));
  if (largest === 0) return null;
  const [row] = await tx.query('SELECT s.name, pg_sequence_last_value(s.name::regclass) FROM pg_get_serial_sequence($1, $2) AS s (name)', serialOf(table));
  const [sequence, given] = row ?? [];
  if (sequence === null || sequence === undefined) return null;
  // Of one that has given out none yet only its own row tells where it begins.
  const last = given ?? Number((await tx.query(`SELECT last_value FROM ${sequence}`))[0]?.[0]) - stride;
  const steps = Math.floor((largest - Number(last)) / stride);
  return steps > 0 ? { sequence, steps, largest } : null;
}

/**
 * Moves a key sequence past these keys.
 *
 * A gap of some thousands is walked, which cannot take back what others are given meanwhile; beyond that it is jumped, which nobody outruns.
 */
export function passKeys(tx: Transaction, { sequence, steps, largest }: LateSequence): void {
  if (steps <= WALKED) tx.post('SELECT count(nextval($1::regclass)) FROM generate_series(1, $2)', [sequence, steps]);
  else tx.post('SELECT setval($1::regclass, $2)', [sequence, largest]);
}

const WALKED = 10_000;

/** The sequence that gives out a table's keys; null where there is none. */
async function keySequence(tx: Transaction, table: ModelTable): Promise<string | null> {
  const [found] = await tx.query('SELECT pg_get_serial_sequence($1, $2)', serialOf(table));
  return found?.[0] ?? null;
}

/** A table's key, as `pg_get_serial_sequence` takes it. */
function serialOf({ table, keyColumn: { column } }: ModelTable): [string, string] {
  return [table, column.slice(1, -1).replaceAll('""', '"')];
}

async function largestOwn(tx: Transaction, table: ModelTable, slot: number, stride: number): Promise<number> {
  const { column } = table.keyColumn;
  const [row] = await tx.query(
    `SELECT ${column} FROM ${table.table} WHERE ${column} % ${stride} = ${slot % stride} ORDER BY ${column} DESC LIMIT 1`,
  );
  return Number(row?.[0] ?? 0);
}

/** Records of all models, as their tables show them. */
export async function countRecords(replica: Replica): Promise<number> {
  let records = 0;
  for (const { table } of replica.tables.values()) {
    const [row] = await replica.db.query(`SELECT count(*) FROM ${table}`);
    records += Number(row?.[0]);
  }
  return records;
}

/** Age in seconds of the oldest transaction that has written in this database; 0 where there is none. */
export async function fenceSeconds(replica: Replica): Promise<number> {
  const [row] = await replica.db.query(
    `SELECT coalesce(extract(epoch FROM max(clock_timestamp() - xact_start)), 0) FROM pg_stat_activity
      WHERE backend_xid IS NOT NULL AND datname = current_database()`,
  );
  return Math.max(0, Number(row?.[0]));
}
