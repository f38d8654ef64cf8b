/** An answer of the distribution API that is not a success. */
export class RegistryError extends Error {
  override name = 'RegistryError';
  readonly status: number;
  readonly code: RegistryErrorCode;
  readonly headers: Record<string, string>;
  constructor(code: RegistryErrorCode, message: string, headers: Record<string, string> = {}) {
    super(message);
    this.code = code;
    this.status = STATUS[code];
    this.headers = headers;
  }
}

/** The codes of the OCI distribution specification, and two of Docker's for what it leaves out. */
const STATUS = {
  BLOB_UNKNOWN: 404,
  BLOB_UPLOAD_INVALID: 400,
  BLOB_UPLOAD_UNKNOWN: 404,
  DIGEST_INVALID: 400,
  MANIFEST_BLOB_UNKNOWN: 404,
  MANIFEST_INVALID: 400,
  MANIFEST_UNKNOWN: 404,
  NAME_INVALID: 400,
  NAME_UNKNOWN: 404,
  SIZE_INVALID: 413,
  RANGE_INVALID: 416,
  TAG_INVALID: 400,
  UNAUTHORIZED: 401,
  DENIED: 403,
  UNSUPPORTED: 405,
  TOOMANYREQUESTS: 429,
  PAGINATION_NUMBER_INVALID: 400,
  STORAGE_FULL: 507,
  UNKNOWN: 500,
} as const;

export type RegistryErrorCode = keyof typeof STATUS;
