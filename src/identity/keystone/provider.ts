import type { IdentityProvider } from '../../api/identity.ts';
import { systemClock } from '../../base/clock.ts';
import { silentLog } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import { createTokenDescriber } from './describe.ts';
import { createDirectory } from './directory.ts';
import { createKeystoneHttp } from './http.ts';
import { parseKeystoneUrl } from './options.ts';
import type { KeystoneOptions } from './options.ts';
import { createOutage } from './outage.ts';
import { createPoller } from './poller.ts';
import { createProjects } from './projects.ts';
import { createSession } from './session.ts';
import { isKeystoneToken } from './token-form.ts';
import { createValidations } from './validations.ts';

export type { KeystoneCredentials, KeystoneOptions } from './options.ts';

/**
 * How long a token that Keystone has confirmed goes on while Keystone is away, unless it expires
 * before. So long may a revocation go unheard that nobody could be asked about.
 */
export const OUTAGE_GRACE_MS = 60 * 60_000;
/** A healthy Keystone answers in well under a second, one with cold caches in two. */
const TIMEOUT_MS = 5_000;
const POLL_INTERVAL_MS = 10_000;
const VALIDATIONS_PER_S = 200;

/**
 * A Keystone that runs elsewhere as the source of identity. Nothing is asked before the first
 * call: a Keystone that is away when the cluster starts does not keep it from starting.
 *
 * Tokens are confirmed every `IDENTITY_CACHE_MS` at most while they are used. While Keystone is
 * away, confirmed ones go on until they expire, `outageGraceMs` at most, and others are answered
 * with `IdentityUnavailableError`; both end by themselves when it is back.
 *
 * Times in tokens are by this machine's clock: where Keystone's differs, that is set off.
 *
 * @throws Error for a URL that cannot be used
 */
export function createKeystoneProvider(options: KeystoneOptions): IdentityProvider {
  const clock = options.clock ?? systemClock;
  const random = options.random ?? systemRandom;
  const log = options.log ?? silentLog;
  const url = parseKeystoneUrl(options.url, options.isPlainHttpAllowed);
  const timeoutMs = options.timeoutMs ?? TIMEOUT_MS;
  const http = createKeystoneHttp({ url, caCert: options.caCert, timeoutMs, clock, random });
  const ungated = createSession({ http, credentials: options.credentials, clock, log });
  const outage = createOutage({ probe: () => ungated.probe(), clock, log });
  const session = { ...ungated, request: outage.gate(ungated.request) };
  const directory = createDirectory(session, clock);
  const describer = createTokenDescriber({ session, directory, clock, log });
  const validations = createValidations({
    describe: (token, userId) => describer.describe(token, userId),
    keystoneNowMs: () => session.keystoneNowMs(),
    outage,
    outageGraceMs: options.outageGraceMs ?? OUTAGE_GRACE_MS,
    validationsPerS: options.validationsPerS ?? VALIDATIONS_PER_S,
    clock,
    log,
  });
  const projects = createProjects(session, directory, () => poller.lookNow());
  const poller = createPoller({
    listProjects: () => projects.listProjects(),
    intervalMs: options.pollIntervalMs ?? POLL_INTERVAL_MS,
    clock,
    log,
  });

  return {
    kind: 'keystone',
    recognises: isKeystoneToken,
    validate: (token, signal) => validations.validate(token, signal),
    ...projects,
    onProjectsChanged: (changed, signal) => poller.subscribe(changed, signal),
    async close() {
      poller.close();
      outage.close();
      validations.close();
      http.close();
    },
  };
}
