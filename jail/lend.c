// Loaded into the monitor before its own libraries: lends it descriptors that it inherited, under
// the name /inherited/N. QEMU takes the file of a guest's memory by name alone and opens it for
// writing, also where it maps it privately; what a template's clones get is open for reading, so
// that none of them, broken into or not, can change the memory that the others start from.
//
// No library stands behind it: it answers for open and passes on to the kernel what is not its own.
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <sys/types.h>

#define PREFIX "/inherited/"
#define EXPORTED __attribute__((visibility("default")))
#define DESCRIPTOR_MAX 999

static bool lent[DESCRIPTOR_MAX + 1];

static long system_call(long number, long a, long b, long c, long d) {
  long result;
  register long r10 __asm__("r10") = d;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10)
                   : "rcx", "r11", "memory");
  if (result < 0 && result > -4096) {
    errno = (int)-result;
    return -1;
  }
  return result;
}

// The number in /inherited/N; -1 for every other path.
static int inherited(const char *path) {
  const char *at = path;
  for (const char *want = PREFIX; *want; want++, at++)
    if (*at != *want) return -1;
  int number = 0;
  if (!*at) return -1;
  for (; *at; at++) {
    if (*at < '0' || *at > '9') return -1;
    number = number * 10 + (*at - '0');
    if (number > DESCRIPTOR_MAX) return -1;
  }
  return number;
}

static int open_or_lend(const char *path, int flags, mode_t mode) {
  int number = inherited(path);
  if (number < 0)
    return (int)system_call(SYS_openat, AT_FDCWD, (long)path, flags | O_LARGEFILE, mode);
  long fd = system_call(SYS_fcntl, number, F_DUPFD_CLOEXEC, 0, 0);
  if (fd >= 0 && fd <= DESCRIPTOR_MAX) lent[fd] = true;
  return (int)fd;
}

EXPORTED int open64(const char *path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  mode_t mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return open_or_lend(path, flags, mode);
}

// What open becomes in a program that was built with _FORTIFY_SOURCE.
EXPORTED int __open64_2(const char *path, int flags) { return open_or_lend(path, flags, 0); }

// A guest that gives memory back: QEMU punches a hole into the file, then drops its own pages of
// it. The file is the template's and stays whole; the pages that were this guest's alone go.
EXPORTED int fallocate64(int fd, int mode, off_t offset, off_t length) {
  if (fd >= 0 && fd <= DESCRIPTOR_MAX && lent[fd] && mode & FALLOC_FL_PUNCH_HOLE) return 0;
  return (int)system_call(SYS_fallocate, fd, mode, offset, length);
}

EXPORTED int close(int fd) {
  if (fd >= 0 && fd <= DESCRIPTOR_MAX) lent[fd] = false;
  return (int)system_call(SYS_close, fd, 0, 0, 0);
}
