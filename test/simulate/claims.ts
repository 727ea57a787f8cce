/**
 * What the design promises of values, checked in a world that has come to rest: who holds what only one record may have, and that nobody's value is made or changed by anything but a write.
 *
 * Claims are worked out anew here, from the versions and the stamps in them, and not by the core's rules.
 */
import type { UniqueKey } from '../../src/replication/unique.ts';
import { sameFields, type Fields, type FieldStamp, type Version } from '../../src/replication/version.ts';
import { keysOf } from '../replication/steps.ts';
import { read, rowOf, viewOf } from '../support/model.ts';
import type { World } from '../support/world.ts';

interface Claimed {
  readonly key: string;
  readonly value: string;
  readonly stamp: FieldStamp;
}

/** A row that does not show what its record's claims come to; null where there is none. */
export function heldWrongly(world: World): string | null {
  if (world.unique.length === 0) return null;
  const keys = keysOf(world);
  for (const replica of world.replicas) {
    const known = world.unique.filter(({ fields }) => fields.every((name) => replica.database.fields.includes(name)));
    const claims = new Map(known.map((unique) => [unique, keys.flatMap((key) => claimsTo(unique, key, world.state(replica.name, key)))]));
    for (const key of keys) {
      const { row, state, waiting, ...record } = read(replica, key);
      const { fields } = viewOf(replica, { row, state, waiting, ...record }, state);
      const lost = known.filter((unique) => {
        const holder = first((claims.get(unique) ?? []).filter(({ value }) => value === valueOf(unique, fields)));
        return holder !== undefined && holder.key !== key;
      });
      const meant = fields && instead(key, fields, lost, claims);
      if (!sameFields(row, meant && rowOf(replica, meant))) return `${replica.name} shows ${JSON.stringify(row)} of ${key}, and not ${JSON.stringify(meant)}: ${told(claims)}`;
      if (waiting !== (fields !== null && meant === null)) return `${key} ${waiting ? 'waits' : 'does not wait'} on ${replica.name}`;
    }
  }
  return null;
}

/** A local write that changed a field, or its stamp, which its writer had not changed; null where there is none. */
export function changedUnwritten({ oracle }: World): string | null {
  for (const { key, version, over, changed } of oracle.edits.splice(0)) {
    const [before] = over;
    if (before === undefined || over.length > 1 || before.fields === null || version.fields === null) continue;
    for (const name of new Set([...Object.keys(before.fields), ...Object.keys(version.fields)])) {
      if (changed.has(name)) continue;
      if (before.fields[name] !== version.fields[name]) return `${key}: ${name}=${before.fields[name]} became ${version.fields[name]}, which nobody wrote`;
      const [old, own] = [writer(before, name), writer(version, name)];
      // A version that the row held on to may have no stamp for a field (see `asVersion`).
      if (old[1] > 0 && (old[0] !== own[0] || old[1] !== own[1])) return `${key}: ${name}=${version.fields[name]} was stamped anew by a write to ${[...changed].join(', ')}`;
    }
  }
  return null;
}

/** A value in a version that nobody gave to its record; null where there is none. */
export function writtenByNobody({ oracle }: World): string | null {
  for (const [key, made] of oracle.pool) {
    for (const { fields } of made) {
      const odd = Object.entries(fields ?? {}).find(([name, value]) => value !== null && !oracle.wasGiven(key, name, value));
      if (odd) return `${key}: ${odd[0]}=${odd[1]}`;
    }
  }
  return null;
}

/** What each living side has, and what they have together field by field. */
function claimsTo(unique: UniqueKey, key: string, state: readonly Version[]): Claimed[] {
  const living = state.flatMap((version) => (version.fields === null ? [] : [version]));
  const found: Claimed[] = [];
  const add = (from: readonly (readonly [value: string | null, stamp: FieldStamp])[]): void => {
    const value = valueOf(unique, Object.fromEntries(unique.fields.map((name, i) => [name, from[i]?.[0] ?? null])));
    if (value !== null) found.push({ key, value, stamp: from.map(([, stamp]) => stamp).toSorted(byStamp).at(-1) as FieldStamp });
  };
  const cell = (version: Version, name: string) => [version.fields?.[name] ?? null, writer(version, name)] as const;
  for (const version of living) add(unique.fields.map((name) => cell(version, name)));
  if (living.length > 1) add(unique.fields.map((name) => living.map((version) => cell(version, name)).toSorted((a, b) => byStamp(a[1], b[1])).at(-1) as ReturnType<typeof cell>));
  return found;
}

/** The claim made first: the least in stamp, replica, key. */
function first(claims: readonly Claimed[]): Claimed | undefined {
  return claims.toSorted((a, b) => byStamp(a.stamp, b.stamp) || (a.key < b.key ? -1 : 1))[0];
}

/** What a record shows that lost its values; null where it has no row. */
function instead(key: string, fields: Fields, lost: readonly UniqueKey[], claims: ReadonlyMap<UniqueKey, readonly Claimed[]>): Fields | null {
  const shown: Record<string, string | null> = { ...fields };
  for (const { yields } of lost) {
    if (yields === null) return null;
    const { field, as, longest } = yields;
    if (shown[field] !== fields[field]) continue;
    shown[field] = as === 'null' ? null : `${fields[field]}#${key}`;
    if (longest !== null && (shown[field] ?? '').length > longest) return null;
  }
  const taken = [...claims].some(([unique, all]) => {
    const value = valueOf(unique, shown);
    return value !== valueOf(unique, fields) && all.some((claim) => claim.value === value && claim.key !== key);
  });
  return taken ? null : shown;
}

function valueOf({ fields: names }: UniqueKey, fields: Fields | null): string | null {
  const values = names.map((name) => fields?.[name] ?? null);
  return values.includes(null) ? null : values.join();
}

function writer({ fields, stamps }: Version, name: string): FieldStamp {
  return stamps[name] ?? (Object.hasOwn(fields ?? {}, name) ? stamps['*'] : undefined) ?? ['', 0];
}

function byStamp(a: FieldStamp, b: FieldStamp): number {
  return a[1] - b[1] || (a[0] < b[0] ? -1 : a[0] > b[0] ? 1 : 0);
}

function told(claims: ReadonlyMap<UniqueKey, readonly Claimed[]>): string {
  return [...claims].map(([{ name }, all]) => `${name} ${all.map(({ key, value, stamp }) => `${key} ${value} ${stamp.join(' ')}`).join('; ')}`).join(' | ');
}
