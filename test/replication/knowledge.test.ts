/** Who has what: the guards that random histories do not need. */
import { describe, expect, it } from 'vitest';

import { stablePlace, type Knowledge } from '../../src/replication/knowledge.ts';

const self = { member: 'a', incarnation: '1' };
const row = (member: string, position: number, roster: readonly string[]): Knowledge => ({
  member,
  incarnation: '1',
  began: 1,
  tick: 1,
  knows: { a: { incarnation: '1', position } },
  roster,
  line: [{ incarnation: '1', first: 1 }],
});
const rowsOf = (...rows: readonly Knowledge[]): ReadonlyMap<string, Knowledge> => new Map(rows.map((each) => [each.member, each]));

describe('what every member has', () => {
  it('is what the one has that is furthest behind', () => {
    expect(stablePlace(self, ['a', 'b', 'c'], new Set(), rowsOf(row('b', 7, ['a', 'b', 'c']), row('c', 5, ['a', 'b', 'c'])))).toBe(5);
  });

  it('is nothing while another knows of a member of whom nobody here has heard, unless that was struck', () => {
    const rows = rowsOf(row('b', 7, ['a', 'b', 'd']));
    expect(stablePlace(self, ['a', 'b'], new Set(), rows)).toBe(0);
    expect(stablePlace(self, ['a', 'b'], new Set(['d']), rows)).toBe(7);
  });
});
