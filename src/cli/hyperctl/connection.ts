import { readFile } from 'node:fs/promises';
import { createHyperdClient } from '../../client/hyperd.ts';
import type { HyperdClient, HyperdTlsAddress } from '../../client/hyperd.ts';
import { dataDirectory, dataPaths } from '../config.ts';
import { UsageError } from '../errors.ts';

/** Which hyperd is meant: that of a data directory of this machine, or one elsewhere. */
export interface Place {
  dataDir?: string | undefined;
  /** `https://host:port` */
  host?: string | undefined;
  tlsCa?: string | undefined;
  tlsCert?: string | undefined;
  tlsKey?: string | undefined;
}

const PING_TIMEOUT_MS = 10_000;
const SOCKET_STATES: Record<string, string> = {
  ENOENT: 'no hyperd runs on this data directory',
  ECONNREFUSED: 'no hyperd runs on this data directory',
  EACCES: 'only root may speak to it. Run it with sudo',
};

/**
 * A client of a hyperd that answers.
 * @param start begins it where none runs; without it that is an error
 * @throws UsageError
 */
export async function connect(
  place: Place,
  start?: (place: Place) => Promise<void>,
): Promise<HyperdClient> {
  const address = place.host ? await tlsAddress(place, place.host) : socketPath(place);
  const client = createHyperdClient(address);
  try {
    await client.ping(AbortSignal.timeout(PING_TIMEOUT_MS));
    return client;
  } catch (error) {
    const { code = '' } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
    const isAway = code === 'ENOENT' || code === 'ECONNREFUSED';
    client.close();
    if (place.host || !SOCKET_STATES[code]) throw error;
    if (isAway && start) {
      await start(place);
      return connect(place);
    }
    const help = isAway ? '. Start it with "hyperctl daemon --detach"' : '';
    throw new UsageError(
      `Cannot reach hyperd at ${socketPath(place)}: ${SOCKET_STATES[code]}${help}.`,
    );
  }
}

function socketPath({ dataDir }: Place): string {
  return dataPaths(dataDirectory(dataDir)).hyperdSocket;
}

async function tlsAddress(place: Place, host: string): Promise<HyperdTlsAddress> {
  const url = URL.parse(host);
  if (url?.protocol !== 'https:' || url.port === '') {
    throw new UsageError(`Cannot use --host "${host}": write it as https://host:port.`);
  }
  const read = async (option: string, path: string | undefined) => {
    if (!path) throw new UsageError(`Cannot use --host without ${option}: name a file in PEM.`);
    return readFile(path, 'utf8').catch((error: Error) => {
      throw new UsageError(`Cannot read ${option}: ${error.message}.`);
    });
  };
  return {
    host: url.hostname,
    port: Number(url.port),
    ca: await read('--tls-ca', place.tlsCa),
    cert: await read('--tls-cert', place.tlsCert),
    key: await read('--tls-key', place.tlsKey),
  };
}
