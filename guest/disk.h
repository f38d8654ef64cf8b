/* Disks and the control port, found by name; and the kernel's word that something appeared. */
#ifndef HYPERSTART_DISK_H
#define HYPERSTART_DISK_H

#include <stdbool.h>
#include <stddef.h>

/* Sets `path` to the device node of the disk with this serial. False: not there (yet). */
bool disk_find(const char *serial, char *path, size_t size);
/* Calls `changed` whenever the kernel announces a device. */
void uevent_init(void (*changed)(void));
/* Opens the control port, waiting until it appears. -1: it did not within PORT_WAIT_MS. */
int port_open(const char *name);

#endif
