import { spawn } from 'node:child_process';
import { globSync } from 'node:fs';
import { join } from 'node:path';

/**
 * Runs the project's tests, quick ones first, and stops at the first stage that fails.
 * Usage: node test/run.ts [stage…]
 */
interface Stage {
  name: string;
  files: string[];
  /** Test files at a time. Those that boot VMs or take the machine's network run alone. */
  concurrency: number;
  timeoutMs: number;
}

const root = join(import.meta.dirname, '..');
const MINUTE_MS = 60_000;

const STAGES: Stage[] = [
  { name: 'style', files: ['test/style/*.test.ts'], concurrency: 2, timeoutMs: 2 * MINUTE_MS },
  { name: 'unit', files: ['src/**/*.test.ts'], concurrency: 2, timeoutMs: 2 * MINUTE_MS },
  {
    name: 'integration',
    files: ['test/integration/*.test.ts'],
    concurrency: 1,
    timeoutMs: 4 * MINUTE_MS,
  },
  { name: 'attack', files: ['test/attack/*.test.ts'], concurrency: 1, timeoutMs: 4 * MINUTE_MS },
  { name: 'faults', files: ['test/faults/*.test.ts'], concurrency: 1, timeoutMs: 8 * MINUTE_MS },
  { name: 'e2e', files: ['test/e2e/*.test.ts'], concurrency: 1, timeoutMs: 12 * MINUTE_MS },
];

function runStage(stage: Stage): Promise<number> {
  const files = stage.files.flatMap((pattern) => globSync(pattern, { cwd: root })).sort();
  if (files.length === 0) return Promise.resolve(0);
  const args = [
    ...process.execArgv,
    '--test',
    `--test-concurrency=${stage.concurrency}`,
    `--test-timeout=${stage.timeoutMs}`,
    '--test-reporter=spec',
    ...files,
  ];
  return new Promise((resolve) => {
    const child = spawn(process.execPath, args, { cwd: root, stdio: 'inherit' });
    child.on('exit', (code) => resolve(code ?? 1));
  });
}

function typecheck(): Promise<number> {
  const compiler = join(root, 'node_modules/typescript/bin/tsc');
  return new Promise((resolve) => {
    const child = spawn(process.execPath, [compiler, '--noEmit', '-p', root], { stdio: 'inherit' });
    child.on('exit', (code) => resolve(code ?? 1));
  });
}

const wanted = process.argv.slice(2);
const unknown = wanted.filter((name) => !STAGES.some((stage) => stage.name === name));
if (unknown.length > 0) {
  console.error(
    `Unknown stage ${unknown.join(', ')}; there are: ${STAGES.map(({ name }) => name).join(', ')}`,
  );
  process.exit(2);
}
const summary: string[] = [];
for (const stage of STAGES) {
  if (wanted.length > 0 && !wanted.includes(stage.name)) continue;
  const startMs = performance.now();
  console.log(`\n=== ${stage.name} ===`);
  const code = (stage.name === 'style' ? await typecheck() : 0) || (await runStage(stage));
  const seconds = ((performance.now() - startMs) / 1000).toFixed(0);
  summary.push(`${code === 0 ? 'ok    ' : 'FAILED'} ${stage.name.padEnd(12)} ${seconds} s`);
  if (code !== 0) {
    console.log(`\n${summary.join('\n')}`);
    process.exit(code);
  }
}
console.log(`\n${summary.join('\n')}`);
