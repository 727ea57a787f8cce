import { describe, expect, test } from 'vitest';

import { createPaint, table } from '../../src/demo/terminal.ts';

describe('a table', () => {
  const rows = [
    { label: 'nom', cells: ['Ada', 'Ada'] },
    { label: 'telephone', cells: ['1', 'null'] },
  ];

  test('is aligned, and lights what differs', () => {
    const plain = table(['a', 'b (deleted)'], rows, createPaint(false));
    expect(plain.split('\n')).toEqual(['               a     b (deleted)', '   nom         Ada   Ada', '   telephone   1     null']);
    const coloured = table(['a', 'b (deleted)'], rows, createPaint(true));
    expect(coloured).toContain('\x1b[1;33mnull\x1b[0m');
    expect(coloured).not.toContain('\x1b[1;33mAda');
    // oxlint-disable-next-line no-control-regex
    expect(coloured.replaceAll(/\x1b\[[\d;]*m/g, '')).toBe(plain);
  });
});
