import assert from 'node:assert/strict';
import { test } from 'node:test';
import { judgeExit, parseExitRecord } from './verdict.ts';
import type { ExitEvidence, ExitRecord } from './verdict.ts';

const CLEAN: ExitRecord = {
  exitCode: 0,
  signal: null,
  requested: false,
  oomKills: 0,
  cpuMicros: 1,
  atMs: 1,
};
const NOTHING: ExitEvidence = {
  record: CLEAN,
  shutdownReason: undefined,
  isGivenUp: false,
  console: '',
  errors: '',
};
const PANIC = 'x\n[    3.1] Kernel panic - not syncing: Attempted to kill init!\n[ 3.2] CPU: 0\n';

test('judgeExit() tells each end by its evidence', () => {
  const cases: [string, Partial<ExitEvidence>, string, RegExp][] = [
    ['power off', { shutdownReason: 'guest-shutdown' }, 'powered-off', /powered off/],
    ['power off, unseen', {}, 'powered-off', /powered off/],
    // What a guest prints is not believed against what it did.
    [
      'power off after printing of panic',
      { shutdownReason: 'guest-shutdown', console: PANIC },
      'powered-off',
      /powered/,
    ],
    [
      'panic',
      { shutdownReason: 'guest-reset', console: PANIC },
      'panicked',
      /^Kernel panic: Attempted to kill init!$/,
    ],
    ['panic, unseen', { console: PANIC }, 'panicked', /Attempted/],
    [
      'terminal escapes',
      { console: 'Kernel panic - not syncing: a\x1b[2Jb\u202e' },
      'panicked',
      /^Kernel panic: a \[2Jb$/,
    ],
    ['triple fault', { shutdownReason: 'guest-reset' }, 'panicked', /reset itself/],
    ['quit', { shutdownReason: 'host-qmp-quit' }, 'killed', /by its host/],
    [
      'kill',
      { record: { ...CLEAN, exitCode: null, signal: 9, requested: true } },
      'killed',
      /as requested/,
    ],
    [
      'oom',
      { record: { ...CLEAN, exitCode: null, signal: 9, oomKills: 1 } },
      'killed',
      /memory limit/,
    ],
    ['foreign kill', { record: { ...CLEAN, exitCode: null, signal: 9 } }, 'killed', /SIGKILL/],
    ['crash', { record: { ...CLEAN, exitCode: null, signal: 11 } }, 'failed', /SIGSEGV/],
    ['sandbox', { record: { ...CLEAN, exitCode: null, signal: 31 } }, 'failed', /SIGSYS/],
    [
      'failure',
      { record: { ...CLEAN, exitCode: 1 }, errors: 'no tap\n' },
      'failed',
      /exit code 1: no tap$/,
    ],
    ['no verdict', { record: undefined }, 'killed', /keeper/],
  ];
  for (const [name, evidence, reason, message] of cases) {
    const exit = judgeExit({ ...NOTHING, ...evidence });
    assert.equal(exit.reason, reason, name);
    assert.match(exit.message, message, name);
  }
});

test('parseExitRecord() takes records only', () => {
  assert.deepEqual(parseExitRecord(JSON.stringify(CLEAN)), CLEAN);
  for (const text of [
    '',
    '{',
    'null',
    '[]',
    '{}',
    '{"exitCode":"0","requested":false}',
    '{"exitCode":0}',
  ]) {
    assert.equal(parseExitRecord(text), undefined, text);
  }
});
