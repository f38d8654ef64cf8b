import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describeError } from '../base/log.ts';
import { dataDirectory, dataPaths } from './config.ts';
import type { Check, Finding } from './doctor/check.ts';
import { missing } from './doctor/check.ts';
import { conformanceChecks } from './doctor/conformance.ts';
import * as host from './doctor/host.ts';
import * as network from './doctor/network.ts';
import { renderReport } from './doctor/report.ts';
import type { Report } from './doctor/report.ts';
import * as virtualization from './doctor/virtualization.ts';

const CHECKS: Check[] = [
  host.processorCheck,
  host.memoryCheck,
  host.diskCheck,
  host.clockCheck,
  host.capabilityCheck,
  host.cgroupCheck,
  virtualization.toolsCheck,
  virtualization.hypervisorCheck,
  ...conformanceChecks,
  network.tunCheck,
  network.bridgeCheck,
  network.nftablesCheck,
  network.vhostCheck,
  network.vsockCheck,
];

const CHECK_LIMIT_MS = 120_000;

export async function doctor(
  dataDir: string | undefined,
  options: { json?: boolean; full?: boolean },
): Promise<void> {
  const paths = dataPaths(dataDirectory(dataDir));
  const directory = await mkdtemp(join(tmpdir(), 'hypernetes-doctor-'));
  const findings: Report['findings'] = [];
  try {
    for (const { name, limitMs = CHECK_LIMIT_MS, run } of CHECKS) {
      const signal = AbortSignal.timeout(limitMs);
      const context = { paths, directory, full: options.full ?? false, signal };
      const finding: Finding = await run(context).catch((error) =>
        missing(describeError(error), 'This could not be found out.'),
      );
      findings.push({ name, ...finding });
    }
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
  const report = { able: findings.every(({ verdict }) => verdict !== 'missing'), findings };
  process.stdout.write(
    options.json ? `${JSON.stringify(report, null, 2)}\n` : renderReport(report),
  );
  if (!report.able) process.exitCode = 1;
}
