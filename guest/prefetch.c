#include "prefetch.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "limits.h"
#include "util.h"

/* What programs read first: who they are, and how they are loaded. */
static const char *const FILES[] = {
    "/etc/passwd",
    "/etc/group",
    "/etc/ld.so.cache",
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/x86_64-linux-gnu/libc.so.6",
    "/lib/ld-musl-x86_64.so.1",
};

static const char *const DIRECTORIES[] = {"/usr/local/sbin", "/usr/local/bin", "/usr/sbin",
                                          "/usr/bin",        "/sbin",          "/bin"};

/* Into the page cache, from where a program's pages are mapped without asking the disk. */
static bool read_whole(int root, const char *path) {
  static char bytes[65536];
  struct stat status;
  int fd = open_in_root(root, path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return false;
  bool regular = fstat(fd, &status) == 0 && S_ISREG(status.st_mode);
  if (regular) readahead(fd, 0, PREFETCH_BYTES_MAX);
  for (off_t at = 0; regular && at < PREFETCH_BYTES_MAX;) {
    ssize_t count = read(fd, bytes, sizeof bytes);
    if (count <= 0) break;
    at += count;
  }
  close(fd);
  return regular;
}

void prefetch_files(int root, const char *program) {
  char path[PATH_BYTES_MAX];
  for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) read_whole(root, FILES[i]);
  if (strchr(program, '/')) {
    read_whole(root, program);
    return;
  }
  for (size_t i = 0; *program && i < sizeof DIRECTORIES / sizeof *DIRECTORIES; i++)
    if (format_path(path, sizeof path, "%s/%s", DIRECTORIES[i], program) && read_whole(root, path))
      return;
}
