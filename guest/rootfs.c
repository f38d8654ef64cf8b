/* The file system that a container sees, made in its own mount namespace. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "child.h"
#include "limits.h"
#include "util.h"

#define ROOT "/root"
#define DEPTH_MAX 64

struct special {
  const char *source, *target, *type, *options;
  unsigned long flags;
};

/* In this order. Flags and options are those that container runtimes agree on. */
static const struct special SPECIAL[] = {
    {"proc", "/proc", "proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
    {"tmpfs", "/dev", "tmpfs", "mode=755,size=64k", MS_NOSUID | MS_STRICTATIME},
    {"devpts", "/dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5",
     MS_NOSUID | MS_NOEXEC},
    {"mqueue", "/dev/mqueue", "mqueue", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
    {"sysfs", "/sys", "sysfs", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
    {"cgroup", "/sys/fs/cgroup", "cgroup2", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
};

struct node {
  const char *name;
  int major, minor;
};

static const struct node NODES[] = {{"null", 1, 3},   {"zero", 1, 5},    {"full", 1, 7},
                                    {"random", 1, 8}, {"urandom", 1, 9}, {"tty", 5, 0}};

static const char *const LINKS[][2] = {{"pts/ptmx", "ptmx"},
                                       {"/proc/self/fd", "fd"},
                                       {"/proc/self/fd/0", "stdin"},
                                       {"/proc/self/fd/1", "stdout"},
                                       {"/proc/self/fd/2", "stderr"}};

static const char *const MASKED[] = {
    "/proc/asound",      "/proc/acpi",       "/proc/interrupts",
    "/proc/kcore",       "/proc/keys",       "/proc/latency_stats",
    "/proc/timer_list",  "/proc/timer_stats", "/proc/sched_debug",
    "/proc/scsi",        "/sys/firmware",    "/sys/devices/virtual/powercap"};

static const char *const READ_ONLY[] = {"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
                                        "/proc/sysrq-trigger"};

/* What the pod gives to every container. */
static const char *const POD_FILES[][2] = {{"/pod/hosts", "/etc/hosts"},
                                           {"/pod/resolv.conf", "/etc/resolv.conf"},
                                           {"/pod/hostname", "/etc/hostname"}};

_Noreturn static void fail(const char *what, const char *path) {
  child_fail(EXIT_START_FAILED, "cannot %s \"%.200s\": %s", what, path, strerror(errno));
}

/* A path that names what the descriptor holds, through PID 1's own /proc. */
static const char *by_descriptor(char *path, int fd) {
  sprintf(path, "/proc/self/fd/%d", fd);
  return path;
}

/* Makes one missing component of `path`, whose parent is there. */
static bool make_component(int root, const char *path, bool directory) {
  char parent[PATH_BYTES_MAX];
  snprintf(parent, sizeof parent, "%s", path);
  char *slash = strrchr(parent, '/');
  const char *name = path + (slash - parent) + 1;
  *slash = 0;
  int fd = open_in_root(root, *parent ? parent : "/", O_PATH | O_DIRECTORY);
  if (fd < 0) return false;
  int flags = O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC;
  int made = directory ? mkdirat(fd, name, 0755) : openat(fd, name, flags, 0644);
  if (!directory && made >= 0) close(made);
  close(fd);
  return made >= 0;
}

/*
 * Opens `path` inside the container's root as a place to mount on, and makes what is missing. No
 * symbolic link of the image or of a volume leads out of the root.
 */
static int open_target(int root, const char *path, bool directory) {
  char prefix[PATH_BYTES_MAX];
  if (path[0] != '/' || !format_path(prefix, sizeof prefix, "%s", path)) {
    errno = EINVAL;
    return -1;
  }
  int fd = open_in_root(root, path, O_PATH);
  if (fd >= 0 || errno != ENOENT) return fd;
  for (char *at = prefix + 1;;) {
    size_t length = strcspn(at, "/");
    bool last = !at[length + strspn(at + length, "/")];
    char next = at[length];
    at[length] = 0;
    if (length) {
      fd = open_in_root(root, prefix, O_PATH);
      if (fd < 0 && (errno != ENOENT || !make_component(root, prefix, directory || !last)))
        return -1;
      if (fd >= 0) close(fd);
    }
    if (last) break;
    at[length] = next;
    at += length + 1;
  }
  return open_in_root(root, path, O_PATH);
}

/* Flags of a bind mount take effect only by a second call, on the new mount. */
static void remount(int root, const char *path, unsigned long flags) {
  char name[64];
  int fd = open_in_root(root, path, O_PATH);
  if (fd < 0 || mount(NULL, by_descriptor(name, fd), NULL, MS_REMOUNT | MS_BIND | flags, NULL) < 0)
    fail("change the mount at", path);
  close(fd);
}

static void bind_at(int root, int source, const char *path, bool directory, unsigned long flags) {
  char from[64], to[64];
  int target = open_target(root, path, directory);
  if (target < 0) fail("make the mount point", path);
  if (mount(by_descriptor(from, source), by_descriptor(to, target), NULL, MS_BIND, NULL) < 0)
    fail("mount at", path);
  close(target);
  if (flags) remount(root, path, flags);
}

static void bind_path(int root, const char *source, const char *path, unsigned long flags) {
  struct stat status;
  int fd = open(source, O_PATH | O_CLOEXEC);
  if (fd < 0 || fstat(fd, &status) < 0) fail("open", source);
  bind_at(root, fd, path, S_ISDIR(status.st_mode), flags);
  close(fd);
}

static void mount_overlay(const struct spawn *spawn) {
  char options[3 * PATH_BYTES_MAX];
  const char *layers = "/scratch/containers";
  if (!format_path(options, sizeof options,
                   "lowerdir=%s,upperdir=%s/%s/upper,workdir=%s/%s/work,volatile", spawn->image,
                   layers, spawn->id, layers, spawn->id))
    fail("mount the root of", spawn->id);
  bool privileged = json_true(json_get(spawn->process, "security"), "privileged");
  unsigned long flags = privileged ? 0 : MS_NODEV;
  if (mount("overlay", ROOT, "overlay", flags, options) < 0) fail("mount the root of", spawn->id);
}

static void mount_special(int root, bool privileged) {
  for (size_t i = 0; i < sizeof SPECIAL / sizeof *SPECIAL; i++) {
    const struct special *special = &SPECIAL[i];
    char name[64];
    bool devices = privileged && !strcmp(special->target, "/dev");
    int target = open_target(root, special->target, true);
    if (target < 0) fail("make the mount point", special->target);
    if (mount(special->source, by_descriptor(name, target), devices ? "devtmpfs" : special->type,
              special->flags, devices ? NULL : special->options) < 0)
      fail("mount", special->target);
    close(target);
  }
}

static void make_devices(int root, bool privileged) {
  int dev = open_in_root(root, "/dev", O_PATH | O_DIRECTORY);
  if (dev < 0) fail("open", "/dev");
  mode_t mask = umask(0);
  for (size_t i = 0; !privileged && i < sizeof NODES / sizeof *NODES; i++) {
    dev_t number = makedev((unsigned)NODES[i].major, (unsigned)NODES[i].minor);
    if (mknodat(dev, NODES[i].name, S_IFCHR | 0666, number) < 0) fail("make", NODES[i].name);
  }
  umask(mask);
  for (size_t i = 0; i < sizeof LINKS / sizeof *LINKS; i++)
    if (symlinkat(LINKS[i][0], dev, LINKS[i][1]) < 0 && errno != EEXIST)
      fail("make", LINKS[i][1]);
  close(dev);
  bind_path(root, "/shm", "/dev/shm", 0);
}

/* The part of a volume that a container mounts. A missing one becomes a directory. */
static int open_sub_path(int volume, const char *path) {
  char prefix[PATH_BYTES_MAX];
  if (!format_path(prefix, sizeof prefix, "%s", path) || path[0] == '/') {
    errno = EINVAL;
    return -1;
  }
  int fd = open_beneath(volume, path, O_PATH);
  if (fd >= 0 || errno != ENOENT) return fd;
  for (char *slash = prefix; slash; slash = strchr(slash + 1, '/')) {
    char *end = strchr(slash + 1, '/');
    if (end) *end = 0;
    char *name = strrchr(prefix, '/');
    int parent = name ? -1 : dup(volume);
    if (name) {
      *name = 0;
      parent = open_beneath(volume, prefix, O_PATH | O_DIRECTORY);
      *name = '/';
    }
    if (parent < 0) return -1;
    int made = mkdirat(parent, name ? name + 1 : prefix, 0750);
    close(parent);
    if (made < 0 && errno != EEXIST) return -1;
    if (end) *end = '/';
  }
  return open_beneath(volume, path, O_PATH);
}

static void mount_volume(int root, const struct json *mounted) {
  char path[PATH_BYTES_MAX];
  const char *name = json_text(mounted, "volume", ""), *sub = json_text(mounted, "subPath", "");
  const char *target = json_text(mounted, "path", "");
  struct stat status;
  errno = ENOENT;
  if (!name_is_valid(name, VOLUME_NAME_BYTES_MAX) ||
      !format_path(path, sizeof path, "/volume/%s", name))
    fail("find volume", name);
  int fd = open(path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (fd < 0) fail("find volume", name);
  if (*sub) {
    int part = open_sub_path(fd, sub);
    if (part < 0) fail("resolve subPath", sub);
    close(fd);
    fd = part;
  }
  if (fstat(fd, &status) < 0) fail("find volume", name);
  unsigned long flags = MS_NODEV | (json_true(mounted, "readOnly") ? MS_RDONLY : 0);
  bind_at(root, fd, target, S_ISDIR(status.st_mode), flags);
  close(fd);
}

static int depth_of(const char *path) {
  int depth = 0;
  for (; *path; path++) depth += *path == '/' && path[1] && path[1] != '/';
  return depth;
}

/* Outer ones first, in whatever order they were given. */
static void mount_volumes(int root, const struct json *mounts) {
  if (mounts && mounts->count > MOUNTS_MAX)
    child_fail(EXIT_START_FAILED, "mounts: %u, at most %d", mounts->count, MOUNTS_MAX);
  for (int depth = 0; depth <= DEPTH_MAX; depth++) {
    const struct json *mounted = json_first(mounts);
    for (; mounted; mounted = json_next(mounted)) {
      int wanted = depth_of(json_text(mounted, "path", ""));
      if ((wanted < DEPTH_MAX ? wanted : DEPTH_MAX) == depth) mount_volume(root, mounted);
    }
  }
}

static bool is_mounted_by(const struct json *mounts, const char *path) {
  const struct json *mounted = json_first(mounts);
  for (; mounted; mounted = json_next(mounted))
    if (!strcmp(json_text(mounted, "path", ""), path)) return true;
  return false;
}

static void mount_pod_files(int root, const struct spawn *spawn, bool read_only) {
  const struct json *mounts = json_get(spawn->container, "mounts");
  const char *message = json_text(spawn->container, "terminationMessagePath", "");
  char path[PATH_BYTES_MAX];
  for (size_t i = 0; i < sizeof POD_FILES / sizeof *POD_FILES; i++)
    if (!is_mounted_by(mounts, POD_FILES[i][1]))
      bind_path(root, POD_FILES[i][0], POD_FILES[i][1], MS_NODEV | (read_only ? MS_RDONLY : 0));
  if (!*message) return;
  if (!format_path(path, sizeof path, "/scratch/containers/%s/termination-log", spawn->id))
    fail("make the mount point", message);
  bind_path(root, path, message, MS_NODEV);
}

static void mask_paths(void) {
  for (size_t i = 0; i < sizeof MASKED / sizeof *MASKED; i++) {
    struct stat status;
    if (stat(MASKED[i], &status) < 0) continue;
    int result = S_ISDIR(status.st_mode)
                     ? mount("tmpfs", MASKED[i], "tmpfs", MS_RDONLY, "size=0")
                     : mount("/dev/null", MASKED[i], NULL, MS_BIND, NULL);
    if (result < 0) fail("mask", MASKED[i]);
  }
  for (size_t i = 0; i < sizeof READ_ONLY / sizeof *READ_ONLY; i++) {
    unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
    if (mount(READ_ONLY[i], READ_ONLY[i], NULL, MS_BIND, NULL) < 0) {
      if (errno == ENOENT) continue;
      fail("mount at", READ_ONLY[i]);
    }
    if (mount(NULL, READ_ONLY[i], NULL, flags, NULL) < 0) fail("protect", READ_ONLY[i]);
  }
  unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC;
  if (mount(NULL, "/sys", NULL, flags, NULL) < 0) fail("protect", "/sys");
  if (mount(NULL, "/sys/fs/cgroup", NULL, flags, NULL) < 0) fail("protect", "/sys/fs/cgroup");
}

static void make_working_directory(int root, const struct json *process) {
  const char *path = json_text(process, "workingDir", "");
  if (path[0] != '/') return;
  int fd = open_target(root, path, true);
  /* A wrong one is reported when it is entered. */
  if (fd >= 0) close(fd);
}

void rootfs_enter(const struct spawn *spawn) {
  bool privileged = json_true(json_get(spawn->process, "security"), "privileged");
  bool read_only = json_true(spawn->container, "readOnlyRootfs");
  mount_overlay(spawn);
  int root = open(ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) fail("open", ROOT);
  mount_special(root, privileged);
  make_devices(root, privileged);
  mount_volumes(root, json_get(spawn->container, "mounts"));
  mount_pod_files(root, spawn, read_only);
  make_working_directory(root, spawn->process);
  if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0) fail("enter", ROOT);
  if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) fail("leave", "/");
  close(root);
  if (!privileged) mask_paths();
  unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | (privileged ? 0 : MS_NODEV);
  if (read_only && mount(NULL, "/", NULL, flags, NULL) < 0) fail("protect", "/");
}

void rootfs_bind_console(const char *terminal) {
  int fd = open("/dev/console", O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
  if (fd >= 0) close(fd);
  if (mount(terminal, "/dev/console", NULL, MS_BIND, NULL) < 0) fail("mount", "/dev/console");
}
