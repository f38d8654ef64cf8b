/*
 * What a node has of a tenant beside its pods: templates, VMs that wait, images. Two annotations on
 * the node for each tenant, one of each side, so that neither overwrites the other's:
 *
 *   holdings.hypernetes.io/<tenant>    the node's: bytes of memory that waiting VMs take. It is there
 *                                      before anything else of the tenant is
 *   allowances.hypernetes.io/<tenant>  the tenant controller's: how many bytes they may take, or
 *                                      that the tenant is going and all of its has to go
 */

const HOLDING_PREFIX = 'holdings.hypernetes.io/';
const ALLOWANCE_PREFIX = 'allowances.hypernetes.io/';
export const NOTHING = 'nothing';
const BYTES = /^\d{1,15}$/;

/** `nothing`: not even what is kept for later. */
export type Allowance = number | typeof NOTHING;

export interface Annotated {
  metadata: { annotations?: Record<string, string> };
}

export const holdingAnnotation = (tenant: string): string => HOLDING_PREFIX + tenant;
export const allowanceAnnotation = (tenant: string): string => ALLOWANCE_PREFIX + tenant;

/** Bytes of waiting VMs by tenant. What is no number counts as none: the tenant is held all the same. */
export function holdingsOf(node: Annotated): Map<string, number> {
  return new Map(
    annotationsOf(node, HOLDING_PREFIX).map(([tenant, text]) => [
      tenant,
      BYTES.test(text) ? Number(text) : 0,
    ]),
  );
}

/** By tenant. Anything that is not understood allows no VM to wait. */
export function allowancesOf(node: Annotated): Map<string, Allowance> {
  return new Map(
    annotationsOf(node, ALLOWANCE_PREFIX).map(([tenant, text]) => [
      tenant,
      text === NOTHING ? NOTHING : BYTES.test(text) ? Number(text) : 0,
    ]),
  );
}

function annotationsOf({ metadata }: Annotated, prefix: string): [string, string][] {
  return Object.entries(metadata.annotations ?? {})
    .filter(([name]) => name.startsWith(prefix))
    .map(([name, text]) => [name.slice(prefix.length), text]);
}

/** As hyperd is told whose pods are a tenant's. */
const OWNER_PREFIX = 'tenant/';
export const ownerOfTenant = (tenant: string): string => OWNER_PREFIX + tenant;

/** Undefined for an owner that is no tenant. */
export function tenantOfOwner(owner: string): string | undefined {
  return owner.startsWith(OWNER_PREFIX) ? owner.slice(OWNER_PREFIX.length) : undefined;
}
