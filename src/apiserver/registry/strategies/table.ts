import type { Strategy } from '../strategy.ts';
import { podStrategy } from './pod.ts';

export const STRATEGIES: Record<string, Strategy | undefined> = {
  pods: podStrategy,
};
