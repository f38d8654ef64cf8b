import { StatusError, badRequest } from '../../api/status.ts';
import type { KubeletConnector, ResourceContext } from '../context.ts';
import { requireEntry } from '../registry/get.ts';
import { attributesOf, requireAuthorization } from '../server/authorization.ts';
import type { ApiReply } from '../server/exchange.ts';
import { isTrue } from '../server/path.ts';
import { containerOf, nodeAddress, nodeOfPod } from './target.ts';

/** What of a log request is the kubelet's to decide. */
const LOG_PARAMETERS = [
  'follow',
  'previous',
  'sinceSeconds',
  'sinceTime',
  'timestamps',
  'tailLines',
  'limitBytes',
  'stream',
];
const COMMAND_ARGUMENTS_MAX = 1_000;

/** GET of `pods/{name}/log`. */
export async function handleLog(context: ResourceContext): Promise<ApiReply> {
  const { exchange, server, info } = context;
  await server.store.barrier();
  const pod = requireEntry(context).object;
  const container = containerOf(pod, exchange.query.get('container'));
  const query = new URLSearchParams();
  for (const name of LOG_PARAMETERS) {
    const value = exchange.query.get(name);
    if (value !== null) query.set(name, value);
  }
  const node = nodeAddress(server, nodeOfPod(pod));
  const path = kubeletPath('containerLogs', info.namespace, info.name, container);
  const reply = await connectorOf(context).proxy(
    node,
    exchange,
    path,
    query.toString(),
    context.user,
  );
  reply.headers['content-type'] ??= 'text/plain';
  return reply;
}

/** GET or POST of `pods/{name}/exec`, `attach` and `portforward`: requests that leave HTTP. */
export async function handleConnect(context: ResourceContext): Promise<ApiReply> {
  const { exchange, server, info, user } = context;
  // A GET must not do what is permitted as a creation only.
  requireAuthorization(server.authorizer, { ...attributesOf(info, user), verb: 'create' });
  await server.store.barrier();
  const pod = requireEntry(context).object;
  const isForward = info.subresource === 'portforward';
  const container = isForward ? '' : containerOf(pod, exchange.query.get('container'));
  const node = nodeAddress(server, nodeOfPod(pod));
  if (!exchange.upgradable) throw badRequest('Upgrade request required');
  const uid = pod.metadata.uid ?? '';
  const path = isForward
    ? kubeletPath('portForward', info.namespace, info.name, uid)
    : kubeletPath(info.subresource, info.namespace, info.name, uid, container);
  const query = isForward ? forwardQuery(exchange.query) : streamQuery(exchange.query);
  return connectorOf(context).proxy(node, exchange, path, query.toString(), context.user);
}

/** Any method below `nodes/{name}/proxy/`: the kubelet's own API. */
export async function handleNodeProxy(context: ResourceContext): Promise<ApiReply> {
  const { exchange, server, info, user } = context;
  // Leaving HTTP means exec, attach or port-forward there: a GET must not do that as a reading.
  if (exchange.upgradable) {
    requireAuthorization(server.authorizer, { ...attributesOf(info, user), verb: 'create' });
  }
  // The port may be named, but there is only one that is a kubelet's.
  const [, name = ''] = /^(?:https:)?([^:]+)(?::\d*)?$/.exec(info.name) ?? [];
  const node = nodeAddress(server, name || info.name);
  const path = info.rest || '/';
  return connectorOf(context).proxy(node, exchange, path, exchange.rawQuery, user);
}

function connectorOf({ server }: ResourceContext): KubeletConnector {
  if (server.kubelet) return server.kubelet;
  throw new StatusError('ServiceUnavailable', 'this server has no certificate for kubelets');
}

function kubeletPath(...parts: string[]): string {
  return `/${parts.map(encodeURIComponent).join('/')}`;
}

/** The kubelet calls the streams by other names than the API does. */
const STREAM_PARAMETERS = { stdin: 'input', stdout: 'output', stderr: 'error', tty: 'tty' };

function streamQuery(query: URLSearchParams): URLSearchParams {
  const out = new URLSearchParams();
  const command = query.getAll('command');
  if (command.length > COMMAND_ARGUMENTS_MAX) {
    throw badRequest(`the command has more than ${COMMAND_ARGUMENTS_MAX} arguments`);
  }
  for (const argument of command) out.append('command', argument);
  for (const [from, to] of Object.entries(STREAM_PARAMETERS)) {
    if (isTrue(query.get(from))) out.set(to, '1');
  }
  return out;
}

function forwardQuery(query: URLSearchParams): URLSearchParams {
  const out = new URLSearchParams();
  const ports = query.getAll('ports').flatMap((list) => list.split(','));
  for (const port of ports) out.append('port', port);
  return out;
}
