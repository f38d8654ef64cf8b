import { readFile } from 'node:fs/promises';
import { text } from 'node:stream/consumers';
import { describeError } from '../../base/log.ts';
import { UsageError } from '../errors.ts';

const SECRET_BYTES_MAX = 4096;

/** What a file holds, but for the newline at its end. */
export async function readSecretFile(path: string, option: string): Promise<string> {
  const content = await readFile(path, 'utf8').catch((error: unknown) => {
    throw new UsageError(`Cannot read ${option}: ${describeError(error)}`);
  });
  return checkSecret(content, `the file of ${option}`);
}

/** The whole of standard input, but for the newline at its end. */
export async function readSecretStdin(option: string): Promise<string> {
  if (process.stdin.isTTY) {
    throw new UsageError(
      `Cannot use ${option}: standard input is a terminal. Leave the option out.`,
    );
  }
  return checkSecret(await text(process.stdin), 'standard input');
}

function checkSecret(content: string, where: string): string {
  const secret = content.replace(/\r?\n$/, '');
  if (secret === '') throw new UsageError(`Cannot find a secret: ${where} is empty.`);
  if (Buffer.byteLength(secret) > SECRET_BYTES_MAX) {
    throw new UsageError(`Cannot use ${where}: it has more than ${SECRET_BYTES_MAX} bytes.`);
  }
  return secret;
}

const SECRET_OPTION =
  /^--?(?:os-)?(?:user-|original-|application-credential-)?(?:pass|password|passwd|pw|secret|token)(?:=.*)?$/s;

/** Commands of people who have secrets; a joining machine is given its token otherwise. */
const COMMANDS = ['login', 'logout', 'whoami', 'tenant', 'user', 'role', 'quota', 'identity'];

/**
 * Refuses secrets on the command line, which every user of the machine can read and shells
 * remember. The value is not repeated.
 *
 * @param args what follows the program's name
 * @throws UsageError
 */
export function refuseSecrets(args: string[]): void {
  const command = args.find((arg, at) => !arg.startsWith('-') && args[at - 1] !== '--data-dir');
  if (!COMMANDS.includes(command ?? '')) return;
  const end = args.indexOf('--');
  const options = end < 0 ? args : args.slice(0, end);
  const found = options.find((arg) => SECRET_OPTION.test(arg));
  if (!found) return;
  const name = found.replace(/=.*$/s, '');
  throw new UsageError(
    `Cannot take a secret with ${name}: everybody on this machine can read command lines. ` +
      'Use the prompt, --password-stdin, or an option that names a file (see --help).',
  );
}
