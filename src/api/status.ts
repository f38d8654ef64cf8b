/**
 * The one error family that reaches clients: Kubernetes' `Status` with its reason and HTTP code.
 * Reasons and codes: apimachinery, `metav1.StatusReason`.
 */
export interface StatusCause {
  /** One of metav1.CauseType: FieldValueInvalid, FieldValueRequired, … */
  reason?: string;
  message?: string;
  field?: string;
}

export interface StatusDetails {
  name?: string;
  group?: string;
  kind?: string;
  uid?: string;
  causes?: StatusCause[];
  retryAfterSeconds?: number;
}

export interface Status {
  apiVersion: 'v1';
  kind: 'Status';
  metadata: { continue?: string; [key: string]: unknown };
  status: 'Success' | 'Failure';
  message?: string;
  reason?: string;
  details?: StatusDetails;
  code: number;
}

const CODES = {
  BadRequest: 400,
  Unauthorized: 401,
  Forbidden: 403,
  NotFound: 404,
  MethodNotAllowed: 405,
  NotAcceptable: 406,
  AlreadyExists: 409,
  Conflict: 409,
  Gone: 410,
  Expired: 410,
  RequestEntityTooLarge: 413,
  UnsupportedMediaType: 415,
  Invalid: 422,
  TooManyRequests: 429,
  InternalError: 500,
  ServiceUnavailable: 503,
  Timeout: 504,
  ServerTimeout: 500,
} as const;

export type StatusReason = keyof typeof CODES;

export class StatusError extends Error {
  override name = 'StatusError';
  readonly reason: StatusReason | string;
  readonly code: number;
  readonly details: StatusDetails | undefined;
  /** For 410 answers to a paged list: a token with which the client may go on. */
  readonly continueToken: string | undefined;

  constructor(
    reason: StatusReason | string,
    message: string,
    options: {
      details?: StatusDetails;
      code?: number;
      cause?: unknown;
      continueToken?: string;
    } = {},
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause });
    this.reason = reason;
    this.code = options.code ?? (CODES as Record<string, number>)[reason] ?? 500;
    this.details = options.details;
    this.continueToken = options.continueToken;
  }

  toStatus(): Status {
    return {
      apiVersion: 'v1',
      kind: 'Status',
      metadata: this.continueToken ? { continue: this.continueToken } : {},
      status: 'Failure',
      message: this.message,
      ...(this.reason ? { reason: this.reason } : {}),
      ...(this.details ? { details: this.details } : {}),
      code: this.code,
    };
  }

  /** Rebuilds the error a server answered with. */
  static from(status: Partial<Status>): StatusError {
    return new StatusError(status.reason ?? '', status.message ?? 'unknown failure', {
      code: status.code ?? 500,
      ...(status.details ? { details: status.details } : {}),
    });
  }
}

/** `resource` as Kubernetes prints it: `pods`, `deployments.apps`. */
export function qualifiedResource(group: string, resource: string): string {
  return group ? `${resource}.${group}` : resource;
}

/** 404, in Kubernetes' words: `pods "a" not found`. */
export function notFound(group: string, resource: string, name: string): StatusError {
  const message = `${qualifiedResource(group, resource)} "${name}" not found`;
  return new StatusError('NotFound', message, { details: { name, group, kind: resource } });
}

/** 409 `AlreadyExists`, for a create of a name that is taken. */
export function alreadyExists(group: string, resource: string, name: string): StatusError {
  const message = `${qualifiedResource(group, resource)} "${name}" already exists`;
  return new StatusError('AlreadyExists', message, { details: { name, group, kind: resource } });
}

/** 409 `Conflict`: what was asked does not fit the object as it is now; `why` says how. */
export function conflict(group: string, resource: string, name: string, why: string): StatusError {
  const subject = `${qualifiedResource(group, resource)} "${name}"`;
  const message = `Operation cannot be fulfilled on ${subject}: ${why}`;
  return new StatusError('Conflict', message, { details: { name, group, kind: resource } });
}

/** 400 `BadRequest`: the request itself is wrong, whatever the state is. */
export function badRequest(message: string): StatusError {
  return new StatusError('BadRequest', message);
}

/** 422 with one cause per field, in the words of Kubernetes' field.ErrorList. */
export function invalid(
  group: string,
  kind: string,
  name: string,
  causes: StatusCause[],
): StatusError {
  const list = causes.map((cause) =>
    cause.field ? `${cause.field}: ${cause.message}` : cause.message,
  );
  const joined = list.length === 1 ? list[0] : `[${list.join(', ')}]`;
  const subject = `${group ? `${kind}.${group}` : kind} "${name}"`;
  const details = { name, group, kind, causes };
  return new StatusError('Invalid', `${subject} is invalid: ${joined}`, { details });
}

/** Whether an error is a `StatusError` of this reason, ours or one that a server sent. */
export function isStatus(error: unknown, reason: StatusReason): error is StatusError {
  return error instanceof StatusError && error.reason === reason;
}
