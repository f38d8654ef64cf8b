/** What would move the cursor or colour the screen; in a name it is somebody's joke, or worse. */
const CONTROL = /[\x00-\x1f\x7f-\x9f]/g;

/** Columns in the manner of kubectl: left-aligned, three spaces between. */
export function table(header: string[], rows: string[][]): string {
  const all = [header, ...rows].map((row) => row.map((cell) => cell.replace(CONTROL, '?')));
  const widths = header.map((_, column) =>
    Math.max(...all.map((row) => (row[column] ?? '').length)),
  );
  const line = (row: string[]) =>
    row
      .map((cell, column) => cell.padEnd(widths[column] ?? 0))
      .join('   ')
      .trimEnd();
  return `${all.map(line).join('\n')}\n`;
}
