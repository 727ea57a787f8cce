/**
 * Stamps: a hybrid logical clock in one integer (Kulkarni et al., "Logical Physical Clocks", 2014, with the counter in the low digits).
 *
 * Microseconds fit a JavaScript safe integer until the year 2255. Stamps are compared only within a record, so the clock is kept by
 * record: no row of the database is shared by all writers.
 */
import type { Stamp, Version } from './version.ts';

/** The stamp of a write: the time, or one more than the largest stamp seen, whichever is larger. Both in microseconds. */
export function nextStamp(now: Stamp, largest: Stamp): Stamp {
  return Math.max(now, largest + 1);
}

/** The largest stamp in a record's versions; 0 where there are none. */
export function largestStamp(versions: Iterable<Version>): Stamp {
  let largest = 0;
  for (const version of versions) {
    for (const replica in version.vector) largest = Math.max(largest, version.vector[replica] as Stamp);
  }
  return largest;
}

/** A stamp as an instant: ISO 8601 in UTC, microseconds kept. */
export function stampToInstant(stamp: Stamp): string {
  const micros = stamp % 1000;
  const millis = new Date((stamp - micros) / 1000).toISOString();
  return `${millis.slice(0, -1)}${String(micros).padStart(3, '0')}Z`;
}
