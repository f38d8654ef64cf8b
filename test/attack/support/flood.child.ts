import { connect } from 'node:http2';
import { setPriority } from 'node:os';

/**
 * Clients that ask again as soon as they have an answer, each on a connection of its own, in a
 * process that gives way to those who are measured: who attacks is on a machine of its own.
 */
export interface FloodOrder {
  port: number;
  ca: string;
  clientCount: number;
  method: string;
  path: string;
  headers: Record<string, string>;
  body?: string;
}

const LOWER_PRIORITY = 5;

function ask(session: ReturnType<typeof connect>, order: FloodOrder): Promise<void> {
  const { method, path, headers, body } = order;
  return new Promise((resolve) => {
    const stream = session.request({ ':method': method, ':path': path, ...headers });
    stream.resume();
    for (const event of ['end', 'error', 'close']) stream.on(event, resolve);
    stream.end(body);
  });
}

async function flood(order: FloodOrder): Promise<void> {
  const session = connect(`https://127.0.0.1:${order.port}`, { ca: order.ca });
  session.on('error', () => {});
  for (;;) {
    await ask(session, order);
    answered += 1;
    // Once all have had an answer the flood is there.
    if (answered === order.clientCount) process.send?.('flooding');
  }
}

let answered = 0;
setPriority(LOWER_PRIORITY);
process.once('disconnect', () => process.exit(0));
process.once('message', (order: FloodOrder) => {
  for (let client = 0; client < order.clientCount; client += 1) void flood(order);
});
