/* Makes the processes that become containers' programs, or programs of `exec`. */
#ifndef HYPERSTART_SPAWN_H
#define HYPERSTART_SPAWN_H

#include <stdbool.h>
#include <sys/types.h>

#include "child.h"

/* A process between `clone` and `exec`, and our ends of what leads to it. */
struct spawned {
  pid_t pid;
  /* Its `status_message`s; closed by `exec`. */
  int status_fd;
  /* Standard input, output, error. Input is written, and none of them blocks. */
  int stdio[3];
};

/*
 * Fills in the descriptors of `spawn`. The process is in the PID namespace of `neighbour`, unless
 * that is 0, and in new ones as `namespaces` says. False with errno.
 */
bool spawn_process(struct spawned *spawned, struct spawn *spawn, pid_t neighbour,
                   unsigned long namespaces);
/* Closes all of them. */
void spawned_close(struct spawned *spawned);

#endif
