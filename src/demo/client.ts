/** A replica as a client of its GraphQL API has it: the typed operations, over HTTP. */
import {
  ConflictDocument, ConflictsDocument, CreateUserDocument, DeleteUserDocument, OverviewDocument, ResolveConflictDocument,
  ResolveConflictsDocument, SyncToDocument, UpdateUserDocument, UserDocument,
} from '../generated/graphql/graphql.ts';
import type {
  ConflictPartsFragment, CreateUserInput, ResolutionStrategy, SyncToMutation, TypedDocumentString, UpdateUserInput, UserPartsFragment,
} from '../generated/graphql/graphql.ts';

export type User = UserPartsFragment;
export type Conflict = ConflictPartsFragment;
export type SyncResult = SyncToMutation['syncTo'];

export interface ReplicaClient {
  readonly name: string;
  readonly url: string;
  /** The name by which the replica at this address goes. */
  ask(): Promise<string>;
  user(id: string): Promise<User | null>;
  createUser(input: CreateUserInput): Promise<User>;
  updateUser(id: string, input: UpdateUserInput): Promise<User>;
  deleteUser(id: string): Promise<User>;
  syncTo(peer: string): Promise<SyncResult>;
  conflict(id: string): Promise<Conflict | null>;
  /** The newest conflict on a user; null where there never was one. */
  conflictOn(userId: string): Promise<Conflict | null>;
  resolve(id: string, strategy: ResolutionStrategy): Promise<void>;
  choose(id: string, version: string): Promise<void>;
}

/** A replica did not do what it was asked to; the message says which, what, and why. */
export class RequestError extends Error {
  override readonly name = 'RequestError';
}

/** Conflicts to look through: those of the demo are among the newest. */
const NEWEST = 100;

export function createReplicaClient(name: string, url: string, signal: AbortSignal): ReplicaClient {
  async function run<Result, Variables>(document: TypedDocumentString<Result, Variables>, variables: Variables): Promise<Result> {
    const response = await fetch(`${url}/graphql`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', accept: 'application/graphql-response+json' },
      body: JSON.stringify({ query: document.toString(), variables }),
      signal,
    });
    const { data, errors } = (await response.json()) as { data?: Result | null; errors?: readonly { message: string }[] };
    if (errors !== undefined || data === undefined || data === null) {
      throw new RequestError(`replica ${name} at ${url} answered: ${errors?.map(({ message }) => message).join('; ') ?? `HTTP ${response.status}`}`);
    }
    return data;
  }

  return {
    name,
    url,
    ask: async () => (await run(OverviewDocument, {})).replica.name,
    user: async (id) => (await run(UserDocument, { id })).user,
    createUser: async (input) => (await run(CreateUserDocument, { input })).createUser,
    updateUser: async (id, input) => (await run(UpdateUserDocument, { id, input })).updateUser,
    deleteUser: async (id) => (await run(DeleteUserDocument, { id })).deleteUser,
    syncTo: async (peer) => (await run(SyncToDocument, { peer })).syncTo,
    conflict: async (id) => (await run(ConflictDocument, { id })).conflict,
    async conflictOn(userId) {
      const { conflicts } = await run(ConflictsDocument, { first: NEWEST });
      return conflicts.find(({ model, recordId }) => model === 'User' && recordId === userId) ?? null;
    },
    async resolve(id, strategy) {
      const { undelivered } = (await run(ResolveConflictsDocument, { strategy, ids: [id] })).resolveConflicts;
      const [first] = undelivered;
      if (first !== undefined) throw new RequestError(`replica ${name} resolved conflict ${id}, and could not tell ${first.peer}: ${first.reason}`);
    },
    choose: async (id, chosenVersion) => void (await run(ResolveConflictDocument, { id, chosenVersion })),
  };
}
