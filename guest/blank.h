/*
 * A blank container: all of it that does not depend on what runs in it is there. It has its place,
 * its first process is in its namespaces and has made its file system, and waits to be told the
 * rest. Each container begins as one; one may be made before it is asked for.
 */
#ifndef HYPERSTART_BLANK_H
#define HYPERSTART_BLANK_H

#include <stdbool.h>
#include <stddef.h>

#include "limits.h"
#include "place.h"
#include "session.h"
#include "spawn.h"

struct blank {
  char place[PLACE_BYTES_MAX + 1];
  struct spawned process;
  /* Memory in which it finds what it is to be. */
  int spec_fd;
};

/* The one that was made ahead, where it is what `spec` needs, or a new one. */
bool blank_take(struct blank *blank, const struct json *spec, char *error, size_t size);
/* Ends its process. Its place is the caller's. */
void blank_abandon(struct blank *blank);
/* The process goes on, as the container that the request describes; or its status says why not. */
void blank_tell(struct blank *blank, const struct request *request);
/*
 * Makes one ahead, in place of any other, and waits until it is whole. `plan` is the request: the
 * image, and where its volumes will be mounted.
 */
bool blank_prepare(const struct request *plan, char *error, size_t size);
/* Lets go of the one that was made ahead. */
void blank_discard(void);
/* A process that is no container's has ended. */
void blank_reaped(pid_t pid);

#endif
