import { StatusError } from '../../api/status.ts';
import { describeError } from '../../base/log.ts';
import { AgentError } from '../agent/agent.ts';
import { ImageError } from '../image/store.ts';
import type { ImageErrorReason } from '../image/store.ts';
import { HypervisorError } from '../vmm/hypervisor.ts';

/** What went wrong below, in the terms of HTTP. The reason below is in the first cause. */

const IMAGE_REASONS: Record<ImageErrorReason, string> = {
  InvalidReference: 'BadRequest',
  NotFound: 'NotFound',
  Unauthorized: 'Forbidden',
  DigestMismatch: 'Invalid',
  WrongPlatform: 'Invalid',
  Malformed: 'Invalid',
  TooLarge: 'RequestEntityTooLarge',
  Unreachable: 'ServiceUnavailable',
  InUse: 'Conflict',
  NoSpace: 'InternalError',
};

const AGENT_REASONS: Record<string, string> = {
  NotFound: 'NotFound',
  Invalid: 'BadRequest',
  StartError: 'Invalid',
  Refused: 'Conflict',
  Unsupported: 'BadRequest',
  Closed: 'ServiceUnavailable',
  Interrupted: 'ServiceUnavailable',
  Timeout: 'Timeout',
};

const HYPERVISOR_REASONS: Record<HypervisorError['reason'], string> = {
  Invalid: 'BadRequest',
  Failed: 'InternalError',
  Gone: 'Conflict',
  Unsupported: 'BadRequest',
};

export function toStatusError(error: unknown): StatusError {
  if (error instanceof StatusError) return error;
  const [reason, isTransient] = reasonOf(error);
  const known = reason !== undefined;
  const causes = known
    ? [{ reason: (error as { reason: string }).reason, message: describeError(error) }]
    : [];
  const retry = isTransient ? { retryAfterSeconds: 1 } : {};
  return new StatusError(reason ?? 'InternalError', describeError(error), {
    ...(known ? { details: { causes, ...retry } } : {}),
    cause: error,
  });
}

function reasonOf(error: unknown): [reason: string | undefined, isTransient: boolean] {
  if (error instanceof ImageError) return [IMAGE_REASONS[error.reason], error.transient];
  if (error instanceof AgentError) return [AGENT_REASONS[error.reason] ?? 'InternalError', false];
  if (error instanceof HypervisorError) return [HYPERVISOR_REASONS[error.reason], false];
  return [undefined, false];
}
