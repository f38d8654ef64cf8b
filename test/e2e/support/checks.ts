import assert from 'node:assert/strict';
import type { Kubectl } from './kubectl.ts';

/** One command line and what it has to say. */
export interface Check {
  /** Words; a string is split at its blanks. */
  run: string | string[];
  input?: string;
  env?: NodeJS.ProcessEnv;
  /** @default 0 */
  exit?: number;
  /** Of the standard output, each of them. */
  out?: RegExp | RegExp[];
  err?: RegExp | RegExp[];
  /** The first minor version whose kubectl can do this. */
  since?: number;
}

/** How many checks a kubectl was too old for. */
export interface Tally {
  done: number;
  skipped: number;
}

/** Runs all of them in turn, even after a failure, and then fails with everything that was wrong. */
export async function runChecks(kubectl: Kubectl, checks: Check[], tally: Tally): Promise<void> {
  const wrong: string[] = [];
  for (const check of checks) {
    if (kubectl.minor < (check.since ?? 0)) {
      tally.skipped += 1;
      continue;
    }
    tally.done += 1;
    const problem = await problemOf(kubectl, check);
    if (problem) wrong.push(problem);
  }
  assert.ok(wrong.length === 0, `\n${wrong.join('\n\n')}`);
}

async function problemOf(kubectl: Kubectl, check: Check): Promise<string | undefined> {
  const args = typeof check.run === 'string' ? check.run.split(' ') : check.run;
  const { exitCode, stdout, stderr } = await kubectl(args, {
    ...(check.input === undefined ? {} : { input: check.input }),
    ...(check.env ? { env: { ...process.env, ...check.env } } : {}),
  });
  const missing = [
    ...patterns(check.out).filter((pattern) => !pattern.test(stdout)),
    ...patterns(check.err).filter((pattern) => !pattern.test(stderr)),
  ];
  const exit = check.exit ?? 0;
  if (exitCode === exit && missing.length === 0) return undefined;
  return [
    `kubectl ${kubectl.version} ${args.join(' ')}`,
    `  exit code ${exitCode}, wanted ${exit}`,
    ...missing.map((pattern) => `  does not say ${pattern}`),
    `  stdout: ${stdout.slice(0, 1500)}`,
    `  stderr: ${stderr.slice(0, 1500)}`,
  ].join('\n');
}

function patterns(value: RegExp | RegExp[] | undefined): RegExp[] {
  return value === undefined ? [] : [value].flat();
}
