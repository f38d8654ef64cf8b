import { argon2, timingSafeEqual } from 'node:crypto';
import { assert } from '../../base/assert.ts';
import type { Random } from '../../base/random.ts';
import { badRequest, busy } from './errors.ts';

/**
 * Argon2id with what OWASP recommends first. Stored with every hash, so that they may grow: older
 * hashes go on to be verified by their own.
 */
export interface HashParameters {
  memoryKib: number;
  passes: number;
  parallelism: number;
}

export const HASH_PARAMETERS: HashParameters = { memoryKib: 19_456, passes: 2, parallelism: 1 };

/** What a stored hash may ask for, so that a damaged record cannot take the machine. */
const HASH_PARAMETERS_MAX: HashParameters = { memoryKib: 1 << 20, passes: 16, parallelism: 4 };

const SALT_BYTES = 16;
const TAG_BYTES = 32;

/** Longer ones would let a caller choose how much is hashed. */
export const PASSWORD_BYTES_MAX = 1024;

/** Hashes computed at a time; the rest of the machine goes on. */
const CONCURRENCY = 2;
/** Waiting for their turn; beyond it logins are told to try again. */
const QUEUE_LENGTH_MAX = 256;
/** Of one account or one address, so that guesses at the one or from the other keep nobody out. */
const QUEUE_PER_SUBJECT_MAX = 32;

export interface PasswordHasher {
  /** @returns a PHC string: `$argon2id$v=19$m=…,t=…,p=…$salt$hash` */
  hash(password: string, subjects: string[]): Promise<string>;
  /**
   * Whether the password is the one of the hash, in the same time for every answer.
   * @throws KeystoneError 503 when too many wait
   */
  verify(password: string, check: PasswordCheck): Promise<boolean>;
}

export interface PasswordCheck {
  /**
   * Whose turn it takes: the account as the caller names it, whether or not it exists, and the
   * caller's address. Neither can fill the queue alone.
   */
  subjects: string[];
  /** Asked when the turn has come. Undefined: there is none, which takes as long and fails. */
  hashOf: () => string | undefined;
  /**
   * Told the outcome before the turn passes on: of many guesses that wait, hardly any is checked
   * after the one that locks the account.
   */
  settle: (correct: boolean) => Promise<void>;
}

export interface HasherOptions {
  random: Random;
  /** @default HASH_PARAMETERS; tests take cheaper ones */
  parameters?: HashParameters;
}

export function createPasswordHasher(options: HasherOptions): PasswordHasher {
  const { random, parameters = HASH_PARAMETERS } = options;
  const turns = createTurns();
  const dummy = format(parameters, random.bytes(SALT_BYTES), random.bytes(TAG_BYTES));
  return {
    async hash(password, subjects) {
      if (Buffer.byteLength(password) > PASSWORD_BYTES_MAX) {
        throw badRequest(`The password is longer than ${PASSWORD_BYTES_MAX} bytes.`);
      }
      const salt = random.bytes(SALT_BYTES);
      const tag = await turns(subjects, () => derive(password, salt, TAG_BYTES, parameters));
      return format(parameters, salt, tag);
    },
    verify(password, { subjects, hashOf, settle }) {
      return turns(subjects, async () => {
        const fits = Buffer.byteLength(password) <= PASSWORD_BYTES_MAX;
        const hash = hashOf();
        const { salt, tag, parameters: costs } = parse(hash ?? dummy);
        const derived = await derive(fits ? password : '', salt, tag.length, costs);
        const correct = timingSafeEqual(derived, tag) && fits && hash !== undefined;
        await settle(correct);
        return correct;
      });
    },
  };
}

function derive(
  password: string,
  salt: Uint8Array,
  tagLength: number,
  parameters: HashParameters,
): Promise<Buffer> {
  const { memoryKib: memory, passes, parallelism } = parameters;
  return new Promise((resolve, reject) => {
    argon2(
      'argon2id',
      { message: password, nonce: salt, parallelism, tagLength, memory, passes },
      (error, tag) => (error ? reject(error) : resolve(Buffer.from(tag))),
    );
  });
}

const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64').replaceAll('=', '');

function format(parameters: HashParameters, salt: Uint8Array, tag: Uint8Array): string {
  const { memoryKib, passes, parallelism } = parameters;
  const costs = `m=${memoryKib},t=${passes},p=${parallelism}`;
  return `$argon2id$v=19$${costs}$${base64(salt)}$${base64(tag)}`;
}

const PHC =
  /^\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,2}),p=(\d)\$([A-Za-z0-9+/]{11,86})\$([A-Za-z0-9+/]{22,86})$/;

function parse(hash: string) {
  const match = PHC.exec(hash);
  assert(match, 'a stored password is an argon2id PHC string');
  const [, memoryKib, passes, parallelism, salt = '', tag = ''] = match;
  const parameters = {
    memoryKib: Number(memoryKib),
    passes: Number(passes),
    parallelism: Number(parallelism),
  };
  for (const name of ['memoryKib', 'passes', 'parallelism'] as const) {
    const fits = parameters[name] <= HASH_PARAMETERS_MAX[name];
    assert(fits, `a stored password's ${name} is at most ${HASH_PARAMETERS_MAX[name]}`);
  }
  return { parameters, salt: Buffer.from(salt, 'base64'), tag: Buffer.from(tag, 'base64') };
}

/** Runs a few jobs at a time, in the order in which they came. */
function createTurns() {
  let running = 0;
  const queue: { subjects: string[]; start: () => void }[] = [];
  const waitingOf = new Map<string, number>();

  const count = (subject: string, by: 1 | -1) => {
    const waiting = (waitingOf.get(subject) ?? 0) + by;
    if (waiting === 0) waitingOf.delete(subject);
    else waitingOf.set(subject, waiting);
  };
  const enter = (subjects: string[]): Promise<void> | undefined => {
    if (running < CONCURRENCY) {
      running += 1;
      return undefined;
    }
    const isFull = (subject: string) => (waitingOf.get(subject) ?? 0) >= QUEUE_PER_SUBJECT_MAX;
    if (queue.length >= QUEUE_LENGTH_MAX || subjects.some(isFull)) {
      throw busy('Too many logins are being checked. Try again in a few seconds.');
    }
    for (const subject of subjects) count(subject, 1);
    return new Promise((start) => queue.push({ subjects, start }));
  };
  const leave = () => {
    const next = queue.shift();
    if (!next) {
      running -= 1;
      return;
    }
    for (const subject of next.subjects) count(subject, -1);
    next.start();
  };
  return async <R>(subjects: string[], job: () => Promise<R>): Promise<R> => {
    await enter(subjects);
    try {
      return await job();
    } finally {
      leave();
    }
  };
}
