/* What a container has in the VM beside its processes: a directory and a control group. */
#ifndef HYPERSTART_PLACE_H
#define HYPERSTART_PLACE_H

#include <stdbool.h>
#include <stddef.h>

#define PLACE_BYTES_MAX 15

/* Makes one of a name of its own, which was never used in this VM. */
bool place_make(char name[PLACE_BYTES_MAX + 1], char *error, size_t size);
/* The directory, or with `part` something in it. */
bool place_path(char *path, size_t size, const char *name, const char *part);
/* Ends what still runs there and removes all of it, in the background. */
void place_remove(const char *name);

#endif
