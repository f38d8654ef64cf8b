/** One request, or a family of them, that an application credential may make. */
export interface AccessRule {
  /** Type of the service in the catalogue: `identity`, `kubernetes`. */
  service: string;
  method: string;
  /** `*` and `{name}` stand for one segment, `**` for any number of them. */
  path: string;
}

/**
 * Whether a request is one of those that access rules name. A path with an empty, `.` or `..`
 * segment matches no rule.
 */
export function accessRulesAllow(
  rules: readonly AccessRule[],
  service: string,
  method: string,
  path: string,
): boolean {
  const segments = segmentsOf(path);
  if (segments.some((segment) => ['', '.', '..'].includes(segment))) return false;
  return rules.some(
    (rule) =>
      rule.service === service &&
      rule.method === method &&
      matches(segmentsOf(rule.path), segments),
  );
}

function segmentsOf(path: string): string[] {
  return path.replace(/^\//, '').replace(/\/$/, '').split('/');
}

/** Dynamic programming over the pattern: no pattern makes it slow. */
function matches(pattern: string[], segments: string[]): boolean {
  let reachable = new Set([0]);
  for (const part of pattern) {
    const next = new Set<number>();
    for (const at of reachable) {
      if (part === '**') for (let end = at; end <= segments.length; end += 1) next.add(end);
      else if (at < segments.length && fits(part, segments[at] ?? '')) next.add(at + 1);
    }
    reachable = next;
  }
  return reachable.has(segments.length);
}

function fits(part: string, segment: string): boolean {
  return part === '*' || /^\{[^{}]+\}$/.test(part) || part === segment;
}
