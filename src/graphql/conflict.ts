/** Conflicts: the log, its settling, and the subscriptions to it. */
import type { Conflict, ConflictVersion, ResolutionResult, Undelivered } from '../services/conflicts.ts';
import { builder } from './builder.ts';
import { DEFAULT_PAGE, parseFirst } from './page.ts';
import { endable } from './subscription.ts';

const conflictKind = builder.enumType('ConflictKind', {
  values: {
    UPDATE_UPDATE: { description: "Two replicas changed the same record without knowing of each other's change." },
    UPDATE_DELETE: { description: 'One replica changed a record that another deleted, neither knowing of the other.' },
    INSERT_INSERT: { description: 'Two replicas created different records under one key.' },
    UNIQUE: {
      description: [
        'Two records of different keys claim one unique value, such as an email. On every replica the claim made first holds it; the other record',
        'stays, and until the conflict is settled shows the value marked with its own key (`ada@x.org#12`), or null where the field may be null.',
      ].join('\n'),
    },
  },
});

const conflictStatus = builder.enumType('ConflictStatus', { values: ['PENDING', 'RESOLVED'] });

const resolutionStrategy = builder.enumType('ResolutionStrategy', {
  values: {
    LATEST: { description: 'Last write wins: the whole record that was written last.' },
    FIELD_WISE: { description: 'Field by field, the value that was written last.' },
  },
});

const conflictVersionType = builder.objectRef<ConflictVersion>('ConflictVersion').implement({
  description: "One replica's side of a conflict.",
  fields: (t) => ({
    recordId: t.exposeID('recordId', {
      description: "The record this side belongs to: the conflict's own, but for UNIQUE, whose sides are two records.",
    }),
    replica: t.exposeString('replica', {
      description: 'The replica that wrote this version, as named in its configuration: a, b, …',
    }),
    values: t.expose('values', {
      type: 'JSON',
      nullable: true,
      description: "The record's values; null where this version is a deletion.",
    }),
    deleted: t.exposeBoolean('deleted'),
    changedFields: t.field({
      type: ['String'],
      description: 'The fields this side wrote that the other sides had not seen.',
      resolve: ({ changedFields }) => [...changedFields],
    }),
    updatedAt: t.expose('updatedAt', { type: 'DateTime' }),
    version: t.expose('version', { type: 'VersionVector' }),
  }),
});

export const conflictType = builder.objectRef<Conflict>('Conflict').implement({
  fields: (t) => ({
    id: t.exposeID('id', {
      description:
        "This replica's own number for it. The model, the record and the sides' vectors say which conflict of another replica it is.",
    }),
    model: t.exposeString('model', { description: 'The replicated model: User, …' }),
    recordId: t.exposeID('recordId', { description: 'For UNIQUE, the record that does not hold the value.' }),
    kind: t.expose('kind', { type: conflictKind }),
    status: t.expose('status', { type: conflictStatus }),
    fields: t.field({
      type: ['String'],
      description: 'The fields whose values differ between the versions; for UNIQUE, the fields of the key that clashes.',
      resolve: ({ fields }) => [...fields],
    }),
    versions: t.field({
      type: [conflictVersionType],
      description: 'While it is pending, the sides as they stand now; afterwards, as they stood when it was resolved.',
      resolve: ({ versions }) => [...versions],
    }),
    detectedAt: t.expose('detectedAt', { type: 'DateTime' }),
    resolvedAt: t.expose('resolvedAt', { type: 'DateTime', nullable: true }),
    resolution: t.exposeString('resolution', {
      nullable: true,
      description: 'How it was resolved: latest, field-wise, manual; null while pending.',
    }),
    resolvedBy: t.exposeString('resolvedBy', {
      nullable: true,
      description: 'The replica on which it was resolved; null while pending.',
    }),
    resolvedValues: t.expose('resolvedValues', {
      type: 'JSON',
      nullable: true,
      description: "The record's values after resolution; null while pending, or where the record was deleted.",
    }),
  }),
});

const undeliveredType = builder.objectRef<Undelivered>('Undelivered').implement({
  description: 'A peer that has not got the outcome of a resolution yet; the next sync in either direction carries it.',
  fields: (t) => ({
    peer: t.exposeString('peer'),
    reason: t.exposeString('reason'),
  }),
});

