import { ImageError } from './store.ts';
import { isDigest } from './digest.ts';

/**
 * A parsed image reference, `registry/repository:tag@digest`, with Docker's rules for familiar
 * names applied: `busybox` is `docker.io/library/busybox:latest`.
 */
export interface Reference {
  /** Host and optional port, as in the reference. */
  registry: string;
  /** Path below the registry, as the distribution API wants it. */
  repository: string;
  /** `latest` where the reference has neither tag nor digest; empty with a digest alone. */
  tag: string;
  /** Empty where the reference has none. It outweighs the tag. */
  digest: string;
}

const DEFAULT_REGISTRY = 'docker.io';
/** The name under which the same registry was known first. */
const LEGACY_DEFAULT_REGISTRY = 'index.docker.io';
const OFFICIAL_NAMESPACE = 'library/';

/** Of registry and repository together: the limit of the distribution specification. */
const REFERENCE_NAME_CHARS_MAX = 255;
/** Longer ones are refused before any pattern looks at them. */
const REFERENCE_CHARS_MAX = REFERENCE_NAME_CHARS_MAX + 1 + 128 + 1 + 7 + 128;

const COMPONENT = /^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*$/;
const HOST =
  /^(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*$/;
const IPV6 = /^\[[a-fA-F0-9:]{2,45}\]$/;
const TAG = /^[A-Za-z0-9_][A-Za-z0-9._-]{0,127}$/;
const HEX64 = /^[a-f0-9]{64}$/;

/**
 * Parses a reference as a pod's `image` field gives it.
 * @throws ImageError InvalidReference
 */
export function parseReference(text: string): Reference {
  const invalid = (detail: string): ImageError => {
    const quoted = JSON.stringify(text.slice(0, 300));
    return new ImageError(
      'InvalidReference',
      `couldn't parse image reference ${quoted}: ${detail}`,
    );
  };
  if (text === '') throw invalid('invalid reference format: it is empty');
  if (text.length > REFERENCE_CHARS_MAX) {
    throw invalid(
      `it is ${text.length} characters long, at most ${REFERENCE_CHARS_MAX} are allowed`,
    );
  }
  if (HEX64.test(text)) {
    throw invalid('invalid repository name: cannot specify 64-byte hexadecimal strings');
  }
  const { name, tag, digest } = splitSuffixes(text);
  if (digest !== '' && !isDigest(digest))
    throw invalid('invalid digest: want sha256:<64 hex digits>');
  if (tag !== undefined && !TAG.test(tag)) throw invalid('invalid tag format');
  const { registry, repository } = splitRegistry(name);
  if (!isRegistryHost(registry)) throw invalid('invalid registry host');
  if (repository !== repository.toLowerCase()) throw invalid('repository name must be lowercase');
  if (!isRepository(repository)) throw invalid('invalid reference format');
  if (registry.length + 1 + repository.length > REFERENCE_NAME_CHARS_MAX) {
    throw invalid(`repository name must not be more than ${REFERENCE_NAME_CHARS_MAX} characters`);
  }
  return { registry, repository, tag: tag ?? (digest === '' ? 'latest' : ''), digest };
}

/** Whether `text` can name a repository in the distribution API. */
export function isRepository(text: string): boolean {
  if (text.length > REFERENCE_NAME_CHARS_MAX) return false;
  return text.split('/').every((component) => COMPONENT.test(component));
}

export function isTag(text: string): boolean {
  return TAG.test(text);
}

/** `registry/repository`, with the default registry spelled out. */
export function repositoryName(reference: Reference): string {
  return `${reference.registry}/${reference.repository}`;
}

/** The canonical text: default registry, namespace and tag spelled out. */
export function formatReference(reference: Reference): string {
  const tag = reference.tag === '' ? '' : `:${reference.tag}`;
  const digest = reference.digest === '' ? '' : `@${reference.digest}`;
  return `${repositoryName(reference)}${tag}${digest}`;
}

function splitSuffixes(text: string): { name: string; tag: string | undefined; digest: string } {
  const at = text.indexOf('@');
  const named = at < 0 ? text : text.slice(0, at);
  const digest = at < 0 ? '' : text.slice(at + 1) || '@';
  const colon = named.lastIndexOf(':');
  // A colon before the last slash belongs to the registry's port.
  if (colon < 0 || named.includes('/', colon)) return { name: named, tag: undefined, digest };
  return { name: named.slice(0, colon), tag: named.slice(colon + 1), digest };
}

/** The first component is a registry if it cannot be a namespace: Docker's rule. */
function splitRegistry(name: string): { registry: string; repository: string } {
  const slash = name.indexOf('/');
  const first = slash < 0 ? '' : name.slice(0, slash);
  const isHost = /[.:[]/.test(first) || first === 'localhost' || first !== first.toLowerCase();
  let registry = isHost ? first : DEFAULT_REGISTRY;
  let repository = isHost ? name.slice(slash + 1) : name;
  if (registry === LEGACY_DEFAULT_REGISTRY) registry = DEFAULT_REGISTRY;
  if (registry === DEFAULT_REGISTRY && !repository.includes('/')) {
    repository = OFFICIAL_NAMESPACE + repository;
  }
  return { registry, repository };
}

function isRegistryHost(text: string): boolean {
  const match = /^(.*?)(?::([0-9]{1,5}))?$/.exec(text);
  const host = match?.[1] ?? '';
  const port = match?.[2];
  if (port !== undefined && (Number(port) < 1 || Number(port) > 65535)) return false;
  return HOST.test(host) || IPV6.test(host);
}
