import { describeError } from '../../base/log.ts';
import { CancelledError, UsageError } from '../errors.ts';
import { credential } from './credential-command.ts';

/*
 * `hypernetes credential --profile NAME`, called by kubectl before every command: an entry of its
 * own, because the command line with all its commands takes several times as long to load.
 */
const [, , , option, name] = process.argv;
try {
  if (option !== '--profile' || !name) {
    throw new UsageError('Use it as "hypernetes credential --profile NAME".');
  }
  await credential(name);
} catch (error) {
  if (!(error instanceof CancelledError)) {
    process.stderr.write(`hypernetes: ${describeError(error)}\n`);
  }
  process.exitCode = 1;
}
