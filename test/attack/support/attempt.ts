import type { Answer, Request } from './client.ts';
import type { Who, World } from './world.ts';

/** What the runner asks of the place where attempts are made. */
export type Scene = Pick<World, 'canaries' | 'fingerprint' | 'send'>;

/** One question, or what needs more than one to be asked. */
export type Try<S = World> =
  Request | ((scene: S, who: Who) => Request | Promise<Answer | Request>);

/** @returns what is wrong with an answer, undefined where nothing is */
export type Verdict<S = World> = (answer: Answer, scene: S) => string | undefined;

/**
 * Something that the attacking tenant tries, and the same done by somebody who may: were the
 * attempt to work, it would look like its control.
 */
export interface Attempt<S = World> {
  name: string;
  /** @default both of the attacker's: a person and a service account */
  by?: Who[];
  attack: Try<S>;
  /** @default `refused` */
  expect?: Verdict<S>;
  control: {
    /** The first of them that may. @default alice, then the operator */
    by?: Who[];
    /** @default the attack itself */
    try?: Try<S>;
    /** @default `works` */
    expect?: Verdict<S>;
  };
}

const told = (answer: Answer): string => `${answer.status} ${answer.text.slice(0, 300)}`;

/** Refused by the server's own decision: neither for load nor by a mishap. */
export const refused: Verdict<Scene> = (answer) =>
  [400, 401, 403, 404, 405, 406, 409, 415, 422].includes(answer.status) ? undefined : told(answer);

export const refusedWith =
  (...codes: number[]): Verdict<Scene> =>
  (answer) =>
    codes.includes(answer.status) ? undefined : `not ${codes.join(' or ')}: ${told(answer)}`;

export const works: Verdict<Scene> = (answer) =>
  answer.status >= 200 && answer.status < 300 ? undefined : told(answer);

/** An answer that has this in it; for a control, what the attack is after. */
export const shows =
  <S extends Scene = World>(text: string | ((scene: S) => string)): Verdict<S> =>
  (answer, scene) => {
    const wanted = typeof text === 'string' ? text : text(scene);
    return (
      works(answer, scene) ??
      (answer.text.includes(wanted) ? undefined : `no ${wanted}: ${told(answer)}`)
    );
  };

/** Answered, and without this. What is the victim's is looked for in every answer anyway. */
export const hides =
  (...texts: string[]): Verdict<Scene> =>
  (answer, world) => {
    const shown = texts.filter((text) => answer.text.includes(text));
    return (
      works(answer, world) ?? (shown.length ? `shows ${shown.join()}: ${told(answer)}` : undefined)
    );
  };

export const either =
  <S = World>(...verdicts: Verdict<S>[]): Verdict<S> =>
  (answer, scene) => {
    const wrong = verdicts.map((verdict) => verdict(answer, scene));
    return wrong.some((one) => one === undefined) ? undefined : wrong.join('; or ');
  };

export interface Outcome {
  name: string;
  /** How the attack got through, where it did. */
  leak?: string;
  /** How the control failed: such an attempt proves nothing. */
  blind?: string;
}

const BOTH: Who[] = ['bob', 'robot'];
const OWNERS: Who[] = ['alice', 'operator'];

/** Makes the attempt, looks what has changed, then makes its control. */
export async function make<S extends Scene>(attempt: Attempt<S>, world: S): Promise<Outcome> {
  const { name, control, expect = refused } = attempt;
  const look = () => (isRead(attempt.attack) ? '' : world.fingerprint());
  const before = await look();
  const leaks: string[] = [];
  for (const who of attempt.by ?? BOTH) {
    const answer = await perform(attempt.attack, world, who);
    const wrong = expect(answer, world) ?? canaryIn(answer, world);
    if (wrong !== undefined) leaks.push(`${nameOf(who)}: ${wrong}`);
  }
  if ((await look()) !== before) leaks.push('something of the victim has changed');
  let blind: string | undefined;
  for (const who of control.by ?? OWNERS) {
    const answer = await perform(control.try ?? attempt.attack, world, who);
    blind = (control.expect ?? works)(answer, world);
    if (blind === undefined) break;
  }
  return {
    name,
    ...(leaks.length > 0 ? { leak: leaks.join(' | ') } : {}),
    ...(blind === undefined ? {} : { blind }),
  };
}

/** What is only asked for changes nothing: the server has no reads that write. */
const isRead = <S>(how: Try<S>): boolean =>
  typeof how !== 'function' && (how.method ?? 'GET') === 'GET' && how.via !== 'websocket';

async function perform<S extends Scene>(how: Try<S>, world: S, who: Who): Promise<Answer> {
  const made = typeof how === 'function' ? await how(world, who) : how;
  return 'status' in made ? made : world.send(who, made);
}

function canaryIn(answer: Answer, { canaries }: Scene): string | undefined {
  const found = canaries.find((canary) => canary && answer.text.includes(canary));
  return found === undefined ? undefined : `tells ${found}: ${told(answer)}`;
}

const nameOf = (who: Who): string => (typeof who === 'string' ? who : 'somebody');

/**
 * Asks the same of what is the victim's and of what does not exist. The answer is empty where the
 * two cannot be told apart; names in them are those that were asked for.
 */
export const compare =
  (there: string, absent: string, request: (name: string) => Request): Try<Scene> =>
  async (world, who) => {
    const shown = async (name: string) => {
      const { status, text } = await world.send(who, request(name));
      return `${status} ${text.replaceAll(name, 'NAME')}`;
    };
    const [one, other] = [await shown(there), await shown(absent)];
    const text = one === other ? '' : `differs: ${one} | ${other}`;
    return { status: 200, headers: {}, text, tookMs: 0 };
  };

export const isSame: Verdict<Scene> = ({ text }) => (text === '' ? undefined : text.slice(0, 600));
export const differs: Verdict<Scene> = ({ text }) =>
  text === '' ? 'cannot be told apart' : undefined;
