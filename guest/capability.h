/* Capabilities and the system call filter of a container's process. */
#ifndef HYPERSTART_CAPABILITY_H
#define HYPERSTART_CAPABILITY_H

#include <stdbool.h>
#include <stdint.h>

/* Of the name with CAP_, or -1. */
int capability_number(const char *name);
/* Takes everything else out of the bounding set. While still privileged. */
bool capability_bound(uint64_t set);
/* Sets the permitted and effective sets. Inheritable and ambient stay empty. */
bool capability_set(uint64_t set);
/* Refuses (EPERM) the system calls that reach past a container. `set`: those that it may. */
bool seccomp_install(uint64_t set);

#endif
