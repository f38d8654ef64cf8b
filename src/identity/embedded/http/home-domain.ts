import { DEFAULT_DOMAIN_ID } from '../directory.ts';
import type { Call } from './call.ts';

/** Where something is made that names no domain: that of the caller's scope, else the default. */
export function homeDomain(call: Call): string {
  const { scope } = call.caller.session;
  if (scope.kind === 'domain') return scope.domain.id;
  if (scope.kind === 'project') return scope.project.domainId;
  return DEFAULT_DOMAIN_ID;
}
