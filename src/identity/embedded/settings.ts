/** What the operator may decide about logins. */
export interface IdentitySettings {
  /** Of a token that was got by a password. @default one hour, as Keystone's */
  tokenLifetimeMs: number;
  /** How long a key signs tokens. */
  keyRotationMs: number;
  passwords: PasswordPolicy;
  lockout: LockoutPolicy;
}

export interface PasswordPolicy {
  lengthMin: number;
  /** What a password has to match, and how to say so. */
  pattern?: { regex: RegExp; description: string };
  /** How many passwords, the present one included, may not be taken again. 0: any. */
  historyCount: number;
  /** Absent: never. */
  expiresAfterMs?: number;
}

export interface LockoutPolicy {
  /** Wrong passwords in a row after which none is accepted. 0: never locked. */
  failureCount: number;
  /** Since the last wrong one. */
  durationMs: number;
}

export const IDENTITY_SETTINGS: IdentitySettings = {
  tokenLifetimeMs: 60 * 60_000,
  keyRotationMs: 7 * 24 * 60 * 60_000,
  passwords: { lengthMin: 8, historyCount: 0 },
  lockout: { failureCount: 6, durationMs: 5 * 60_000 },
};

/** How far a server's clock may be behind that of the server which issued a token. */
export const CLOCK_SKEW_MAX_MS = 60_000;

/** Bounds of the data itself. */
export const LIMITS = {
  nameLength: 64,
  userNameLength: 255,
  descriptionLength: 1024,
  tagCount: 80,
  tagLength: 255,
  /** In one collection, over all domains. */
  recordCount: 1_000_000,
  /** Tokens that did not expire yet; who revokes more loses all. */
  revocationsPerUser: 1_000,
  credentialsPerUser: 256,
  accessRulesPerCredential: 64,
  rolesPerCredential: 32,
} as const;
