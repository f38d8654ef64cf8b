/**
 * `$(NAME)` references in env values, command and args. `$$` is a literal `$`; a name that is
 * not known stays as it was written.
 */
export function expand(text: string, variables: ReadonlyMap<string, string>): string {
  return text.replace(/\$(?:(\$)|\(([^)]*)\))/g, (written, escape: string, name: string) => {
    if (escape !== undefined) return '$';
    return variables.get(name) ?? written;
  });
}
