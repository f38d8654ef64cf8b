import type { Transport } from '../client/transport.ts';
import { withCluster } from './access.ts';
import type { AccessFlags, Place } from './access.ts';
import { reviewSelf } from './login/reviewed.ts';
import { RefusedError, plain, readPieces, readWhen } from './read.ts';
import type { Query } from './read.ts';

interface AuditFlags extends AccessFlags {
  follow?: boolean;
  since?: string;
  until?: string;
  limit?: string;
  verb?: string;
  user?: string;
}

interface Event {
  stage?: string;
  stageTimestamp?: string;
  verb?: string;
  requestURI?: string;
  user?: { username?: string };
  impersonatedUser?: { username?: string };
  objectRef?: Record<string, string | undefined>;
  responseStatus?: { code?: number; reason?: string };
  annotations?: Record<string, string>;
}

const LIMIT = '100';

export async function audit(
  tenant: string | undefined,
  flags: AuditFlags,
  place: Place,
): Promise<void> {
  const since = readWhen(flags.since, '--since');
  const query: Query = {
    ...{ since, until: readWhen(flags.until, '--until') },
    limit: flags.limit ?? (since === undefined ? LIMIT : undefined),
    ...{ verb: flags.verb, user: flags.user, follow: flags.follow ? 'true' : undefined },
  };
  await withCluster(flags, place, async ({ transport }) => {
    const whose = tenant ?? (await reviewSelf(transport)).tenant;
    for await (const line of linesOf(transport, whose, query)) {
      process.stdout.write(`${flags.json ? line : eventText(JSON.parse(line) as Event)}\n`);
    }
  });
}

async function* linesOf(
  transport: Transport,
  tenant: string | undefined,
  query: Query,
): AsyncIterable<string> {
  let rest = '';
  for await (const piece of piecesOf(transport, tenant, query)) {
    const lines = (rest + piece).split('\n');
    rest = lines.pop() ?? '';
    yield* lines.filter((line) => line !== '');
  }
}

/** Of a tenant that is gone the operator's own path still tells. */
async function* piecesOf(
  transport: Transport,
  tenant: string | undefined,
  query: Query,
): AsyncIterable<string> {
  const everything = '/hypernetes/audit';
  if (tenant === undefined) return yield* readPieces(transport, everything, query);
  if (tenant.startsWith('_')) {
    return yield* readPieces(transport, everything, { ...query, log: tenant });
  }
  const path = `/apis/hypernetes.io/v1/tenants/${encodeURIComponent(tenant)}/audit`;
  try {
    yield* readPieces(transport, path, query);
  } catch (error) {
    if (!(error instanceof RefusedError) || error.status !== 404) throw error;
    yield* readPieces(transport, everything, { ...query, log: tenant });
  }
}

/** One line: when, who, what, and how it ended. */
export function eventText(event: Event): string {
  const { objectRef: ref, responseStatus: status, annotations = {} } = event;
  const lost = annotations['hypernetes.io/lost-events'];
  if (lost !== undefined) return `${event.stageTimestamp}  ${plain(lost)} events were lost here`;
  const as = event.impersonatedUser ? ` as ${event.impersonatedUser.username}` : '';
  const kind = ref && [ref.resource, ref.subresource].filter(Boolean).join('/');
  const object = ref && [ref.namespace, ref.name].filter(Boolean).join('/');
  const what = ref ? [kind, object].filter(Boolean).join(' ') : (event.requestURI ?? '');
  const begun = event.stage === 'ResponseStarted' ? ' (begun)' : '';
  const outcome = [status?.code, status?.reason].filter(Boolean).join(' ');
  const user = event.user?.username ?? 'nobody';
  return plain(`${event.stageTimestamp}  ${user}${as}  ${event.verb} ${what}  ${outcome}${begun}`);
}
