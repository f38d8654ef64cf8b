import { once } from 'node:events';
import { start } from '../../../src/base/exec.ts';

/** A running `kubectl port-forward`. */
export interface Forward {
  /** The port of 127.0.0.1 that leads to the pod. */
  port: number;
  [Symbol.asyncDispose](): Promise<void>;
}

const START_TIMEOUT_MS = 30_000;

/**
 * @param target as on kubectl's command line: `deployment/web`
 * @param more of kubectl's arguments
 * @throws Error that has what kubectl said, where it forwards nothing
 */
export async function startForward(
  kubectlPath: string,
  kubeconfig: string,
  target: string,
  targetPort: number,
  more: string[] = [],
): Promise<Forward> {
  const args = ['--kubeconfig', kubeconfig, 'port-forward', target, `:${targetPort}`, ...more];
  const child = start(kubectlPath, args, { stdio: ['ignore', 'pipe', 'pipe'] });
  const exited = once(child, 'exit');
  const dispose = async () => {
    child.kill('SIGKILL');
    await exited;
  };
  let said = '';
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const fail = (why: string) => reject(new Error(`kubectl port-forward ${target} ${why}: ${said}`));
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      said = (said + chunk.toString()).slice(-4000);
      const match = /Forwarding from 127\.0\.0\.1:(\d+)/.exec(said);
      if (match) resolve(Number(match[1]));
    });
  }
  child.once('exit', () => fail('ended'));
  const timer = setTimeout(() => fail('did not start'), START_TIMEOUT_MS);
  try {
    return { port: await promise, [Symbol.asyncDispose]: dispose };
  } catch (error) {
    await dispose();
    throw error;
  } finally {
    clearTimeout(timer);
  }
}
