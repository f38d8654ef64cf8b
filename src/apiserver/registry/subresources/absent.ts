import { StatusError } from '../../../api/status.ts';
import type { ResourceContext } from '../../context.ts';
import type { ApiReply } from '../../server/exchange.ts';

/**
 * Answers as Kubernetes does where a feature is off: 404 without a name in the details, by which
 * clients tell it from an object that is not there. `kubectl debug` then says what is missing.
 */
export async function handleAbsent({ row, info }: ResourceContext): Promise<ApiReply> {
  const message =
    'the server could not find the requested resource: ' +
    `${row.resource}/${info.subresource} is not supported`;
  throw new StatusError('NotFound', message, { details: {} });
}
