import type { WireRecord } from '../../src/replication/wire.ts';

/** The records of a batch, which travel as texts. */
export function recordsOf({ records }: { readonly records: readonly string[] }): WireRecord[] {
  return records.map((text) => JSON.parse(text) as WireRecord);
}
