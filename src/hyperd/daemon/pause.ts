import { StatusError } from '../../api/status.ts';
import type { Clock } from '../../base/clock.ts';
import type { Vm } from '../vmm/hypervisor.ts';
import type { GuestSession } from './session.ts';
import type { PodRecord } from './record.ts';
import type { RecordKeeper } from './record-keeper.ts';

/**
 * Holds the VM of one pod and lets it go on. The record says that it is to be held before it is,
 * and until it is not any more: a daemon that was killed in between finds a VM which it may hold.
 */
export interface Pauser {
  /** Idempotent. @throws StatusError where the pod does not run */
  pause(): Promise<void>;
  /** Lets the VM go on, and sets its clock. Idempotent. @throws StatusError as `pause` */
  unpause(): Promise<void>;
  /** Makes a VM that was taken over as the record says. */
  restore(vm: Vm): Promise<void>;
  /** Resolves when the VM is not to be held. */
  awake(): Promise<void>;
  /** @throws StatusError Conflict where it is held */
  assertAwake(): void;
}

export interface PauserOwner {
  readonly record: PodRecord;
  readonly keeper: RecordKeeper;
  readonly clock: Clock;
  assertRunning(): void;
  vm(): Vm | undefined;
  session(): GuestSession | undefined;
  /** The VM goes on, and its guest knows what time it is. */
  onAwake(): void;
}

export function createPauser(owner: PauserOwner): Pauser {
  const { record, keeper, clock } = owner;
  let waking: PromiseWithResolvers<void> | undefined;
  let last: Promise<unknown> = Promise.resolve();
  const inTurn = (work: () => Promise<void>): Promise<void> => {
    const result = last.then(() => {
      owner.assertRunning();
      return work();
    });
    last = result.catch(() => {});
    return result;
  };
  const hold = (isHeld: boolean) => {
    record.paused = isHeld;
    owner.session()?.hold(isHeld);
    if (isHeld) {
      waking ??= Promise.withResolvers();
      return;
    }
    waking?.resolve();
    waking = undefined;
  };
  return {
    pause: () =>
      inTurn(async () => {
        if (record.paused) return;
        hold(true);
        try {
          await keeper.save();
          await owner.vm()?.pause();
        } catch (error) {
          hold(false);
          await keeper.save();
          throw error;
        }
        await keeper.changed();
      }),
    unpause: () =>
      inTurn(async () => {
        if (!record.paused) return;
        await owner.vm()?.resume();
        hold(false);
        await keeper.save();
        await owner.session()?.call((agent) => agent.setClock(clock.nowMs()));
        owner.onAwake();
        await keeper.changed();
      }),
    async restore(vm) {
      if (!record.paused) return;
      hold(true);
      await vm.pause();
    },
    awake: () => (record.paused ? (waking ??= Promise.withResolvers()).promise : Promise.resolve()),
    assertAwake() {
      if (!record.paused) return;
      const message = `Pod "${record.spec.id}" is paused: unpause it first`;
      throw new StatusError('Conflict', message);
    },
  };
}
