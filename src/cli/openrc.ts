import type { KeystoneCredentials } from '../identity/keystone/provider.ts';
import { UsageError } from './errors.ts';

/**
 * The variables of OpenStack's clients, as the files that set them have them: `export OS_X=value`,
 * a line each, quoted as in a shell or not.
 */
export type Openrc = Record<string, string>;

const LINE = /^\s*(?:export\s+)?(OS_[A-Z0-9_]+)=(.*)$/;

/** What such a file sets. Nothing is executed: variables and commands in it stand for themselves. */
export function parseOpenrc(text: string): Openrc {
  const values: Openrc = {};
  for (const line of text.split('\n')) {
    const [, name, raw = ''] = LINE.exec(line) ?? [];
    if (name) values[name] = unquote(raw.trim());
  }
  return values;
}

function unquote(text: string): string {
  const quote = text[0];
  if (quote === "'") return text.slice(1, -1).replaceAll(`'\\''`, "'");
  if (quote === '"') return text.slice(1, -1).replace(/\\(["\\$`])/g, '$1');
  return text.replace(/\\(.)/g, '$1');
}

export function formatOpenrc(values: Openrc): string {
  const lines = Object.entries(values).map(
    ([name, value]) => `export ${name}='${value.replaceAll("'", `'\\''`)}'\n`,
  );
  return lines.join('');
}

/** @throws UsageError that names the variable that is missing */
export function keystoneCredentials(openrc: Openrc): KeystoneCredentials {
  const id = openrc.OS_APPLICATION_CREDENTIAL_ID;
  if (id) {
    const secret = need(openrc, 'OS_APPLICATION_CREDENTIAL_SECRET');
    return { kind: 'applicationCredential', id, secret };
  }
  const username = need(openrc, 'OS_USERNAME');
  const password = need(openrc, 'OS_PASSWORD');
  const userDomain = openrc.OS_USER_DOMAIN_NAME ?? 'Default';
  const about = { kind: 'password', username, userDomain, password } as const;
  if (openrc.OS_SYSTEM_SCOPE) return { ...about, scope: { kind: 'system' } };
  const project = need(openrc, 'OS_PROJECT_NAME');
  const domain = openrc.OS_PROJECT_DOMAIN_NAME ?? 'Default';
  return { ...about, scope: { kind: 'project', project, domain } };
}

function need(openrc: Openrc, name: string): string {
  const value = openrc[name];
  if (value) return value;
  throw new UsageError(`Cannot use the credentials for Keystone: the file does not set ${name}`);
}
