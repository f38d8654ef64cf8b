/* Mounts as objects: a copy of what is mounted somewhere, and its place elsewhere. */
#ifndef HYPERSTART_TREE_H
#define HYPERSTART_TREE_H

#include <stdbool.h>

/* A copy of what is seen at `path`, which is not mounted anywhere yet; -1 with errno. */
int tree_copy(int directory, const char *path);
/* Devices on it are none, programs on it are as they are; may be called before it is mounted or after. */
bool tree_restrict(int tree, bool read_only);
/* Mounts it on what `target` is open on. */
bool tree_mount(int tree, int target);

#endif
