/**
 * Users: read and written through the service, whole rows at a time.
 *
 * Where a version is asked for, the user is looked at once more, and all of the answer comes from that look: a version read after the values may have seen a write that they do not show, and
 * whoever gives it back as `expectedVersion` would overwrite that write unread.
 */
import type { GraphQLResolveInfo } from 'graphql';

import type { RecordVersion } from '../services/records.ts';
import type { UserRow, VersionedUser } from '../services/users.ts';
import { builder } from './builder.ts';
import { conflictType } from './conflict.ts';
import type { Context } from './context.ts';
import { DEFAULT_PAGE } from './page.ts';
import { asksFor } from './selection.ts';

const userType = builder.prismaObject('User', {
  fields: (t) => ({
    id: t.exposeID('id'),
    nom: t.exposeString('nom'),
    email: t.exposeString('email'),
    telephone: t.exposeString('telephone', { nullable: true }),
    createdAt: t.expose('createdAt', { type: 'DateTime' }),
    updatedAt: t.field({
      type: 'DateTime',
      resolve: (user) => knownOf(user)?.updatedAt ?? user.createdAt,
    }),
    version: t.field({
      type: 'VersionVector',
      description: 'The vector of the version shown; what `expectedVersion` is compared with.',
      resolve: (user) => knownOf(user)?.version ?? {},
    }),
    conflict: t.field({
      type: conflictType,
      nullable: true,
      description: 'The pending conflict on this record, if there is one.',
      resolve: (user, _args, { loaders }) => loaders.conflicts('User').load(String(user.id)),
    }),
  }),
});

const VERSION_FIELDS = new Set(['version', 'updatedAt']);

/** A user as it is to be shown: with its version where that is asked for. */
async function shown<T extends UserRow | null>(user: T, { loaders }: Context, info: GraphQLResolveInfo): Promise<T | VersionedUser> {
  return user !== null && asksFor(info, VERSION_FIELDS) ? loaders.versioned.load(user) : user;
}

function knownOf(user: { readonly id: number } | VersionedUser): RecordVersion | null {
  if (!('known' in user)) throw new Error(`the version of user ${user.id} is asked for, and it was not read with it: its values could be older.`);
  return user.known;
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
  users: t.field({
    type: [userType],
    description: 'In order of id; `after` is the id of the last user of the page before. `first` is 1 to 1000.',
    args: { first: t.arg.int({ defaultValue: DEFAULT_PAGE }), after: t.arg.id() },
    resolve: async (_root, { first, after }, context, info) => {
      const users = await context.services.users.list({ after, first });
      return asksFor(info, VERSION_FIELDS) ? Promise.all(users.map((user) => context.loaders.versioned.load(user))) : users;
    },
  }),
  user: t.field({
    type: userType,
    nullable: true,
    description: 'Null where there is none; likewise `conflict`.',
    args: { id: t.arg.id({ required: true }) },
    resolve: async (_root, { id }, context, info) => shown(await context.services.users.get(id), context, info),
  }),
}));

builder.mutationFields((t) => ({
  createUser: t.field({
    type: userType,
    args: { input: t.arg({ type: createUserInput, required: true }) },
    resolve: async (_root, { input }, context, info) => shown(await context.services.users.create(input), context, info),
  }),
  updateUser: t.field({
    type: userType,
    description:
      'With `expectedVersion`, fails with VERSION_MISMATCH when the record has moved on. An input without a field is BAD_USER_INPUT; one that changes nothing succeeds and makes no version.',
    args: {
      id: t.arg.id({ required: true }),
      input: t.arg({ type: updateUserInput, required: true }),
      expectedVersion: t.arg({ type: 'VersionVector' }),
    },
    resolve: async (_root, { id, input, expectedVersion }, context, info) =>
      shown(await context.services.users.update(id, input, expectedVersion ?? undefined), context, info),
  }),
  deleteUser: t.field({
    type: userType,
    description: 'Gives back the user as it was.',
    args: { id: t.arg.id({ required: true }) },
    resolve: (_root, { id }, { services }) => services.users.delete(id),
  }),
}));
