import type { NetworkDriver, NetworkSpec, Port, PortRequest } from './driver.ts';

/** Gives a VM its place on a network, which is made where it is missing; null where there is none. */
export async function connectPort(
  driver: NetworkDriver,
  network: NetworkSpec | null,
  request: Omit<PortRequest, 'networkId'>,
  signal: AbortSignal,
): Promise<Port | null> {
  if (network === null) return null;
  await driver.ensureNetwork(network, signal);
  return driver.ensurePort({ ...request, networkId: network.id }, signal);
}
