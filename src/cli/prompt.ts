import { StringDecoder } from 'node:string_decoder';
import { CancelledError, UsageError } from './errors.ts';

/** Somebody who can be asked. */
export interface Terminal {
  ask(question: string): Promise<string>;
  /** Nothing of the answer is shown, not even its length. */
  askSecret(question: string): Promise<string>;
  /** No, unless the answer begins with a y. */
  confirm(question: string): Promise<boolean>;
}

/** What of a terminal is used: `process.stdin`, or what a test brings. */
export interface TerminalInput {
  isTTY?: boolean;
  setRawMode(isRaw: boolean): unknown;
  on(event: 'data', listener: (chunk: Buffer) => void): unknown;
  on(event: 'end', listener: () => void): unknown;
  off(event: 'data', listener: (chunk: Buffer) => void): unknown;
  off(event: 'end', listener: () => void): unknown;
  resume(): unknown;
  pause(): unknown;
}

export interface TerminalOutput {
  isTTY?: boolean;
  write(text: string): unknown;
}

const ANSWER_LENGTH_MAX = 4096;

const KEY = {
  interrupt: '\x03',
  endOfInput: '\x04',
  erase: new Set(['\x7f', '\b']),
  eraseLine: '\x15',
  enter: new Set(['\r', '\n']),
  escape: '\x1b',
} as const;

/**
 * The terminal that this process has, if it has one: questions go to standard error, so that what
 * is printed can be piped on.
 */
export function openTerminal(
  input: TerminalInput = process.stdin,
  output: TerminalOutput = process.stderr,
): Terminal | undefined {
  if (!input.isTTY || !output.isTTY) return undefined;
  /** What was typed or pasted ahead of the next question. */
  let ahead = '';

  const read = (question: string, isShown: boolean): Promise<string> => {
    const { promise, resolve, reject } = Promise.withResolvers<string>();
    const decoder = new StringDecoder('utf8');
    let answer = '';
    const end = (settle: () => void) => {
      input.off('data', take);
      input.off('end', cancel);
      input.setRawMode(false);
      input.pause();
      output.write('\n');
      settle();
    };
    const cancel = () => end(() => reject(new CancelledError('cancelled')));
    const rub = (count: number) => {
      answer = answer.slice(0, -count);
      if (isShown) output.write('\b \b'.repeat(count));
    };
    const use = (text: string) => {
      for (const [index, key] of [...text].entries()) {
        if (KEY.enter.has(key)) {
          ahead = [...text].slice(index + 1).join('');
          return end(() => resolve(answer));
        }
        if (key === KEY.interrupt || (key === KEY.endOfInput && answer === '')) return cancel();
        // Arrows and the like are a sequence, and come in one piece.
        if (key === KEY.escape) return;
        if (KEY.erase.has(key)) rub(answer === '' ? 0 : 1);
        else if (key === KEY.eraseLine) rub(answer.length);
        else if (key >= ' ' && answer.length < ANSWER_LENGTH_MAX) {
          answer += key;
          if (isShown) output.write(key);
        }
      }
    };
    const take = (chunk: Buffer) => use(decoder.write(chunk));
    // Before the question: who answers at once is not shown either.
    input.setRawMode(true);
    output.write(question);
    input.on('data', take);
    input.on('end', cancel);
    input.resume();
    const typed = ahead;
    ahead = '';
    if (typed) use(typed);
    return promise;
  };

  return {
    ask: async (question) => (await read(question, true)).trim(),
    askSecret: (question) => read(question, false),
    confirm: async (question) => /^y/i.test((await read(`${question} [y/N] `, true)).trim()),
  };
}

/** A new password, asked for twice. */
export async function askNewPassword(terminal: Terminal): Promise<string> {
  const password = await terminal.askSecret('New password: ');
  if (password === '') throw new UsageError('Cannot set an empty password.');
  if ((await terminal.askSecret('Again: ')) === password) return password;
  throw new UsageError('The two passwords differ; nothing was changed.');
}
