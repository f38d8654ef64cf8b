/*
 * Kernels of guests, in the words that API server, kubelet and hyperd share. The rules are in
 * docs/kernels.md.
 */

/** On pods and namespaces: the kernel of the pod, or of the namespace's pods that name none. */
export const KERNEL_ANNOTATION = 'hypernetes.io/kernel';

/** Handler of runtime classes whose pods get the node's default kernel. */
export const DEFAULT_HANDLER = 'hypernetes';
/** Followed by the name of the kernel that a runtime class's pods get. */
const KERNEL_HANDLER_PREFIX = `${DEFAULT_HANDLER}-`;

/** What is wrong with a kernel's name; undefined if nothing. */
export function kernelNameProblem(name: string): string | undefined {
  if (/^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$/.test(name)) return undefined;
  return 'must be 1 to 40 of [a-z0-9-], with a letter or digit at both ends';
}

/** The kernel that a runtime class's handler names; undefined where it names none. */
export function kernelOfHandler(handler: string): string | undefined {
  if (!handler.startsWith(KERNEL_HANDLER_PREFIX)) return undefined;
  return handler.slice(KERNEL_HANDLER_PREFIX.length);
}
