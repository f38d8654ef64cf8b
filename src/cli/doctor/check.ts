import type { DataPaths } from '../config.ts';

/**
 * One thing that a machine can or cannot do, found out by doing it. `limit` works with less than
 * is possible; `missing` keeps pods from running.
 */
export interface Check {
  name: string;
  /** @default 2 minutes */
  limitMs?: number;
  run(context: CheckContext): Promise<Finding>;
}

export interface CheckContext {
  paths: DataPaths;
  /** Of this call of `doctor`, which removes it. */
  directory: string;
  /** Whether what takes long is done where it is not needed to find out what the machine can do. */
  full: boolean;
  signal: AbortSignal;
}

export interface Finding {
  verdict: 'good' | 'limit' | 'missing';
  /** What was found. */
  detail: string;
  /** What it means for pods, and what can be done about it; empty when all is well. */
  consequence: string;
}

export const good = (detail: string): Finding => ({ verdict: 'good', detail, consequence: '' });

export const limit = (detail: string, consequence: string): Finding => ({
  verdict: 'limit',
  detail,
  consequence,
});

export const missing = (detail: string, consequence: string): Finding => ({
  verdict: 'missing',
  detail,
  consequence,
});
