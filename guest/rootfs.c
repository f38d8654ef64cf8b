/* The file system that a container sees, made in its own mount namespace. */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "child.h"
#include "limits.h"
#include "place.h"
#include "tree.h"
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
static const char *const FILES[POD_FILES][2] = {{"/pod/hosts", "/etc/hosts"},
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

static void place_tree(int root, int tree, const char *path) {
  struct stat status;
  int target = fstat(tree, &status) < 0 ? -1 : open_target(root, path, S_ISDIR(status.st_mode));
  if (target < 0) fail("make the mount point", path);
  if (!tree_mount(tree, target)) fail("mount at", path);
  close(target);
}

static void mount_overlay(const struct spawn *spawn) {
  char options[3 * PATH_BYTES_MAX];
  const char *layers = "/scratch/containers";
  if (!format_path(options, sizeof options,
                   "lowerdir=%s,upperdir=%s/%s/upper,workdir=%s/%s/work,volatile", spawn->image,
                   layers, spawn->place, layers, spawn->place))
    fail("mount the root at", ROOT);
  unsigned long flags = spawn->privileged ? 0 : MS_NODEV;
  if (mount("overlay", ROOT, "overlay", flags, options) < 0) fail("mount the root at", ROOT);
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
  int shm = tree_copy(AT_FDCWD, "/shm");
  if (shm < 0) fail("open", "/shm");
  place_tree(root, shm, "/dev/shm");
  close(shm);
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

/* What a container mounts of a volume, as PID 1 sees it. */
static int copy_volume(const struct json *mounted) {
  char path[PATH_BYTES_MAX];
  const char *name = json_text(mounted, "volume", ""), *sub = json_text(mounted, "subPath", "");
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
  int tree = tree_copy(fd, "");
  if (tree < 0 || !tree_restrict(tree, json_true(mounted, "readOnly"))) fail("copy volume", name);
  close(fd);
  return tree;
}

static int open_root(void) {
  int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) fail("open", "/");
  return root;
}

static int depth_of(const char *path) {
  int depth = 0;
  for (; *path; path++) depth += *path == '/' && path[1] && path[1] != '/';
  return depth;
}

/* In the order in which they were given. Volumes may have come after the container's namespace. */
static void copy_volumes(const struct rootfs *rootfs, const struct json *mounts,
                         int trees[MOUNTS_MAX]) {
  if (setns(rootfs->home, CLONE_NEWNS) < 0) fail("enter", "/volume");
  for (const struct json *mounted = json_first(mounts); mounted; mounted = json_next(mounted))
    *trees++ = copy_volume(mounted);
  if (setns(rootfs->own, CLONE_NEWNS) < 0) fail("enter", "/");
}

static void mount_volumes(const struct rootfs *rootfs, const struct json *mounts) {
  int trees[MOUNTS_MAX];
  if (!json_first(mounts)) return;
  if (mounts->count > MOUNTS_MAX)
    child_fail(EXIT_START_FAILED, "mounts: %u, at most %d", mounts->count, MOUNTS_MAX);
  copy_volumes(rootfs, mounts, trees);
  int root = open_root();
  /* Outer ones first, in whatever order they were given. */
  for (int depth = 0; depth <= DEPTH_MAX; depth++) {
    int *tree = trees;
    const struct json *mounted = json_first(mounts);
    for (; mounted; mounted = json_next(mounted), tree++) {
      const char *path = json_text(mounted, "path", "");
      int wanted = depth_of(path);
      if ((wanted < DEPTH_MAX ? wanted : DEPTH_MAX) == depth) place_tree(root, *tree, path);
    }
  }
  close(root);
}

static bool is_mounted_by(const struct json *mounts, const char *path) {
  const struct json *mounted = json_first(mounts);
  for (; mounted; mounted = json_next(mounted))
    if (!strcmp(json_text(mounted, "path", ""), path)) return true;
  return false;
}

/* Copies of the pod's files, and of what the container may write its last words into. */
static void copy_pod_files(const char *place, struct rootfs *rootfs) {
  char path[PATH_BYTES_MAX];
  for (int i = 0; i < POD_FILES; i++)
    if ((rootfs->pod_files[i] = tree_copy(AT_FDCWD, FILES[i][0])) < 0) fail("open", FILES[i][0]);
  if (!place_path(path, sizeof path, place, "termination-log")) fail("open", place);
  if ((rootfs->termination_log = tree_copy(AT_FDCWD, path)) < 0) fail("open", path);
}

static void mount_pod_files(int root, const struct rootfs *rootfs, const struct json *spec) {
  const struct json *mounts = json_get(spec, "mounts");
  const char *message = json_text(spec, "terminationMessagePath", "");
  bool read_only = json_true(spec, "readOnlyRootfs");
  for (int i = 0; i < POD_FILES; i++) {
    const char *path = FILES[i][1];
    if (is_mounted_by(mounts, path)) continue;
    if (!tree_restrict(rootfs->pod_files[i], read_only)) fail("protect", path);
    place_tree(root, rootfs->pod_files[i], path);
  }
  if (!*message) return;
  if (!tree_restrict(rootfs->termination_log, false)) fail("protect", message);
  place_tree(root, rootfs->termination_log, message);
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

/* What cannot be made here is told when it is mounted on. */
static void make_mount_point(int root, const char *path, bool directory) {
  int fd = open_target(root, path, directory);
  if (fd >= 0) close(fd);
}

static void make_mount_points(int root, const struct json *paths) {
  for (int i = 0; i < POD_FILES; i++) make_mount_point(root, FILES[i][1], false);
  for (const struct json *path = json_first(paths); path; path = json_next(path))
    make_mount_point(root, path->text ? path->text : "", true);
}

void rootfs_prepare(const struct spawn *spawn, struct rootfs *rootfs) {
  rootfs->home = spawn->home_namespace;
  rootfs->own = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
  if (rootfs->own < 0) fail("open", "/proc/self/ns/mnt");
  mount_overlay(spawn);
  int root = open(ROOT, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root < 0) fail("open", ROOT);
  mount_special(root, spawn->privileged);
  make_devices(root, spawn->privileged);
  copy_pod_files(spawn->place, rootfs);
  make_mount_points(root, spawn->mount_paths);
  if (fchdir(root) < 0 || syscall(SYS_pivot_root, ".", ".") < 0) fail("enter", ROOT);
  if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0) fail("leave", "/");
  close(root);
  if (!spawn->privileged) mask_paths();
}

void rootfs_finish(const struct rootfs *rootfs, const struct json *spec) {
  const struct json *process = json_get(spec, "process");
  bool privileged = json_true(json_get(process, "security"), "privileged");
  mount_volumes(rootfs, json_get(spec, "mounts"));
  int root = open_root();
  mount_pod_files(root, rootfs, spec);
  make_working_directory(root, process);
  close(root);
  unsigned long flags = MS_REMOUNT | MS_BIND | MS_RDONLY | (privileged ? 0 : MS_NODEV);
  if (json_true(spec, "readOnlyRootfs") && mount(NULL, "/", NULL, flags, NULL) < 0)
    fail("protect", "/");
}

void rootfs_bind_console(const char *terminal) {
  int fd = open("/dev/console", O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NOCTTY, 0600);
  if (fd >= 0) close(fd);
  if (mount(terminal, "/dev/console", NULL, MS_BIND, NULL) < 0) fail("mount", "/dev/console");
}
