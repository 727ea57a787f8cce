/** Users: read straight from their table, written through the service. */
import type { RecordVersion } from '../services/records.ts';
import type { DeletedUser } from '../services/users.ts';
import { parse, userId } from '../services/input.ts';
import { builder } from './builder.ts';
import { conflictType } from './conflict.ts';
import type { Loaders } from './context.ts';
import { DEFAULT_PAGE, parseFirst } from './page.ts';

builder.prismaObject('User', {
  select: { id: true },
  fields: (t) => ({
    id: t.exposeID('id'),
    nom: t.exposeString('nom'),
    email: t.exposeString('email'),
    telephone: t.exposeString('telephone', { nullable: true }),
    createdAt: t.expose('createdAt', { type: 'DateTime' }),
    updatedAt: t.field({
      type: 'DateTime',
      select: { createdAt: true },
      resolve: async (user, _args, { loaders }) =>
        (await versionOf(user, loaders))?.updatedAt ?? user.createdAt,
    }),
    version: t.field({
      type: 'VersionVector',
      description: 'The vector of the version shown; what `expectedVersion` is compared with.',
      resolve: async (user, _args, { loaders }) => (await versionOf(user, loaders))?.version ?? {},
    }),
    conflict: t.field({
      type: conflictType,
      nullable: true,
      description: 'The pending conflict on this record, if there is one.',
      resolve: (user, _args, { loaders }) => loaders.conflicts('User').load(String(user.id)),
    }),
  }),
});

/** A deleted user brings its last version along: what replication knows of the record now is the deletion. */
function versionOf(user: { readonly id: number } | DeletedUser, loaders: Loaders): Promise<RecordVersion | null> {
  return 'lastVersion' in user ? Promise.resolve(user.lastVersion) : loaders.versions('User').load(String(user.id));
}

const createUserInput = builder.inputType('CreateUserInput', {
  fields: (t) => ({
    nom: t.string({ required: true }),
    email: t.string({ required: true }),
    telephone: t.string(),
  }),
});

const updateUserInput = builder.inputType('UpdateUserInput', {
  fields: (t) => ({
    nom: t.string(),
    email: t.string(),
    telephone: t.string({ description: 'null clears it; leaving it out keeps it.' }),
  }),
});

builder.queryFields((t) => ({
  users: t.prismaField({
    type: ['User'],
    description: 'In order of id; `after` is the id of the last user of the page before. `first` is 1 to 1000.',
    args: { first: t.arg.int({ defaultValue: DEFAULT_PAGE }), after: t.arg.id() },
    resolve: (query, _root, { first, after }, { prisma }) =>
      prisma.user.findMany({
        ...query,
        where: after == null ? {} : { id: { gt: parse(userId, after, 'after') } },
        orderBy: { id: 'asc' },
        take: parseFirst(first),
      }),
  }),
  user: t.prismaField({
    type: 'User',
    nullable: true,
    description: 'Null where there is none; likewise `conflict`.',
    args: { id: t.arg.id({ required: true }) },
    resolve: (query, _root, { id }, { prisma }) =>
      prisma.user.findUnique({ ...query, where: { id: parse(userId, id, 'id') } }),
  }),
}));

builder.mutationFields((t) => ({
  createUser: t.prismaField({
    type: 'User',
    args: { input: t.arg({ type: createUserInput, required: true }) },
    resolve: (_query, _root, { input }, { services }) => services.users.create(input),
  }),
  updateUser: t.prismaField({
    type: 'User',
    description:
      'With `expectedVersion`, fails with VERSION_MISMATCH when the record has moved on. An input without a field is BAD_USER_INPUT; one that changes nothing succeeds and makes no version.',
    args: {
      id: t.arg.id({ required: true }),
      input: t.arg({ type: updateUserInput, required: true }),
      expectedVersion: t.arg({ type: 'VersionVector' }),
    },
    resolve: (_query, _root, { id, input, expectedVersion }, { services }) =>
      services.users.update(id, input, expectedVersion ?? undefined),
  }),
  deleteUser: t.prismaField({
    type: 'User',
    description: 'Gives back the user as it was.',
    args: { id: t.arg.id({ required: true }) },
    resolve: (_query, _root, { id }, { services }) => services.users.delete(id),
  }),
}));
