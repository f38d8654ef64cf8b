import type { Command } from 'commander';
import type { HyperdClient } from '../../client/hyperd.ts';
import { UsageError } from '../errors.ts';
import { familiar, podName } from './names.ts';

/**
 * Completion in a shell: the shell's part is small, and asks `hyperctl complete` with the words
 * that are there, which answers with what the next one may be.
 */
const SCRIPTS: Record<string, string> = {
  bash: `_hyperctl() {
  local IFS=$'\\n'
  COMPREPLY=($(compgen -W "$(hyperctl complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)" -- "\${COMP_WORDS[COMP_CWORD]}"))
}
complete -o default -F _hyperctl hyperctl
`,
  zsh: `#compdef hyperctl
_hyperctl() {
  local -a found
  found=("\${(@f)$(hyperctl complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  compadd -- $found
}
compdef _hyperctl hyperctl
`,
  fish: `complete -c hyperctl -f -a '(hyperctl complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
`,
};

/** @throws UsageError for a shell that is not known */
export function printCompletion(shell: string): void {
  const script = SCRIPTS[shell];
  if (!script) {
    const known = Object.keys(SCRIPTS).join(', ');
    throw new UsageError(`There is no completion for "${shell}"; there is for: ${known}.`);
  }
  process.stdout.write(script);
}

/** What the last word may become, as far as the command line itself tells. */
export interface Completions {
  words: string[];
  /** What else hyperd knows: names of pods or of images. */
  dynamic: 'pods' | 'images' | undefined;
}

export function completionsFor(program: Command, words: readonly string[]): Completions {
  const last = words.at(-1) ?? '';
  let command = program;
  let argumentCount = 0;
  let isValue = false;
  for (const word of words.slice(0, -1)) {
    if (isValue) {
      isValue = false;
      continue;
    }
    if (word.startsWith('-')) {
      isValue = takesValue(command, program, word);
      continue;
    }
    const child = command.commands.find(
      (each) => each.name() === word || each.aliases().includes(word),
    );
    if (child) command = child;
    else argumentCount += 1;
  }
  if (isValue) return { words: [], dynamic: undefined };
  if (last.startsWith('-')) {
    const options = [...command.options, ...program.options];
    const flags = options
      .filter(({ hidden }) => !hidden)
      .map(({ long, short }) => long ?? short ?? '');
    return { words: flags.filter((flag) => flag.startsWith(last)), dynamic: undefined };
  }
  const children = command
    .createHelp()
    .visibleCommands(command)
    .map((each) => each.name());
  if (children.length > 0 && argumentCount === 0) {
    return { words: children.filter((name) => name.startsWith(last)), dynamic: undefined };
  }
  return { words: [], dynamic: dynamicOf(command, argumentCount) };
}

function takesValue(command: Command, program: Command, word: string): boolean {
  if (word.includes('=')) return false;
  const option = [...command.options, ...program.options].find(
    ({ long, short }) => long === word || short === word,
  );
  return option !== undefined && (option.required || option.optional);
}

/** By what the argument is called: `<pod>`, `[pod...]`, `<image>`. */
function dynamicOf(command: Command, argumentCount: number): Completions['dynamic'] {
  const known = command.registeredArguments;
  const argument = known[Math.min(argumentCount, known.length - 1)];
  if (!argument || (argumentCount >= known.length && !argument.variadic)) return undefined;
  const kinds = { pod: 'pods', image: 'images' } as const;
  return kinds[argument.name() as keyof typeof kinds];
}

export async function namesOf(
  client: HyperdClient,
  kind: NonNullable<Completions['dynamic']>,
): Promise<string[]> {
  if (kind === 'pods') return (await client.pods()).map(podName);
  const images = await client.images();
  return images.flatMap(({ references }) =>
    references.filter((r) => !r.includes('@')).map(familiar),
  );
}
