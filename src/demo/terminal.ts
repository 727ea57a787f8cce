/** What the demo looks like in a terminal: colours where they are wanted, and aligned tables. Pure. */

export interface Paint {
  bold(text: string): string;
  dim(text: string): string;
  /** What differs. */
  lit(text: string): string;
  good(text: string): string;
}

/** @param coloured - False leaves every text as it is. */
export function createPaint(coloured: boolean): Paint {
  const paint = (code: string) => (text: string) => (coloured && text !== '' ? `\x1b[${code}m${text}\x1b[0m` : text);
  return { bold: paint('1'), dim: paint('90'), lit: paint('1;33'), good: paint('32') };
}

export interface Row {
  readonly label: string;
  /** One for each column. */
  readonly cells: readonly string[];
}

const INDENT = '   ';
const GAP = '   ';

/** Lays out a table; in a row whose cells differ, they are lit. */
export function table(columns: readonly string[], rows: readonly Row[], paint: Paint): string {
  const first = Math.max(...rows.map(({ label }) => label.length));
  const widths = columns.map((column, index) => Math.max(column.length, ...rows.map(({ cells }) => cells[index]?.length ?? 0)));
  const line = (label: string, cells: readonly string[], ink: (text: string) => string) => {
    // Padded outside the colour, which takes no room.
    const padded = cells.map((cell, index) => ink(cell) + ' '.repeat((widths[index] ?? 0) - cell.length));
    return `${INDENT}${paint.dim(label.padEnd(first))}${GAP}${padded.join(GAP)}`.trimEnd();
  };
  return [
    line('', columns, paint.bold),
    ...rows.map(({ label, cells }) => line(label, cells, new Set(cells).size > 1 ? paint.lit : String)),
  ].join('\n');
}

/** `label   text`, under a table. */
export function note(label: string, text: string, paint: Paint): string {
  return `${INDENT}${paint.dim(label.padEnd(10))}${text}`;
}
