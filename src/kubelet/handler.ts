import type { Container, HTTPGetAction, IntOrString } from '../api/types.generated.ts';
import type { ProbeRequest } from '../api/hyperd.ts';

/** What probes and lifecycle hooks share: an address inside the pod, as the guest reaches it. */
const USER_AGENT = 'kube-probe/1.35';

/** A number, or the name of one of the container's ports; undefined where there is none. */
export function resolvePort(port: IntOrString, container: Container): number | undefined {
  const named = container.ports?.find((each) => each.name === port)?.containerPort;
  const number = named ?? Number(port);
  return Number.isInteger(number) && number > 0 && number < 65_536 ? number : undefined;
}

export function httpRequest(
  action: HTTPGetAction,
  container: Container,
  podIp: string,
  timeoutMs: number,
): ProbeRequest | undefined {
  const port = resolvePort(action.port, container);
  if (port === undefined) return undefined;
  const headers = (action.httpHeaders ?? []).map(({ name, value }) => ({ name, value }));
  const has = (name: string) => headers.some((each) => each.name.toLowerCase() === name);
  if (!has('user-agent')) headers.push({ name: 'User-Agent', value: USER_AGENT });
  if (!has('accept')) headers.push({ name: 'Accept', value: '*/*' });
  return {
    type: 'http',
    scheme: action.scheme?.toUpperCase() === 'HTTPS' ? 'https' : 'http',
    host: action.host || podIp || '127.0.0.1',
    port,
    path: action.path?.startsWith('/') ? action.path : `/${action.path ?? ''}`,
    headers,
    timeoutMs,
  };
}
