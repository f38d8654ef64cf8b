#include "hyperjail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void say(const char *verb, const char *format, va_list values, const char *reason) {
  char text[TEXT_MAX];
  int size = snprintf(text, sizeof text, "hyperjail: %s ", verb);
  size += vsnprintf(text + size, sizeof text - (size_t)size - 200, format, values);
  if (size > (int)sizeof text - 201) size = (int)sizeof text - 201;
  size += snprintf(text + size, 200, "%s%s\n", *reason ? ": " : "", reason);
  write_all(STDERR_FILENO, text, (size_t)size);
}

void fail(const char *format, ...) {
  const char *reason = strerror(errno);
  va_list values;
  va_start(values, format);
  say("cannot", format, values, reason);
  va_end(values);
  _exit(EXIT_JAIL);
}

void refuse(const char *format, ...) {
  va_list values;
  va_start(values, format);
  say("refused:", format, values, "");
  va_end(values);
  _exit(EXIT_REFUSED);
}

unsigned long parse_number(const char *name, const char *text, unsigned long min,
                           unsigned long max) {
  char *end;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (errno || end == text || *end || text[0] < '0' || text[0] > '9' || value < min || value > max)
    refuse("%s is \"%s\", wanted a number from %lu to %lu", name, text, min, max);
  return value;
}

bool write_all(int fd, const void *bytes, size_t size) {
  const char *at = bytes;
  while (size) {
    ssize_t n = write(fd, at, size);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return false;
    at += n;
    size -= (size_t)n;
  }
  return true;
}

void write_text(const char *path, const char *text) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0) fail("open \"%s\"", path);
  if (!write_all(fd, text, strlen(text))) fail("write \"%s\" to \"%s\"", text, path);
  close(fd);
}

bool replace_file(int directory, const char *name, const char *text) {
  char temporary[64];
  snprintf(temporary, sizeof temporary, ".%s.tmp", name);
  int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
  int fd = openat(directory, temporary, flags, 0600);
  if (fd < 0) return false;
  bool written = write_all(fd, text, strlen(text));
  close(fd);
  return written && renameat(directory, temporary, directory, name) == 0;
}

void process_stat(pid_t pid, unsigned long long fields[STAT_FIELDS]) {
  char path[64], text[2048];
  snprintf(path, sizeof path, "/proc/%d/stat", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail("open \"%s\"", path);
  ssize_t size = read(fd, text, sizeof text - 1);
  close(fd);
  if (size <= 0) fail("read \"%s\"", path);
  text[size] = 0;
  char *at = strrchr(text, ')');
  for (int i = 0; i < STAT_FIELDS; i++) {
    fields[i] = 0;
    if (i < 3 || !at) continue;
    at = strchr(at + 1, ' ');
    if (at) fields[i] = strtoull(at, NULL, 10);
  }
}

// Together with the PID it names a process for ever.
unsigned long long process_start_ticks(pid_t pid) {
  unsigned long long fields[STAT_FIELDS];
  process_stat(pid, fields);
  return fields[22];
}
