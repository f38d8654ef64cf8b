import type { Plugin } from '../framework.ts';
import { interPodAffinity } from './affinity.ts';
import { nodeAffinity, nodeName, nodeUnschedulable, taintToleration } from './node.ts';
import { nodePorts } from './ports.ts';
import { nodeResourcesFit } from './resources.ts';
import { podTopologySpread } from './spread.ts';

/** In the order of filtering: cheap ones and those that rule out most come first. */
export const DEFAULT_PLUGINS: readonly Plugin[] = [
  nodeUnschedulable,
  nodeName,
  taintToleration,
  nodeAffinity,
  nodePorts,
  nodeResourcesFit,
  podTopologySpread,
  interPodAffinity,
] as readonly Plugin[];
