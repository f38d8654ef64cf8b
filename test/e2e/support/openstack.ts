import assert from 'node:assert/strict';
import { execute } from '../../../src/base/exec.ts';
import type { ExecResult } from '../../../src/base/exec.ts';
import { installPackages } from './packages.ts';

/**
 * The real client, as Debian packages it. A command costs more than a second of Python's start, so
 * that commands which belong together run in one session.
 */
const PROGRAM = '/usr/bin/openstack';
const COMMAND_TIMEOUT_MS = 120_000;

export async function installOpenstack(): Promise<void> {
  await installPackages(['python3-openstackclient']);
}

/** Somebody at a terminal: who logs in, and where. */
export interface OpenstackUser {
  /** `OS_…` variables. */
  env: Record<string, string>;
}

function environment({ env }: OpenstackUser): NodeJS.ProcessEnv {
  const { PATH, HOME } = process.env;
  return { PATH, HOME, LC_ALL: 'C.UTF-8', OS_IDENTITY_API_VERSION: '3', ...env };
}

/** One command, with its exit code and what it said. */
export function openstack(user: OpenstackUser, ...args: string[]): Promise<ExecResult> {
  return execute(PROGRAM, args, { env: environment(user), timeoutMs: COMMAND_TIMEOUT_MS });
}

/** One command that has to succeed, with its answer in JSON. */
export async function openstackJson(user: OpenstackUser, ...args: string[]): Promise<unknown> {
  const result = await openstack(user, ...args, '-f', 'json');
  assert.equal(result.exitCode, 0, `openstack ${args.join(' ')}: ${result.stderr}`);
  return JSON.parse(result.stdout);
}

/** Commands of one session, and all that they printed: JSON values in their order, and errors. */
export async function openstackSession(
  user: OpenstackUser,
  commands: string[],
): Promise<{ values: Record<string, unknown>[]; errors: string }> {
  const options = {
    env: environment(user),
    timeoutMs: COMMAND_TIMEOUT_MS,
    input: `${commands.join('\n')}\n`,
  };
  const { stdout, stderr } = await execute(PROGRAM, [], options);
  return { values: jsonValues(stdout), errors: stderr };
}

/** What is printed over several lines begins and ends in the first column. */
function jsonValues(text: string): Record<string, unknown>[] {
  const values: Record<string, unknown>[] = [];
  let open: string[] | undefined;
  for (const line of text.split('\n')) {
    if (!open && /^[{[]/.test(line)) open = [];
    open?.push(line);
    if (!open || !/^(?:[}\]]|\[\]|\{\})$/.test(line)) continue;
    values.push(JSON.parse(open.join('\n')) as Record<string, unknown>);
    open = undefined;
  }
  return values;
}
