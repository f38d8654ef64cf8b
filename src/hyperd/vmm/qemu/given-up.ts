import type { QmpClient } from './qmp.ts';

/** The state in which QEMU leaves a VM whose guest KVM cannot run on. */
const GIVEN_UP = 'internal-error';

/**
 * Calls `onGivenUp` once KVM has met what it can neither run nor emulate. QEMU then stops the VM and
 * does not end: it tells that the VM stands still, and only when it is asked tells why. No guest can
 * be helped from there. Emulated guests do not come to it.
 */
export function watchGivenUp(qmp: QmpClient, onGivenUp: () => void): void {
  let isOver = false;
  const look = () => {
    qmp.command('query-status').then(
      (answer) => {
        if (isOver || (answer as { status?: string }).status !== GIVEN_UP) return;
        isOver = true;
        onGivenUp();
      },
      // The monitor is closed, or busy with the end: who waits for the VM's exit hears of it.
      () => {},
    );
  };
  qmp.onEvent(({ name }) => {
    if (name === 'STOP') look();
  });
  // Nobody may have been there to hear it.
  look();
}
