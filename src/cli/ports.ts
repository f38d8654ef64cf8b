import { createServer } from 'node:net';
import type { MachineConfig } from './config.ts';
import { UsageError } from './errors.ts';

const PORTS = [
  { field: 'apiPort', use: 'API server', option: '--api-port', roles: ['server'] },
  { field: 'kubeletPort', use: 'kubelet', option: '--kubelet-port', roles: ['server', 'node'] },
  { field: 'registryPort', use: 'embedded registry', option: '--registry-port', roles: ['server'] },
] as const;

const PROBLEMS: Record<string, string> = {
  EADDRINUSE: 'is taken',
  EACCES: 'may not be used by this process',
};

/** For an error of `listen`: which port it is, what it is for and how to choose another. */
export function portProblem(error: unknown, config: MachineConfig): string | undefined {
  const { code = '', port, syscall } = error as NodeJS.ErrnoException & { port?: number };
  if (syscall !== 'listen' || port === undefined) return undefined;
  const problem = PROBLEMS[code] ?? `cannot be listened on (${code})`;
  const found = PORTS.find(({ field }) => config[field] === port);
  return found
    ? `Cannot start: port ${port} ${problem} (${found.use}). Choose another with ${found.option}.`
    : `Cannot start: port ${port} ${problem}.`;
}

/**
 * Tries every port before anything starts: a part that comes up beside a stranger on another
 * one's port would report something else first.
 *
 * @throws UsageError
 */
export async function refuseTakenPorts(config: MachineConfig): Promise<void> {
  for (const { field, roles } of PORTS) {
    if (!roles.some((role) => role === config.role)) continue;
    try {
      await tryPort(config[field]);
    } catch (error) {
      throw new UsageError(portProblem(error, config) ?? (error as Error).message);
    }
  }
}

function tryPort(port: number): Promise<void> {
  return new Promise((resolve, reject) => {
    const server = createServer();
    server.once('error', reject);
    server.listen(port, '0.0.0.0', () => server.close(() => resolve()));
  });
}
