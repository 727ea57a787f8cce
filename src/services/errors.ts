/**
 * Errors that a caller is meant to see: each has a code of the public contract and says what happened, why, and what to do next.
 * Whatever else is thrown is a fault of ours and is masked at the edge.
 */

export type ErrorCode =
  | 'BAD_USER_INPUT'
  | 'NOT_FOUND'
  | 'UNKNOWN_PEER'
  | 'PEER_EXISTS'
  | 'UNAUTHENTICATED'
  | 'UNIQUE_VIOLATION'
  | 'VERSION_MISMATCH'
  | 'ALREADY_RESOLVED'
  | 'PEER_UNREACHABLE'
  | 'PEER_REJECTED';

/** One field of the input that does not fit, and why. `field` is a path such as `email`, `ids.0`; empty for the whole input. */
export interface FieldError {
  readonly field: string;
  readonly message: string;
}

/** A failure with a code of the contract. GraphQL puts the code in `extensions.code`, REST in the member `code`. */
export class ServiceError extends Error {
  readonly code: ErrorCode;
  /** For BAD_USER_INPUT: each field and why. */
  readonly errors: readonly FieldError[];

  constructor(code: ErrorCode, message: string, errors: readonly FieldError[] = []) {
    super(message);
    this.name = 'ServiceError';
    this.code = code;
    this.errors = errors;
  }
}
