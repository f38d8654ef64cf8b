/**
 * What a caller of the identity service can meet, in Keystone's terms: an HTTP status, its title
 * and a sentence. Internal callers tell them apart by `code`.
 */
export class KeystoneError extends Error {
  override name = 'KeystoneError';
  readonly code: number;
  readonly title: string;
  constructor(code: number, title: string, message: string) {
    super(message);
    this.code = code;
    this.title = title;
  }
}

export const badRequest = (message: string) => new KeystoneError(400, 'Bad Request', message);

/** One text for every reason, so that nobody learns which names exist. */
export const unauthorized = (message = 'The request you have made requires authentication.') =>
  new KeystoneError(401, 'Unauthorized', message);

export const forbidden = (message: string) => new KeystoneError(403, 'Forbidden', message);

/** @param action in the words of Keystone's policies: `identity:create_project` */
export const notAuthorized = (action: string) =>
  forbidden(`You are not authorized to perform the requested action: ${action}.`);

export const notFound = (kind: string, id: string) =>
  new KeystoneError(404, 'Not Found', `Could not find ${kind}: ${id}.`);

export const conflict = (kind: string, details: string) =>
  new KeystoneError(409, 'Conflict', `Conflict occurred attempting to store ${kind} - ${details}.`);

export const busy = (message: string) => new KeystoneError(503, 'Service Unavailable', message);
