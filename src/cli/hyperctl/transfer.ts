import type { ImageStatus, TransferProgress } from '../../api/hyperd.ts';
import { StatusError } from '../../api/status.ts';
import type { Clock } from '../../base/clock.ts';
import { systemClock } from '../../base/clock.ts';
import { bytes } from './format.ts';
import { shortId } from './names.ts';

/** Where progress is drawn. */
export interface ProgressScreen {
  isTTY?: boolean;
  columns?: number;
  write(text: string): unknown;
}

const BAR_CHARS = 24;
const REDRAW_MS = 100;
const COLUMNS_DEFAULT = 80;
/** A screen has not more lines than this, so that the cursor can go back to the first one. */
const LAYERS_SHOWN_MAX = 12;

/**
 * Draws a bar for each layer while an image comes or goes; without a terminal only what there is
 * to say at the end is said.
 * @throws StatusError why it failed
 */
export async function showTransfer(
  steps: AsyncIterable<TransferProgress>,
  screen: ProgressScreen = process.stderr,
  clock: Clock = systemClock,
): Promise<ImageStatus> {
  const layers = new Map<string, { doneBytes: number; totalBytes: number }>();
  let note = '';
  let lineCount = 0;
  let drawnMs = -REDRAW_MS;
  const draw = () => {
    if (!screen.isTTY) return;
    const lines = barLines(layers, note, screen.columns ?? COLUMNS_DEFAULT);
    const back = lineCount > 0 ? `\x1b[${lineCount}A` : '';
    screen.write(`${back}${lines.map((line) => `\x1b[2K${line}\n`).join('')}`);
    lineCount = lines.length;
    drawnMs = clock.monotonicMs();
  };
  for await (const step of steps) {
    if (step.type === 'layer') layers.set(step.digest, step);
    if (step.type === 'disk') note = 'making the disk';
    if (step.type === 'done') {
      note = '';
      if (lineCount > 0) draw();
      return step.image;
    }
    if (step.type === 'failed') throw StatusError.from(step.status);
    if (clock.monotonicMs() - drawnMs >= REDRAW_MS) draw();
  }
  throw new StatusError('ServiceUnavailable', 'hyperd went away in the middle of it');
}

function barLines(
  layers: ReadonlyMap<string, { doneBytes: number; totalBytes: number }>,
  note: string,
  columns: number,
): string[] {
  const all = [...layers];
  const lines = all.slice(0, LAYERS_SHOWN_MAX).map(([digest, { doneBytes, totalBytes }]) => {
    const share = totalBytes > 0 ? Math.min(1, doneBytes / totalBytes) : 1;
    const bar = '='.repeat(Math.round(share * BAR_CHARS)).padEnd(BAR_CHARS);
    return `${shortId(digest)} [${bar}] ${bytes(doneBytes)} of ${bytes(totalBytes)}`;
  });
  if (all.length > LAYERS_SHOWN_MAX) lines.push(`and ${all.length - LAYERS_SHOWN_MAX} more layers`);
  if (note !== '') lines.push(note);
  return lines.map((line) => line.slice(0, Math.max(1, columns - 1)));
}
