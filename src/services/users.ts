/** Users: the door for writes to the model, whoever calls. */

/** A user as the table holds it. */
export interface UserRow {
  readonly id: number;
  readonly nom: string;
  readonly email: string;
  readonly telephone: string | null;
  readonly createdAt: Date;
}

export interface Users {
  /** In order of id, after the id `after`; `first` is 1 to 1000, 100 where it is not given. */
  list(page: { first?: unknown; after?: unknown }): Promise<UserRow[]>;
  get(id: unknown): Promise<UserRow | null>;
  /** @throws ServiceError BAD_USER_INPUT, UNIQUE_VIOLATION. */
  create(input: unknown): Promise<UserRow>;
  /** @throws ServiceError BAD_USER_INPUT, NOT_FOUND, UNIQUE_VIOLATION, VERSION_MISMATCH. */
  update(id: unknown, input: unknown, expectedVersion?: unknown): Promise<UserRow>;
  /** Gives back the user as it was. @throws ServiceError BAD_USER_INPUT, NOT_FOUND. */
  delete(id: unknown): Promise<UserRow>;
}
