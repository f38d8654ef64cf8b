/* What runs in a new process between `clone` and `exec`. */
#ifndef HYPERSTART_CHILD_H
#define HYPERSTART_CHILD_H

#include <stdbool.h>

#include "json.h"

#define EXIT_NOT_EXECUTABLE 126
#define EXIT_NOT_FOUND 127
#define EXIT_START_FAILED 128
#define EXIT_NOT_YET (-1)

/* Names and resolver: what the pod gives to every container as files. */
#define POD_FILES 3

struct spawn {
  /* Of the container: see place.h. */
  const char *place;
  /* Exec: its `ProcessSpec` and the container's mount namespace. NULL for a container's own. */
  const struct json *process;
  int mount_namespace;
  /*
   * A container's own process: the directory of its image; its `GuestContainerSpec` is in `spec_fd`
   * once a byte comes over `status_fd`; PID 1's mount namespace.
   */
  const char *image;
  bool privileged;
  /* Texts: where volumes will be mounted, as far as that is known. */
  const struct json *mount_paths;
  int spec_fd;
  int home_namespace;
  /* Filled in by `spawn_process`. `stdio` is unused with a terminal. */
  int status_fd;
  int cgroup_fd;
  int stdio[3];
};

/*
 * On the status socket: what went wrong; that the container is whole and waits to be told what it
 * is; or with a descriptor attached, the terminal's master.
 */
struct status_message {
  int exit_code;
  char text[1000];
};

_Noreturn void child_run(const struct spawn *spawn);
/* Reports to PID 1 and ends. */
_Noreturn void child_fail(int exit_code, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* Mounts that are there, and wait for their places in the container's file system. */
struct rootfs {
  /* PID 1's mount namespace and the container's own. */
  int home, own;
  int pod_files[POD_FILES];
  int termination_log;
};

/* rootfs.c: makes what all containers of an image have, in a mount namespace of its own, and enters it. */
void rootfs_prepare(const struct spawn *spawn, struct rootfs *rootfs);
/* Adds what this container has. */
void rootfs_finish(const struct rootfs *rootfs, const struct json *spec);
/* The container's terminal becomes its /dev/console. */
void rootfs_bind_console(const char *terminal);

#endif
