import { readFile } from 'node:fs/promises';
import { describeError } from '../../base/log.ts';
import { UsageError } from '../errors.ts';
import { parseOpenrc } from '../openrc.ts';
import type { Openrc } from '../openrc.ts';
import type { Terminal } from '../prompt.ts';
import type { DomainRef, Proof } from './keystone.ts';
import { readSecretFile, readSecretStdin } from './secrets.ts';

/** Options by which somebody says who they are. */
export interface WhoFlags {
  user?: string;
  domain?: string;
  passwordFile?: string;
  passwordStdin?: boolean;
  tokenFile?: string;
  applicationCredentialId?: string;
  applicationCredentialSecretFile?: string;
}

/** Options by which they say what for. */
export interface ScopeFlags {
  tenant?: string;
  project?: string;
  system?: boolean;
}

/** What somebody wants to work on: a project by name or id, or the whole system. */
export type ScopeWish = { kind: 'system' } | { kind: 'project'; project: string } | undefined;

/** The variables of OpenStack's clients: of the file where one is named, else this process'. */
export async function readVariables(
  openrc: string | undefined,
  env: NodeJS.ProcessEnv = process.env,
): Promise<Openrc> {
  if (openrc === undefined) {
    const own = Object.entries(env).filter(([name, value]) => name.startsWith('OS_') && value);
    return Object.fromEntries(own) as Openrc;
  }
  const text = await readFile(openrc, 'utf8').catch((error: unknown) => {
    throw new UsageError(`Cannot read --openrc: ${describeError(error)}`);
  });
  return parseOpenrc(text);
}

/**
 * How somebody proves who they are. Whoever is named by an option is not mixed with variables of
 * somebody else: those then say only where to log in.
 */
export async function proofOf(
  flags: WhoFlags,
  variables: Openrc,
  terminal: Terminal | undefined,
): Promise<Proof> {
  refuseConflicts(flags);
  const { user, tokenFile, applicationCredentialId } = flags;
  const own = user || tokenFile || applicationCredentialId ? {} : variables;
  const credentialId = applicationCredentialId ?? own['OS_APPLICATION_CREDENTIAL_ID'];
  if (credentialId) {
    const secret = await secretOf({
      file: ['--application-credential-secret-file', flags.applicationCredentialSecretFile],
      variable: own['OS_APPLICATION_CREDENTIAL_SECRET'],
      question: 'Secret of the application credential: ',
      terminal,
    });
    return { kind: 'credential', id: credentialId, secret };
  }
  if (tokenFile) {
    return { kind: 'token', token: await readSecretFile(tokenFile, '--token-file') };
  }
  if (own['OS_TOKEN']) return { kind: 'token', token: own['OS_TOKEN'] };
  const { OS_USER_ID: id, OS_USERNAME: variable } = own;
  const name = user ?? variable ?? (id ? '' : await terminal?.ask('User: '));
  if (!id && !name) {
    throw new UsageError('Cannot log in: nobody is named. Say who with --user, or use --openrc.');
  }
  const password = await secretOf({
    file: ['--password-file', flags.passwordFile],
    isStdin: flags.passwordStdin,
    variable: own['OS_PASSWORD'],
    question: 'Password: ',
    terminal,
  });
  const ref = name ? { name, domain: domainOf(flags.domain, own) } : { id: id as string };
  return { kind: 'password', user: ref, password };
}

function domainOf(given: string | undefined, variables: Openrc): DomainRef {
  if (given) return { name: given };
  const { OS_USER_DOMAIN_ID: id, OS_USER_DOMAIN_NAME: name } = variables;
  return id ? { id } : { name: name ?? 'Default' };
}

function refuseConflicts(flags: WhoFlags): void {
  const ways = {
    '--password-file': flags.passwordFile,
    '--password-stdin': flags.passwordStdin,
    '--token-file': flags.tokenFile,
    '--application-credential-id': flags.applicationCredentialId,
  };
  const given = Object.entries(ways).flatMap(([name, value]) => (value ? [name] : []));
  if (given.length > 1) {
    throw new UsageError(`Cannot use ${given.join(' and ')} together: choose one.`);
  }
  if (flags.applicationCredentialSecretFile && !flags.applicationCredentialId) {
    throw new UsageError(
      'Cannot use --application-credential-secret-file without --application-credential-id.',
    );
  }
}

interface SecretSource {
  file: [option: string, path: string | undefined];
  isStdin?: boolean | undefined;
  variable: string | undefined;
  question: string;
  terminal: Terminal | undefined;
}

async function secretOf(source: SecretSource): Promise<string> {
  const [option, path] = source.file;
  if (path) return readSecretFile(path, option);
  if (source.isStdin) return readSecretStdin('--password-stdin');
  if (source.variable) return source.variable;
  const answer = await source.terminal?.askSecret(source.question);
  if (answer) return answer;
  throw new UsageError(
    source.terminal
      ? 'Cannot log in with an empty secret.'
      : `Cannot ask for the secret: there is no terminal. Name a file with ${option}.`,
  );
}

export function scopeWish(flags: ScopeFlags, who: WhoFlags, variables: Openrc): ScopeWish {
  const given = [flags.tenant, flags.project, flags.system].filter(Boolean);
  if (given.length > 1) {
    throw new UsageError('Cannot log in for several: choose one of --tenant, --project, --system.');
  }
  if (flags.system) return { kind: 'system' };
  const named = flags.tenant ?? flags.project;
  if (named) return { kind: 'project', project: named };
  if (who.user || who.tokenFile || who.applicationCredentialId) return undefined;
  if (variables['OS_SYSTEM_SCOPE']) return { kind: 'system' };
  const project = variables['OS_PROJECT_ID'] ?? variables['OS_PROJECT_NAME'];
  return project ? { kind: 'project', project } : undefined;
}
