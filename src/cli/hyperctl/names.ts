import type { ImageStatus, PodState } from '../../api/hyperd.ts';
import type { HyperdClient } from '../../client/hyperd.ts';
import { formatReference, parseReference } from '../../hyperd/image/reference.ts';
import { LABEL } from '../../kubelet/history.ts';
import { UsageError } from '../errors.ts';

/** Pods, containers and images as people call them. */

/** Whether the pod is a cluster's, which makes it anew when it is not as it should be. */
export function isOfKubernetes({ labels }: PodState): boolean {
  return labels[LABEL.podUid] !== undefined;
}

/** `web`, and `namespace/name` for one of Kubernetes'. */
export function podName(pod: PodState): string {
  return isOfKubernetes(pod) ? `${pod.namespace}/${pod.name}` : pod.name;
}

/** By name, by `namespace/name`, by id, or by the beginning of an id. @throws UsageError */
export async function findPod(client: HyperdClient, text: string): Promise<PodState> {
  const pods = await client.pods();
  const exact = pods.filter((pod) => pod.id === text || podName(pod) === text);
  const found = exact.length > 0 ? exact : pods.filter(({ id }) => id.startsWith(text));
  const [first, second] = newestFirst(found);
  if (!first) throw new UsageError(`There is no pod "${text}".`);
  if (second && exact.length === 0) {
    throw new UsageError(`"${text}" could be any of ${found.length} pods: write more of it.`);
  }
  return first;
}

/** A pod of Kubernetes may have had a VM before: the newest one counts. */
function newestFirst(pods: PodState[]): PodState[] {
  return pods.toSorted((a, b) => (b.timings.requested ?? 0) - (a.timings.requested ?? 0));
}

/** @throws UsageError for a pod of Kubernetes, unless it is forced */
export function refuseForeign(pod: PodState, action: string, force: boolean | undefined): void {
  if (!isOfKubernetes(pod) || force) return;
  throw new UsageError(
    `Cannot ${action} pod "${podName(pod)}": it is Kubernetes', which would put it right again. ` +
      'Use kubectl, or --force.',
  );
}

/**
 * The newest attempt of a container: the one that is named, or the only one that there is.
 * @returns its id
 * @throws UsageError
 */
export function findContainer(pod: PodState, name: string | undefined): string {
  const newest = new Map(pod.containers.map((container) => [container.name, container]));
  const choice = `there are: ${[...newest.keys()].join(', ')}`;
  const found = name === undefined ? [...newest.values()] : [newest.get(name)].filter(isThere);
  const [first, second] = found;
  if (!first && name === undefined) {
    throw new UsageError(`Pod "${podName(pod)}" has no containers.`);
  }
  if (!first) throw new UsageError(`Pod "${podName(pod)}" has no container "${name}"; ${choice}.`);
  if (second) {
    throw new UsageError(
      `Pod "${podName(pod)}" has several containers: name one with -c; ${choice}.`,
    );
  }
  return first.id;
}

function isThere<T>(value: T | undefined): value is T {
  return value !== undefined;
}

const ID = /^(?:sha256:)?[0-9a-f]{4,64}$/;

/** By any name or the beginning of its id; undefined where it is not here. @throws UsageError */
export function findImage(images: ImageStatus[], text: string): ImageStatus | undefined {
  const wanted = canonical(text);
  const named = images.find(({ references }) => wanted && references.includes(wanted));
  if (named || !ID.test(text)) return named;
  const hex = text.replace(/^sha256:/, '');
  const [first, second] = images.filter(({ id }) => id.startsWith(`sha256:${hex}`));
  if (second) throw new UsageError(`"${text}" could be several images: write more of it.`);
  return first;
}

function canonical(text: string): string | undefined {
  try {
    const reference = parseReference(text);
    return formatReference(reference.digest === '' ? reference : { ...reference, tag: '' });
  } catch {
    return undefined;
  }
}

/** `busybox:1`, as people write it who know the default registry. */
export function familiar(reference: string): string {
  return reference.replace(/^docker\.io\/(library\/)?/, '');
}

/** What an image is called: its first tag, or the beginning of its id. */
export function imageName(images: ImageStatus[], id: string): string {
  const tag = images
    .find((image) => image.id === id)
    ?.references.find((name) => !name.includes('@'));
  return tag ? familiar(tag) : shortId(id);
}

export function shortId(id: string): string {
  return id.replace(/^sha256:/, '').slice(0, 12);
}
