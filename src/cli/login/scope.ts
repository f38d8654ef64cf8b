import { list } from '../../identity/keystone/parse.ts';
import { UsageError } from '../errors.ts';
import type { Terminal } from '../prompt.ts';
import type { IssuedToken, Keystone, WantedScope } from './keystone.ts';
import type { ScopeWish } from './sources.ts';

interface Place {
  name: string;
  scope: WantedScope;
}

/**
 * Turns somebody's first token into one for what they want to work on. Without a wish: what the
 * token is for already, or the only thing that they have a role on, or what they choose.
 *
 * @throws UsageError that lists what there is to choose
 */
export async function scopeToken(
  keystone: Keystone,
  token: IssuedToken,
  wish: ScopeWish,
  terminal: Terminal | undefined,
): Promise<IssuedToken> {
  if (isWished(token, wish)) return token;
  if (token.applicationCredentialId !== undefined) {
    throw new UsageError(
      `Cannot use the application credential for ${describeWish(wish)}: it is for ` +
        `${describeScope(token)} alone.`,
    );
  }
  const { scope } = await choose(await placesOf(keystone, token.value), wish, terminal);
  return keystone.authenticate({ kind: 'token', token: token.value }, scope);
}

function isWished({ scope }: IssuedToken, wish: ScopeWish): boolean {
  if (!wish) return scope.kind === 'project' || scope.kind === 'system';
  if (wish.kind === 'system') return scope.kind === 'system';
  return scope.kind === 'project' && [scope.project.id, scope.project.name].includes(wish.project);
}

async function placesOf(keystone: Keystone, token: string): Promise<Place[]> {
  const [projects, system] = await Promise.all([
    keystone.ask(token, { method: 'GET', path: '/auth/projects' }),
    keystone.ask(token, { method: 'GET', path: '/auth/system' }),
  ]);
  const places = list(projects['projects'], 'projects').map((value): Place => {
    const { id, name } = value as { id: string; name: string };
    return { name, scope: { kind: 'project', id } };
  });
  const isOperator = list(system['system'], 'system').length > 0;
  return isOperator ? [...places, { name: '--system', scope: { kind: 'system' } }] : places;
}

async function choose(
  places: Place[],
  wish: ScopeWish,
  terminal: Terminal | undefined,
): Promise<Place> {
  const names = places.map(({ name }) => name).join(', ') || 'nothing';
  const fitting = places.filter(({ name, scope }) => {
    if (!wish) return true;
    if (wish.kind === 'system') return scope.kind === 'system';
    return scope.kind === 'project' && [scope.id, name].includes(wish.project);
  });
  const [only] = fitting;
  if (only && fitting.length === 1) return only;
  if (wish && fitting.length > 1) {
    const ids = fitting.map(({ scope }) => ('id' in scope ? scope.id : '')).join(', ');
    throw new UsageError(`There are several projects of that name: give an id, of ${ids}.`);
  }
  if (wish) {
    throw new UsageError(
      `Cannot log in for ${describeWish(wish)}: you have no role there. You have one on ${names}.`,
    );
  }
  if (places.length === 0) {
    throw new UsageError('Cannot log in: you have no role on any tenant. Ask for one.');
  }
  if (!terminal) {
    throw new UsageError(`Cannot log in: choose what for with --tenant or --system, of ${names}.`);
  }
  const answer = await terminal.ask(`You have a role on ${names}. Which? `);
  const chosen = places.find(({ name }) => name === answer);
  if (chosen) return chosen;
  throw new UsageError(`Cannot log in for ${JSON.stringify(answer)}: choose one of ${names}.`);
}

function describeWish(wish: ScopeWish): string {
  return wish?.kind === 'project' ? `"${wish.project}"` : 'the whole system';
}

export function describeScope({ scope }: Pick<IssuedToken, 'scope'>): string {
  return scope.kind === 'project' ? `project "${scope.project.name}"` : `the ${scope.kind}`;
}
