#include "util.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "limits.h"

bool test_mode;
const char *state_root = "";

static void say(const char *prefix, const char *format, va_list arguments) {
  char line[512];
  int length = snprintf(line, sizeof line, "%s", prefix);
  length += vsnprintf(line + length, sizeof line - (size_t)length - 1, format, arguments);
  if (length > (int)sizeof line - 2) length = (int)sizeof line - 2;
  line[length++] = '\n';
  if (write(STDERR_FILENO, line, (size_t)length) < 0) return;
}

void note(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say("hyperstart: ", format, arguments);
  va_end(arguments);
}

void fatal(const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  say("hyperstart: fatal: ", format, arguments);
  va_end(arguments);
  /* The end of PID 1 is a kernel panic, which the VMM and its log make visible. */
  _exit(1);
}

bool format_path(char *path, size_t size, const char *format, ...) {
  va_list arguments;
  va_start(arguments, format);
  int length = vsnprintf(path, size, format, arguments);
  va_end(arguments);
  return length >= 0 && (size_t)length < size;
}

static int write_all(int fd, const char *bytes, size_t length) {
  while (length) {
    ssize_t count = write(fd, bytes, length);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return -1;
    bytes += count;
    length -= (size_t)count;
  }
  return 0;
}

static int write_and_close(int fd, const void *bytes, size_t length) {
  if (fd < 0) return -1;
  int result = write_all(fd, bytes, length), saved = errno;
  close(fd);
  errno = saved;
  return result;
}

int write_file(const char *path, const char *text) {
  return write_and_close(open(path, O_WRONLY | O_CLOEXEC), text, strlen(text));
}

int write_file_mode(const char *path, const void *bytes, size_t length, mode_t mode) {
  int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);
  if (fd >= 0) fchmod(fd, mode);
  return write_and_close(fd, bytes, length);
}

ssize_t read_file(const char *path, char *bytes, size_t size) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  size_t length = 0;
  ssize_t count;
  while (length < size - 1 && (count = read(fd, bytes + length, size - 1 - length)) > 0)
    length += (size_t)count;
  close(fd);
  while (length && bytes[length - 1] == '\n') length--;
  bytes[length] = 0;
  return (ssize_t)length;
}

char *read_file_at(int directory, const char *path, size_t limit, size_t *length) {
  int fd = open_in_root(directory, path, O_RDONLY | O_NONBLOCK);
  struct stat status;
  if (fd < 0) return NULL;
  char *bytes = NULL;
  *length = 0;
  if (fstat(fd, &status) < 0 || !S_ISREG(status.st_mode))
    errno = EINVAL;
  else if ((size_t)status.st_size > limit)
    errno = EFBIG;
  else if ((bytes = malloc((size_t)status.st_size + 1))) {
    ssize_t count;
    while (*length < (size_t)status.st_size &&
           (count = read(fd, bytes + *length, (size_t)status.st_size - *length)) > 0)
      *length += (size_t)count;
    bytes[*length] = 0;
  }
  int saved = errno;
  close(fd);
  errno = saved;
  return bytes;
}

int make_directories(const char *path, mode_t mode) {
  char copy[PATH_BYTES_MAX];
  if (!format_path(copy, sizeof copy, "%s", path)) {
    errno = ENAMETOOLONG;
    return -1;
  }
  for (char *slash = strchr(copy + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    if (mkdir(copy, mode) < 0 && errno != EEXIST) return -1;
    *slash = '/';
  }
  return mkdir(copy, mode) < 0 && errno != EEXIST ? -1 : 0;
}

/*
 * Walks without recursion, so that no depth made by a tenant can use up the stack: goes down with
 * `openat`, up with "..", and removes a directory on the way back.
 */
static void remove_below(int directory, dev_t device) {
  ino_t left = 0;
  for (int depth = 0;;) {
    int copy = openat(directory, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = copy < 0 ? NULL : fdopendir(copy);
    if (!list && copy >= 0) close(copy);
    char name[256] = "";
    for (struct dirent *entry; list && !*name && (entry = readdir(list));) {
      if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
      if (unlinkat(directory, entry->d_name, 0) == 0) continue;
      if (unlinkat(directory, entry->d_name, AT_REMOVEDIR) == 0) continue;
      struct stat status;
      if (fstatat(directory, entry->d_name, &status, AT_SYMLINK_NOFOLLOW) < 0) continue;
      if (!S_ISDIR(status.st_mode) || status.st_dev != device || errno == EBUSY) continue;
      /* It was emptied before and could not be removed: something holds it. */
      if (status.st_ino == left) depth = -1;
      left = status.st_ino;
      snprintf(name, sizeof name, "%s", entry->d_name);
    }
    if (list) closedir(list);
    if (depth < 0) {
      close(directory);
      return;
    }
    int flags = O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC;
    int next = *name ? openat(directory, name, flags) : depth ? openat(directory, "..", flags) : -1;
    close(directory);
    if (next < 0) return;
    depth += *name ? 1 : -1;
    directory = next;
  }
}

void remove_tree(const char *path) {
  int directory = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  struct stat status;
  if (directory >= 0) {
    if (fstat(directory, &status) == 0)
      remove_below(directory, status.st_dev);
    else
      close(directory);
  }
  if (rmdir(path) < 0) unlink(path);
}

bool name_is_valid(const char *name, size_t limit) {
  size_t length = 0;
  if (!name || name[0] == '.') return false;
  for (; name[length]; length++) {
    char c = name[length];
    bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (length == limit || !(letter || c == '-' || c == '.' || c == '_')) return false;
  }
  return length > 0;
}

static int open_resolved(int root, const char *path, int flags, uint64_t resolve) {
  struct open_how how = {.flags = (uint64_t)(flags | O_CLOEXEC), .resolve = resolve};
  return (int)syscall(SYS_openat2, root, path, &how, sizeof how);
}

/* Symbolic links are followed as the container would see them, with `root` as its "/". */
int open_in_root(int root, const char *path, int flags) {
  return open_resolved(root, path, flags, RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS);
}

/* Symbolic links may not lead out of `root`, which may be a volume shared with a tenant. */
int open_beneath(int root, const char *path, int flags) {
  return open_resolved(root, path, flags, RESOLVE_BENEATH | RESOLVE_NO_MAGICLINKS);
}
