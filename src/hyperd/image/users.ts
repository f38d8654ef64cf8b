/**
 * Whose pods have run an image, so that one that nobody else has run goes with its only user. An
 * image that was never run has no users: it is kept for whoever pulled it.
 */

/** More are not told apart: such an image is everybody's, and goes with nobody. */
const USERS_MAX = 64;
const EVERYBODY = '*';

/** @returns undefined when nothing changes by it */
export function withUser(usedBy: readonly string[], user: string): string[] | undefined {
  if (usedBy.includes(user) || usedBy.includes(EVERYBODY)) return undefined;
  return usedBy.length < USERS_MAX ? [...usedBy, user] : [EVERYBODY];
}

export function isOnlyUser(usedBy: readonly string[], user: string): boolean {
  return usedBy.length === 1 && usedBy[0] === user;
}
