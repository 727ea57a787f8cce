import { describe, expect, it } from 'vitest';

import { compareLooks, settleLooks } from '../../src/services/differences.ts';
import type { RecordLook } from '../../src/storage/states.ts';

const look = (key: string, hash: string, onItsWay = false, row: string | null = null): RecordLook => ['M', key, hash, onItsWay, row];
const counts = (here: RecordLook[], there: RecordLook[]): unknown[] => {
  const { records, same, onTheirWay, suspects } = compareLooks(here, there);
  return [records, same, onTheirWay, suspects.map(({ difference }) => difference)];
};

describe('of two looks', () => {
  it.each<[string, RecordLook[], RecordLook[], unknown[]]>([
    ['equal states are the same', [look('x', '1', true)], [look('x', '1')], [1, 1, 0, []]],
    ['other states differ', [look('x', '1')], [look('x', '2')], [1, 0, 0, ['DIFFERING']]],
    ['what is on its way from here is no difference', [look('x', '1', true)], [look('x', '2')], [1, 0, 1, []]],
    ['nor is what is on its way to here', [look('x', '1')], [look('x', '2', true)], [1, 0, 1, []]],
    ['what one side lacks differs', [look('x', '1')], [look('y', '1')], [2, 0, 0, ['DIFFERING', 'DIFFERING']]],
    ['unless it comes yet', [], [look('y', '1', true)], [1, 0, 1, []]],
    ['equal states with other rows are corrupted', [look('x', '1', false, '5')], [look('x', '1', false, '6')], [1, 0, 0, ['CORRUPTED']]],
    ['a row that shows no single version says nothing', [look('x', '1', false, '5')], [look('x', '1')], [1, 1, 0, []]],
  ])('%s', (_name, here, there, expected) => {
    expect(counts(here, there)).toEqual(expected);
  });
});

it('a suspect that moves between two looks, on either side, is on its way; one that stays is none', () => {
  const before = compareLooks([look('x', '1'), look('y', '1'), look('z', '1')], [look('x', '2'), look('y', '2'), look('z', '2')]);
  const now = compareLooks([look('x', '1'), look('y', '3'), look('z', '2')], [look('x', '2'), look('y', '2'), look('z', '2')]);
  expect(settleLooks(before, now)).toMatchObject({ records: 3, same: 1, onTheirWay: 1, suspects: [{ key: 'x' }] });
});
