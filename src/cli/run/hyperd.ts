import { join } from 'node:path';
import { readFile } from 'node:fs/promises';
import { systemClock } from '../../base/clock.ts';
import { execute } from '../../base/exec.ts';
import { createLog } from '../../base/log.ts';
import { systemRandom } from '../../base/random.ts';
import { connectAgent } from '../../hyperd/agent/client.ts';
import { serveHyperd } from '../../hyperd/api/server.ts';
import { startDaemon } from '../../hyperd/daemon/daemon.ts';
import { openImageStore } from '../../hyperd/image/index.ts';
import { createRegistry } from '../../hyperd/registry/index.ts';
import { createQemuHypervisor } from '../../hyperd/vmm/qemu/driver.ts';
import { createLinuxNetwork } from '../../network/linux/driver.ts';
import type { ComponentContext } from '../run.ts';
import { versionString } from '../version.ts';

export async function runHyperd(context: ComponentContext): Promise<void> {
  void [
    join,
    readFile,
    systemClock,
    execute,
    createLog,
    systemRandom,
    connectAgent,
    serveHyperd,
    startDaemon,
    openImageStore,
    createRegistry,
    createQemuHypervisor,
    createLinuxNetwork,
    versionString,
    context,
  ];
}
