import type { Transport } from '../client/transport.ts';
import { systemClock } from '../base/clock.ts';
import { parseDuration } from './duration.ts';
import { UsageError } from './errors.ts';

export type Query = Record<string, string | undefined>;

/** Something that is no API object, piece by piece. @throws UsageError with the server's words */
export async function* readPieces(
  transport: Transport,
  path: string,
  query: Query,
  signal?: AbortSignal,
): AsyncIterable<string> {
  const response = await transport.request({
    ...{ method: 'GET', path, query },
    headers: { 'user-agent': 'hypernetes' },
    ...(signal ? { signal } : {}),
  });
  const decoder = new TextDecoder();
  const isRefused = response.status >= 300;
  let refusal = '';
  for await (const chunk of response.body) {
    const text = decoder.decode(chunk, { stream: true });
    if (isRefused) refusal += text;
    else yield text;
  }
  if (isRefused) throw new RefusedError(response.status, messageOf(refusal));
}

export async function readText(transport: Transport, path: string, query: Query): Promise<string> {
  let all = '';
  for await (const piece of readPieces(transport, path, query)) all += piece;
  return all;
}

/** The server's no. */
export class RefusedError extends UsageError {
  override name = 'RefusedError';
  readonly status: number;
  constructor(status: number, message: string) {
    super(message);
    this.status = status;
  }
}

function messageOf(text: string): string {
  try {
    return plain((JSON.parse(text) as { message?: string }).message ?? text);
  } catch {
    return plain(text.trim());
  }
}

/** A time, or one so long ago, as the API takes it. */
export function readWhen(text: string | undefined, option: string): string | undefined {
  if (text === undefined) return undefined;
  if (/^\d{4}-\d\d-\d\d$/.test(text)) return `${text}T00:00:00Z`;
  if (/^\d{4}-/.test(text)) return text;
  return new Date(systemClock.nowMs() - parseDuration(text, option)).toISOString();
}

/** Text of somebody else's for a terminal: nothing in it moves the cursor or turns the line. */
export function plain(text: string): string {
  return text.replace(/[\p{C}\p{Zl}\p{Zp}]/gu, (char) => {
    const code = char.codePointAt(0) ?? 0;
    return `\\u{${code.toString(16)}}`;
  });
}
