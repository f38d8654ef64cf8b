/* musl has no names for these calls, and the header with their constants excludes <sys/mount.h>. */
#include "tree.h"

#include <fcntl.h>
#include <linux/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

int tree_copy(int directory, const char *path) {
  unsigned flags = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH;
  return (int)syscall(SYS_open_tree, directory, path, flags);
}

/* Flags are those that are wanted here, whatever they are where it was copied from. */
bool tree_restrict(int tree, bool read_only) {
  struct mount_attr attributes = {
      .attr_set = MOUNT_ATTR_NODEV | (read_only ? MOUNT_ATTR_RDONLY : 0),
      .attr_clr = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NOEXEC | (read_only ? 0 : MOUNT_ATTR_RDONLY)};
  return syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attributes, sizeof attributes) == 0;
}

bool tree_mount(int tree, int target) {
  unsigned flags = MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH;
  return syscall(SYS_move_mount, tree, "", target, "", flags) == 0;
}
