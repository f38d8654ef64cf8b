import type { ResourceHandler } from '../../context.ts';

type Verbs = Record<string, ResourceHandler>;

/** Subresources with a meaning of their own, by `resource.group/subresource`. */
export const SUBRESOURCES: Record<string, Verbs | undefined> = {};

/** Resources that are answered and not stored. */
export const VIRTUAL_RESOURCES: Record<string, Verbs | undefined> = {};
