/**
 * Device models: what differs between the machines that QEMU pretends to be. Everything else about a
 * VM is the same for all of them, disks that come later too: those are units of a SCSI bus.
 *
 * - `microvm`: virtio over memory-mapped registers, no PCI. Fewest devices.
 * - `q35`: a PC with PCI Express. Its virtio devices are endpoints of the root complex, in the order
 *   of the command line; there are no slots into which anything could be plugged.
 */
export const MACHINE_TYPES = ['microvm', 'q35'] as const;
export type MachineType = (typeof MACHINE_TYPES)[number];

export interface DeviceModel {
  /** Value of `-machine`, to which the memory of a template may be added. */
  machine: string;
  /** Values of `-global`. */
  globals: string[];
  /** How its virtio devices are called: `virtio-blk-device`, `virtio-blk-pci`. */
  transport: 'device' | 'pci';
  /** Of some hundred files for all of QEMU's machines, those that this one starts a kernel with. */
  firmware: string[];
}

/** What a PC has and a pod has no use for. */
const Q35_WITHOUT = ['sata', 'smbus', 'usb', 'vmport', 'i8042', 'hpet', 'smm'];

export const DEVICE_MODELS: Record<MachineType, DeviceModel> = {
  microvm: {
    machine: 'microvm,acpi=on,rtc=on,ioapic2=on,pit=off',
    globals: ['virtio-mmio.force-legacy=false'],
    transport: 'device',
    firmware: ['bios-microvm.bin', 'pvh.bin'],
  },
  q35: {
    machine: ['q35,acpi=on', ...Q35_WITHOUT.map((name) => `${name}=off`)].join(','),
    globals: [
      'virtio-pci.disable-legacy=on',
      // Nobody starts from the network.
      'virtio-net-pci.romfile=',
    ],
    transport: 'pci',
    firmware: ['bios-256k.bin', 'kvmvapic.bin', 'linuxboot_dma.bin', 'pvh.bin'],
  },
};