const resolutionResultType = builder.objectRef<ResolutionResult>('ResolutionResult').implement({
  fields: (t) => ({
    resolved: t.exposeInt('resolved'),
    remaining: t.exposeInt('remaining', { description: 'Conflicts still pending on this replica afterwards.' }),
    conflicts: t.field({
      type: [conflictType],
      args: { first: t.arg.int({ defaultValue: DEFAULT_PAGE }) },
      resolve: (result, { first }) => result.conflicts(parseFirst(first)),
    }),
    undelivered: t.field({
      type: [undeliveredType],
      description: 'The peers that have not got the outcome yet; empty when all have.',
      resolve: ({ undelivered }) => [...undelivered],
    }),
    durationMs: t.exposeFloat('durationMs'),
  }),
});

builder.queryFields((t) => ({
  conflicts: t.field({
    type: [conflictType],
    description: 'Newest first; every status where none is named, and likewise `kind`, `model` and `recordId`. `after` is the id of the last conflict of the page before.',
    args: {
      status: t.arg({ type: conflictStatus }),
      kind: t.arg({ type: conflictKind }),
      model: t.arg.string(),
      recordId: t.arg.id(),
      first: t.arg.int({ defaultValue: DEFAULT_PAGE }),
      after: t.arg.id(),
    },
    resolve: (_root, { first, after, ...filter }, { services }) =>
      services.conflicts.list({ ...filter, first: first ?? undefined, after: after ?? undefined }),
  }),
  conflict: t.field({
    type: conflictType,
    nullable: true,
    args: { id: t.arg.id({ required: true }) },
    resolve: (_root, { id }, { services }) => services.conflicts.get(id),
  }),
}));

builder.mutationFields((t) => ({
  resolveConflicts: t.field({
    type: resolutionResultType,
    description: [
      'Resolves the pending conflicts, or those named (an unknown id is NOT_FOUND and nothing is done; resolved ones are passed over), and carries',
      'the outcome to the peers that can be reached. A UNIQUE conflict is settled with either strategy by leaving the value to its holder: what the other record shows becomes its own value.',
    ].join('\n'),
    args: {
      strategy: t.arg({ type: resolutionStrategy, required: true }),
      ids: t.arg.idList(),
    },
    resolve: (_root, { strategy, ids }, { services }) => services.conflicts.resolveAll(strategy, ids ?? undefined),
  }),
  resolveConflict: t.field({
    type: conflictType,
    description: [
      "By hand: either `chosenVersion` (a replica's name) or `values` (field to value, at least one, merged over the version that this replica shows).",
      'For UNIQUE, the side chosen takes the value and the other record gives it up; `values` go to the record that does not hold it.',
    ].join('\n'),
    args: {
      id: t.arg.id({ required: true }),
      chosenVersion: t.arg.string(),
      values: t.arg({ type: 'JSON' }),
    },
    resolve: (_root, { id, chosenVersion, values }, { services }) =>
      services.conflicts.resolveOne(id, {
        ...(chosenVersion == null ? {} : { chosenVersion }),
        ...(values == null ? {} : { values }),
      }),
  }),
}));

builder.subscriptionFields((t) => ({
  conflictDetected: t.field({
    type: conflictType,
    description:
      'Each conflict as this replica detects it. With `after`, first all detected since that conflict, whatever their status, so that nothing is missed across a reconnect; an unknown id is BAD_USER_INPUT. The conflict `after` itself may have been deleted from the log since (CONFLICT_RETENTION): what the log still holds follows.',
    args: { after: t.arg.id() },
    subscribe: (_root, { after }, { services, closing }) =>
      endable((signal) => services.conflicts.detected(after ?? undefined, signal), closing),
    resolve: (conflict) => conflict,
  }),
  conflictResolved: t.field({
    type: conflictType,
    subscribe: (_root, _args, { services, closing }) =>
      endable((signal) => services.conflicts.resolvedFromNow(signal), closing),
    resolve: (conflict) => conflict,
  }),
}));
