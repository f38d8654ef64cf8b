#define _GNU_SOURCE
#include "hyperjail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

// Directories and empty files only: mount points for what is bound.
#define ROOT_OPTIONS "size=1m,nr_inodes=2048,mode=0755"
#define DEV_OPTIONS "size=64k,nr_inodes=32,mode=0755"
#define ROOT_NAME "root"

static void make_parents(char *path) {
  for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    if (mkdir(path, 0755) && errno != EEXIST) fail("make \"%s\" in the cell's root", path);
    *slash = '/';
  }
}

static void bind_into(const struct bind *b) {
  // Resolved here and once, so that what is examined is what is bound.
  int source = open(b->path, O_PATH | O_CLOEXEC);
  struct stat status;
  if (source < 0 || fstat(source, &status)) fail("open \"%s\"", b->path);
  char target[TEXT_MAX + 8], link[64];
  snprintf(target, sizeof target, ".%s", b->target);
  snprintf(link, sizeof link, "/proc/self/fd/%d", source);
  make_parents(target);
  if (S_ISDIR(status.st_mode)) {
    if (mkdir(target, 0755) && errno != EEXIST) fail("make \"%s\" in the cell's root", target);
  } else {
    int fd = open(target, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) fail("make \"%s\" in the cell's root", target);
    close(fd);
  }
  unsigned long flags = MS_RDONLY | MS_NOSUID | MS_NODEV | (b->executable ? 0 : MS_NOEXEC);
  if (mount(link, target, NULL, MS_BIND, NULL)) fail("bind \"%s\"", b->path);
  if (mount(NULL, target, NULL, MS_BIND | MS_REMOUNT | flags, NULL))
    fail("restrict the mount of \"%s\"", b->path);
  close(source);
}

// Nodes of its own that belong to the cell's user: the host's may be open to root only.
static void make_devices(const struct options *o) {
  if (!o->device_count) return;
  if (mkdir("dev", 0755)) fail("make \"/dev\" in the cell's root");
  if (mount("hyperjail", "dev", "tmpfs", MS_NOSUID | MS_NOEXEC, DEV_OPTIONS))
    fail("mount \"/dev\"");
  for (size_t i = 0; i < o->device_count; i++) {
    struct stat status;
    char target[TEXT_MAX + 8];
    if (stat(o->devices[i], &status)) fail("examine device \"%s\"", o->devices[i]);
    if (!S_ISCHR(status.st_mode) || strncmp(o->devices[i], "/dev/", 5))
      refuse("\"%s\" is not a character device in /dev", o->devices[i]);
    snprintf(target, sizeof target, ".%s", o->devices[i]);
    if (mknod(target, S_IFCHR | 0600, status.st_rdev) || chown(target, o->uid, o->uid))
      fail("make device \"%s\"", o->devices[i]);
  }
  if (mount(NULL, "dev", NULL, MS_REMOUNT | MS_RDONLY | MS_NOSUID | MS_NOEXEC, DEV_OPTIONS))
    fail("make \"/dev\" read-only");
}

// Expects to be in the VM's directory and alone in a new mount namespace.
void root_enter(const struct options *o) {
  umask(022);
  if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL)) fail("make mounts private");
  if (mkdir(ROOT_NAME, 0755) && errno != EEXIST) fail("make the cell's root");
  unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
  if (mount("hyperjail", ROOT_NAME, "tmpfs", flags, ROOT_OPTIONS))
    fail("mount the cell's root");
  if (chdir(ROOT_NAME)) fail("enter the cell's root");
  for (size_t i = 0; i < o->bind_count; i++) bind_into(&o->binds[i]);
  make_devices(o);
  // The old root comes to lie over the new one and is taken away: nothing of it can be reached.
  if (syscall(SYS_pivot_root, ".", ".")) fail("change the root");
  if (umount2(".", MNT_DETACH)) fail("detach the old root");
  if (chdir("/")) fail("enter the new root");
  if (mount(NULL, "/", NULL, MS_REMOUNT | MS_RDONLY | flags, ROOT_OPTIONS))
    fail("make the root read-only");
}
