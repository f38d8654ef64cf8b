import { rm, stat } from 'node:fs/promises';
import { systemClock } from '../base/clock.ts';
import { describeError } from '../base/log.ts';
import { withPeople } from './access.ts';
import { dataDirectory, dataPaths } from './config.ts';
import type { DataPaths } from './config.ts';
import { queryStatus } from './control.ts';
import { readConfig } from './data.ts';
import { UsageError } from './errors.ts';
import { print } from './output.ts';
import { openTerminal } from './prompt.ts';

export interface RecoverFlags {
  yes?: boolean;
  json?: boolean;
}

const RECOVERY_TIMEOUT_MS = 60_000;
const POLL_MS = 100;

/**
 * The operator's way back in: tells where the administrator's password is if it is right. If it is
 * not, or the file is gone, the server makes a new one, for which it is started again; pods go on.
 */
export async function recoverIdentity(
  dataDir: string | undefined,
  flags: RecoverFlags,
): Promise<void> {
  const paths = dataPaths(dataDirectory(dataDir));
  await refuseOthers(paths);
  const problem = await problemOf(paths);
  if (problem !== undefined) {
    await confirmRestart(problem, flags);
    await restartServer(paths);
    const still = await problemOf(paths);
    if (still !== undefined) throw new UsageError(`The administrator cannot log in: ${still}`);
  }
  const result = { openrc: paths.adminOpenrc, isNew: problem !== undefined };
  print(flags.json, result, () => {
    const what = result.isNew ? 'a new password, which is' : 'its password';
    return (
      `The administrator "admin" of the domain Default has ${what} in ${paths.adminOpenrc}.\n` +
      `Log in with: hypernetes login --openrc ${paths.adminOpenrc}\n`
    );
  });
}

async function refuseOthers(paths: DataPaths): Promise<void> {
  const config = await readConfig(paths);
  if (config?.role !== 'server') {
    throw new UsageError(
      `This is for root on the server's machine; ${paths.root} is not a server's data.`,
    );
  }
  if (config.keystone) {
    throw new UsageError(
      `People come from the Keystone at ${config.keystone.url}: its administrator is recovered there.`,
    );
  }
}

/** Why the administrator cannot log in with what the file says; undefined if they can. */
async function problemOf({ root, adminOpenrc }: DataPaths): Promise<string | undefined> {
  if (!(await stat(adminOpenrc).catch(() => undefined))) return `${adminOpenrc} is gone`;
  const flags = { openrc: adminOpenrc };
  try {
    await withPeople(flags, { dataDir: root, isNamed: true }, () => Promise.resolve());
    return undefined;
  } catch (error) {
    // A server that is away says nothing about the password.
    if (error instanceof UsageError) return describeError(error);
    throw error;
  }
}

async function confirmRestart(problem: string, { yes }: RecoverFlags): Promise<void> {
  if (yes) return;
  const terminal = openTerminal();
  const about =
    `The administrator cannot log in: ${problem}. A new password ends the administrator's tokens ` +
    'and starts the server again, which takes some seconds; pods go on.';
  if (!terminal) throw new UsageError(`${about} Say --yes if that is meant.`);
  if (!(await terminal.confirm(`${about}\nGo on?`))) throw new UsageError('Nothing was changed.');
}

/** The server makes a new password when it starts and finds no file; its supervisor starts it. */
async function restartServer({ adminOpenrc, supervisorSocket }: DataPaths): Promise<void> {
  const serverOf = async () => {
    const machine = await queryStatus(supervisorSocket);
    return machine?.components.find(({ name }) => name === 'server');
  };
  const before = await serverOf();
  if (before?.pid === undefined) {
    throw new UsageError('The cluster does not run: start it with "hypernetes up", then again.');
  }
  await rm(adminOpenrc, { force: true });
  process.kill(before.pid, 'SIGTERM');
  const deadlineMs = systemClock.monotonicMs() + RECOVERY_TIMEOUT_MS;
  for (;;) {
    await systemClock.sleep(POLL_MS);
    const now = await serverOf();
    const isBack = now?.state === 'ready' && now.pid !== before.pid;
    if (isBack && (await stat(adminOpenrc).catch(() => undefined))) return;
    if (systemClock.monotonicMs() < deadlineMs) continue;
    throw new UsageError('The server did not come back in time: see "hypernetes logs server".');
  }
}
