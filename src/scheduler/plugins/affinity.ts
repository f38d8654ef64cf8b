import { matchesLabelSelector } from '../../api/selectors.ts';
import type { Pod, PodAffinityTerm } from '../../api/types.generated.ts';
import type { NodeInfo, Plugin, Snapshot } from '../framework.ts';

/** A topology domain: a label's key and value that nodes share. */
type Domain = string;

interface AffinityState {
  required: PodAffinityTerm[];
  requiredAnti: PodAffinityTerm[];
  /** Per required term, the domains in which a matching pod runs. */
  affinityDomains: Set<Domain>[];
  antiDomains: Set<Domain>[];
  /** Domains from which running pods keep this one away. */
  forbidden: Set<Domain>;
  /** The pod matches its own terms, and may be the first of its group. */
  selfMatches: boolean;
  preference: Map<Domain, number>;
}

/**
 * Pods near, or not near, other pods. Counts are made once per pod over the snapshot; a node is
 * then judged by the domains that its labels name.
 */
export const interPodAffinity: Plugin<AffinityState> = {
  name: 'InterPodAffinity',
  weight: 2,
  normalize: 'highest-best',
  prepare(pod, snapshot) {
    const state = collect(pod, snapshot);
    const idle =
      state.required.length + state.requiredAnti.length === 0 &&
      state.forbidden.size + state.preference.size === 0;
    return idle ? undefined : state;
  },
  filter(state, _pod, node) {
    if (state.required.length > 0 && !satisfiesAffinity(state, node)) {
      return ["node(s) didn't match pod affinity rules"];
    }
    const repelled = state.requiredAnti.some((term, index) => {
      const domain = domainOf(node, term.topologyKey);
      return domain !== undefined && state.antiDomains[index]?.has(domain);
    });
    if (repelled) return ["node(s) didn't match pod anti-affinity rules"];
    const unwanted = [...domainsOf(node)].some((domain) => state.forbidden.has(domain));
    return unwanted ? ["node(s) didn't satisfy existing pods anti-affinity rules"] : [];
  },
  score(state, _pod, node) {
    let sum = 0;
    for (const domain of domainsOf(node)) sum += state.preference.get(domain) ?? 0;
    return sum;
  },
};

function satisfiesAffinity(state: AffinityState, node: NodeInfo): boolean {
  const domains = state.required.map((term) => domainOf(node, term.topologyKey));
  if (domains.some((domain) => domain === undefined)) return false;
  const met = domains.every((domain, index) => state.affinityDomains[index]?.has(domain as Domain));
  // The first of a group that wants to be together has nobody to be near to.
  const nobody = state.affinityDomains.every((found) => found.size === 0);
  return met || (nobody && state.selfMatches);
}

function collect(pod: Pod, snapshot: Snapshot): AffinityState {
  const affinity = pod.spec?.affinity;
  const required = affinity?.podAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? [];
  const requiredAnti =
    affinity?.podAntiAffinity?.requiredDuringSchedulingIgnoredDuringExecution ?? [];
  const state: AffinityState = {
    required,
    requiredAnti,
    affinityDomains: required.map(() => new Set()),
    antiDomains: requiredAnti.map(() => new Set()),
    forbidden: new Set(),
    selfMatches: required.every((term) => termMatches(term, pod, pod, snapshot)),
    preference: new Map(),
  };
  for (const node of snapshot.nodes) {
    for (const other of node.pods) collectFrom(state, pod, other, node, snapshot);
  }
  return state;
}

function collectFrom(
  state: AffinityState,
  pod: Pod,
  other: Pod,
  node: NodeInfo,
  snapshot: Snapshot,
): void {
  const addDomains = (terms: PodAffinityTerm[], found: Set<Domain>[]) => {
    for (const [index, term] of terms.entries()) {
      const domain = domainOf(node, term.topologyKey);
      if (domain && termMatches(term, pod, other, snapshot)) found[index]?.add(domain);
    }
  };
  addDomains(state.required, state.affinityDomains);
  addDomains(state.requiredAnti, state.antiDomains);
  const keepsAway = other.spec?.affinity?.podAntiAffinity;
  for (const term of keepsAway?.requiredDuringSchedulingIgnoredDuringExecution ?? []) {
    const domain = domainOf(node, term.topologyKey);
    if (domain && termMatches(term, other, pod, snapshot)) state.forbidden.add(domain);
  }
  const affinity = pod.spec?.affinity;
  const preferences = [
    ...(affinity?.podAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []).map(
      ({ weight, podAffinityTerm }) => ({ weight, term: podAffinityTerm }),
    ),
    ...(affinity?.podAntiAffinity?.preferredDuringSchedulingIgnoredDuringExecution ?? []).map(
      ({ weight, podAffinityTerm }) => ({ weight: -weight, term: podAffinityTerm }),
    ),
  ];
  for (const { weight, term } of preferences) {
    const domain = domainOf(node, term.topologyKey);
    if (!domain || !termMatches(term, pod, other, snapshot)) continue;
    state.preference.set(domain, (state.preference.get(domain) ?? 0) + weight);
  }
}

/** Whether `other` is one of the pods that `owner`'s term speaks of. */
function termMatches(term: PodAffinityTerm, owner: Pod, other: Pod, snapshot: Snapshot): boolean {
  if (!matchesLabelSelector(term.labelSelector, other.metadata.labels ?? {})) return false;
  if (!sameKeyValues(term.matchLabelKeys, owner, other, true)) return false;
  if (!sameKeyValues(term.mismatchLabelKeys, owner, other, false)) return false;
  const namespace = other.metadata.namespace ?? '';
  const listed = term.namespaces ?? [];
  if (listed.includes(namespace)) return true;
  if (term.namespaceSelector) {
    return matchesLabelSelector(term.namespaceSelector, snapshot.namespaceLabels(namespace));
  }
  return listed.length === 0 && namespace === (owner.metadata.namespace ?? '');
}

function sameKeyValues(keys: string[] | undefined, owner: Pod, other: Pod, same: boolean): boolean {
  return (keys ?? []).every((key) => {
    const value = owner.metadata.labels?.[key];
    return value === undefined || (other.metadata.labels?.[key] === value) === same;
  });
}

function domainOf(node: NodeInfo, topologyKey: string): Domain | undefined {
  const value = node.node.metadata.labels?.[topologyKey];
  return value === undefined ? undefined : `${topologyKey}=${value}`;
}

function* domainsOf(node: NodeInfo): Generator<Domain> {
  for (const [key, value] of Object.entries(node.node.metadata.labels ?? {}))
    yield `${key}=${value}`;
}
