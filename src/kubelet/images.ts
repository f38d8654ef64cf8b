import { StatusError, isStatus } from '../api/status.ts';
import type { Container, Pod } from '../api/types.generated.ts';
import type { ImageStatus, PullImage } from '../api/hyperd.ts';
import type { Clock } from '../base/clock.ts';
import { describeError } from '../base/log.ts';
import { backoffMs, goDuration } from './backoff.ts';
import { ContainerConfigError } from './errors.ts';
import type { PodEvents } from './events.ts';
import type { HyperdClient } from '../client/hyperd.ts';
import type { ReferencedObjects } from './objects.ts';
import { pullCredentials } from './pull-secrets.ts';

/**
 * Makes a container's image present, by its pull policy, with Kubernetes' back-off between
 * attempts that fail. One puller serves one pod.
 */
export interface ImagePuller {
  /**
   * @throws ContainerConfigError ErrImagePull when it failed now, ImagePullBackOff while it
   * waits, ErrImageNeverPull, InvalidImageName
   */
  ensure(pod: Pod, container: Container, signal: AbortSignal): Promise<ImageStatus>;
  /** When the image of a container may be tried again; undefined where nothing waits. */
  retryAtMs(containerName: string): number | undefined;
}

export interface ImagePullerOptions {
  hyperd: HyperdClient;
  objects: ReferencedObjects;
  clock: Clock;
  events: PodEvents;
}

type About = (type: 'Normal' | 'Warning', reason: string, message: string) => void;

interface Failure {
  image: string;
  count: number;
  retryAtMs: number;
  message: string;
}

const POLICIES: Record<string, PullImage['policy']> = {
  Always: 'always',
  IfNotPresent: 'if-not-present',
  Never: 'never',
};

export function createImagePuller(options: ImagePullerOptions): ImagePuller {
  const { hyperd, clock, events } = options;
  const failures = new Map<string, Failure>();
  const turns = new Map<string, Promise<unknown>>();
  return {
    retryAtMs: (name) => failures.get(name)?.retryAtMs,
    ensure(pod, container, signal) {
      // Containers of one image take turns: the first pulls it, and the others find it there.
      const { name, image = '' } = container;
      const about: About = (type, reason, message) => events.emit(pod, type, reason, message, name);
      const turn = (turns.get(image) ?? Promise.resolve()).then(async () => {
        const found = await findPresent(pod, container, about, signal);
        return found ?? pull(pod, container, about, signal);
      });
      const settled = turn.catch(() => {});
      turns.set(image, settled);
      return turn;
    },
  };

  async function findPresent(
    pod: Pod,
    { name, image = '', imagePullPolicy = '' }: Container,
    about: About,
    signal: AbortSignal,
  ): Promise<ImageStatus | undefined> {
    const policy = POLICIES[imagePullPolicy] ?? defaultPolicy(image);
    if (policy === 'always') return undefined;
    const found = await lookUp(pod, image, signal);
    if (found) {
      failures.delete(name);
      about('Normal', 'Pulled', `Container image "${image}" already present on machine`);
      return found;
    }
    if (policy === 'if-not-present') return undefined;
    const message = `Container image "${image}" is not present with pull policy of Never`;
    about('Warning', 'ErrImageNeverPull', message);
    about('Warning', 'Failed', 'Error: ErrImageNeverPull');
    throw new ContainerConfigError('ErrImageNeverPull', message);
  }

  async function pull(
    pod: Pod,
    { name, image = '' }: Container,
    about: About,
    signal: AbortSignal,
  ): Promise<ImageStatus> {
    const before = failures.get(name);
    if (before && before.image === image && clock.monotonicMs() < before.retryAtMs) {
      about('Normal', 'BackOff', `Back-off pulling image "${image}"`);
      const message = `Back-off pulling image "${image}": ${before.message}`;
      about('Warning', 'Failed', 'Error: ImagePullBackOff');
      throw new ContainerConfigError('ImagePullBackOff', message);
    }
    about('Normal', 'Pulling', `Pulling image "${image}"`);
    const beganMs = clock.monotonicMs();
    try {
      const credentials = await pullCredentials(pod, image, options.objects);
      const request = { reference: image, credentials, policy: 'always' as const };
      const pulled = await hyperd.pullImage(request, signal);
      failures.delete(name);
      const took = goDuration(clock.monotonicMs() - beganMs);
      const details = `(${took} including waiting). Image size: ${pulled.diskBytes} bytes.`;
      about('Normal', 'Pulled', `Successfully pulled image "${image}" in ${took} ${details}`);
      return pulled;
    } catch (error) {
      if (signal.aborted) throw error;
      throw recordFailure(image, name, before, error, about);
    }
  }

  /** Secrets are read only for an image that is not there for everyone. */
  async function lookUp(pod: Pod, reference: string, signal: AbortSignal) {
    const free = await present(hyperd, reference, [], signal);
    if (free) return free;
    const credentials = await pullCredentials(pod, reference, options.objects);
    if (credentials.length === 0) return undefined;
    return present(hyperd, reference, credentials, signal);
  }

  function recordFailure(
    image: string,
    name: string,
    before: Failure | undefined,
    error: unknown,
    about: About,
  ): ContainerConfigError {
    const count = before?.image === image ? before.count + 1 : 0;
    const why = describeError(error);
    const retryAtMs = clock.monotonicMs() + backoffMs(count);
    failures.set(name, { image, count, retryAtMs, message: why });
    const isInvalid = imageReason(error) === 'InvalidReference';
    const reason = isInvalid ? 'InvalidImageName' : 'ErrImagePull';
    if (isInvalid) {
      about('Warning', 'InspectFailed', `Failed to apply default image tag "${image}": ${why}`);
    } else {
      about('Warning', 'Failed', `Failed to pull image "${image}": ${why}`);
    }
    about('Warning', 'Failed', `Error: ${reason}`);
    return new ContainerConfigError(reason, why);
  }
}

/** hyperd's own word for what went wrong with an image. */
function imageReason(error: unknown): string | undefined {
  return error instanceof StatusError ? error.details?.causes?.[0]?.reason : undefined;
}

async function present(
  hyperd: HyperdClient,
  reference: string,
  credentials: PullImage['credentials'],
  signal: AbortSignal,
): Promise<ImageStatus | undefined> {
  try {
    return await hyperd.pullImage({ reference, credentials, policy: 'never' }, signal);
  } catch (error) {
    if (isStatus(error, 'NotFound') || imageReason(error) === 'InvalidReference') return undefined;
    throw error;
  }
}

/** As the API server defaults it: `Always` for the tag `latest` and for none. */
function defaultPolicy(image: string): PullImage['policy'] {
  if (image.includes('@')) return 'if-not-present';
  const tag = /:([^/:]+)$/.exec(image)?.[1] ?? 'latest';
  return tag === 'latest' ? 'always' : 'if-not-present';
}
