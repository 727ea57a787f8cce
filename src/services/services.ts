/** The services of one replica, as the edges take them. */
import type { Asides } from './asides.ts';
import type { ComparisonService } from './comparison.ts';
import type { Conflicts } from './conflicts.ts';
import type { Peering } from './peering.ts';
import type { Records } from './records.ts';
import type { Roster } from './roster.ts';
import type { ReplicaStatus } from './status.ts';
import type { Sync } from './sync.ts';
import type { Users } from './users.ts';

export interface Services {
  readonly users: Users;
  readonly records: Records;
  readonly conflicts: Conflicts;
  readonly asides: Asides;
  readonly roster: Roster;
  readonly sync: Sync;
  readonly peering: Peering;
  readonly comparison: Pick<ComparisonService, 'compare' | 'repair'>;
  readonly status: ReplicaStatus;
}
