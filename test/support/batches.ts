import type { WireRecord } from '../../src/replication/wire.ts';

/** The records of a batch, which travel as a text. */
export function recordsOf({ records }: { readonly records: string }): WireRecord[] {
  return JSON.parse(`[${records}]`) as WireRecord[];
}
