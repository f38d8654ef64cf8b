/* What runs in a new process between `clone` and `exec`. */
#ifndef HYPERSTART_CHILD_H
#define HYPERSTART_CHILD_H

#include <stdbool.h>

#include "json.h"

#define EXIT_NOT_EXECUTABLE 126
#define EXIT_NOT_FOUND 127
#define EXIT_START_FAILED 128

struct spawn {
  /* `ProcessSpec`, and the whole `GuestContainerSpec` unless this is an exec. */
  const struct json *process;
  const struct json *container;
  const char *id;
  /* Directory of the mounted image. */
  const char *image;
  int status_fd;
  int cgroup_fd;
  /* Exec: mount namespace of the container. */
  int mount_namespace;
  /* Standard input, output, error; unused with a terminal. */
  int stdio[3];
  bool terminal;
};

/* On the status socket: what went wrong, or with a descriptor attached, the terminal's master. */
struct status_message {
  int exit_code;
  char text[1000];
};

_Noreturn void child_run(const struct spawn *spawn);
/* Reports to PID 1 and ends. */
_Noreturn void child_fail(int exit_code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* rootfs.c: makes the container's file system and enters it. */
void rootfs_enter(const struct spawn *spawn);
/* rootfs.c: the container's terminal becomes its /dev/console. */
void rootfs_bind_console(const char *terminal);

#endif
