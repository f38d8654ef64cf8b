import { once } from 'node:events';
import { abortable } from '../../base/abort.ts';
import type { ControlConnection, Vm } from './hypervisor.ts';

/** The guest of the conformance suite, as `guest/conformance.c` is it: one answer to each line. */
export interface ConformanceAgent {
  /** @throws Error where the VM ends before it answers, or `signal` aborts */
  ask(line: string): Promise<string>;
  tell(line: string): void;
  close(): Promise<void>;
}

export async function connectAgent(vm: Vm, signal: AbortSignal): Promise<ConformanceAgent> {
  const connection: ControlConnection = await vm.connectControl(signal);
  let buffer = '';
  let wake: (() => void) | undefined;
  connection.on('data', (chunk: Buffer) => {
    buffer += chunk.toString('utf8');
    wake?.();
  });
  connection.on('error', () => {});
  connection.on('close', () => wake?.());
  const tell = (line: string) => void connection.write(`${line}\n`);
  return {
    tell,
    async ask(line) {
      tell(line);
      for (;;) {
        const end = buffer.indexOf('\n');
        if (end >= 0) {
          const answer = buffer.slice(0, end);
          buffer = buffer.slice(end + 1);
          return answer;
        }
        if (connection.destroyed) throw new Error(`The VM ended before it answered ${line}`);
        await abortable(new Promise<void>((resolve) => (wake = resolve)), signal);
      }
    },
    async close() {
      const closed = once(connection, 'close');
      connection.destroy();
      await closed;
    },
  };
}
