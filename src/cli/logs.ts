import { createReadStream, watch } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { readFileIfExists } from '../base/files.ts';
import { dataDirectory, dataPaths } from './config.ts';
import { UsageError } from './errors.ts';

export async function logs(
  dataDir: string | undefined,
  component: string | undefined,
  options: { follow?: boolean; lines: string },
): Promise<void> {
  const paths = dataPaths(dataDirectory(dataDir));
  const known = (await readdir(paths.log).catch(() => []))
    .filter((name) => name.endsWith('.log'))
    .map((name) => name.slice(0, -'.log'.length));
  const wanted = component === undefined ? known : [component];
  for (const name of wanted) {
    if (!known.includes(name)) {
      const choice = known.length > 0 ? `there are: ${known.join(', ')}` : 'there are none yet';
      throw new UsageError(`No log of "${name}" in ${paths.log}; ${choice}.`);
    }
    const path = join(paths.log, `${name}.log`);
    const prefix = wanted.length > 1 ? `${name}: ` : '';
    const text = ((await readFileIfExists(path)) ?? '').trimEnd();
    for (const line of text.split('\n').slice(-Number(options.lines))) {
      process.stdout.write(`${prefix}${line}\n`);
    }
    if (options.follow) void follow(path, prefix);
  }
}

/** Prints what is appended from now on, until the process is interrupted. */
async function follow(path: string, prefix: string): Promise<void> {
  let position = (await stat(path)).size;
  let reading = Promise.resolve();
  const readOn = async () => {
    const { size } = await stat(path);
    if (size < position) position = 0;
    if (size === position) return;
    const chunks = createReadStream(path, { start: position, end: size - 1, encoding: 'utf8' });
    position = size;
    for await (const chunk of chunks) process.stdout.write(prefix + chunk);
  };
  watch(path, () => {
    reading = reading.then(readOn).catch(() => {});
  });
}
