#define _GNU_SOURCE
#include "freeze.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "hyperjail.h"

// How long a monitor may take to notice that its clients have gone.
#define SETTLE_ATTEMPTS 2000
#define SETTLE_PAUSE_NS 2000000
// Status flags that can be set again; the others are how the jail has opened it.
#define STATUS_FLAGS (O_NONBLOCK | O_APPEND)

int inventory_find(const struct inventory *inventory, dev_t device, ino_t inode) {
  for (size_t i = 0; i < inventory->count; i++)
    if (inventory->items[i].device == device && inventory->items[i].inode == inode)
      return inventory->items[i].target;
  return -1;
}

static void descriptor_path(char *path, size_t size, pid_t pid, const char *list, int number) {
  snprintf(path, size, "/proc/%d/%s/%d", pid, list, number);
}

static struct stat examine(pid_t pid, int number) {
  char path[64];
  struct stat status;
  descriptor_path(path, sizeof path, pid, "fd", number);
  if (stat(path, &status)) fail("examine \"%s\"", path);
  return status;
}

static size_t list_numbers(pid_t pid, int *numbers) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/fd", pid);
  DIR *list = opendir(path);
  if (!list) fail("open \"%s\"", path);
  size_t count = 0;
  for (struct dirent *entry; (entry = readdir(list));) {
    if (entry->d_name[0] == '.') continue;
    if (count == FROZEN_DESCRIPTORS_MAX) refuse("more than %d descriptors", FROZEN_DESCRIPTORS_MAX);
    numbers[count++] = atoi(entry->d_name);
  }
  closedir(list);
  return count;
}

// A client's connection cannot be frozen, so nobody may be connected.
static bool has_clients(pid_t pid, const struct inventory *inventory) {
  int numbers[FROZEN_DESCRIPTORS_MAX];
  size_t count = list_numbers(pid, numbers);
  for (size_t i = 0; i < count; i++) {
    char path[64];
    struct stat status;
    descriptor_path(path, sizeof path, pid, "fd", numbers[i]);
    if (stat(path, &status)) return true;
    if (S_ISSOCK(status.st_mode) && inventory_find(inventory, status.st_dev, status.st_ino) < 0)
      return true;
  }
  return false;
}

void descriptors_settle(pid_t pid, const struct inventory *inventory) {
  for (int attempt = 0; has_clients(pid, inventory); attempt++) {
    errno = EBUSY;
    if (attempt == SETTLE_ATTEMPTS) fail("freeze a monitor that has clients");
    nanosleep(&(struct timespec){0, SETTLE_PAUSE_NS}, NULL);
  }
}

static bool read_line(FILE *info, const char *format, void *value) {
  char line[256];
  rewind(info);
  while (fgets(line, sizeof line, info))
    if (sscanf(line, format, value) == 1) return true;
  return false;
}

static void read_watches(struct frozen_tables *t, int epoll, FILE *info) {
  char line[256];
  rewind(info);
  while (fgets(line, sizeof line, info)) {
    struct frozen_watch w = {.epoll = epoll};
    unsigned long long data;
    if (sscanf(line, "tfd: %d events: %x data: %llx", &w.number, &w.events, &data) != 3) continue;
    w.data = data;
    if (t->header.watches_count == FROZEN_WATCHES_MAX)
      refuse("more than %d watched descriptors", FROZEN_WATCHES_MAX);
    t->watches[t->header.watches_count++] = w;
  }
}

static int find_original(const struct frozen_tables *t, pid_t pid, int number) {
  for (size_t i = 0; i < t->header.descriptors_count; i++) {
    long order = syscall(SYS_kcmp, pid, pid, KCMP_FILE, number, t->descriptors[i].number);
    if (order < 0) refuse("the kernel does not compare descriptors");
    if (order == 0) return t->descriptors[i].number;
  }
  return -1;
}

static void describe_kind(struct frozen_tables *t, struct frozen_descriptor *d, pid_t pid,
                          const struct inventory *inventory, FILE *info) {
  char path[64], link[FROZEN_PATH_MAX];
  descriptor_path(path, sizeof path, pid, "fd", d->number);
  ssize_t size = readlink(path, link, sizeof link - 1);
  if (size < 0) fail("read \"%s\"", path);
  link[size] = 0;
  struct stat status = examine(pid, d->number);
  int original = find_original(t, pid, d->number);
  int target = inventory_find(inventory, status.st_dev, status.st_ino);
  unsigned long long value;
  if (d->number <= STDERR_FILENO || target >= 0) {
    d->kind = DESCRIPTOR_INHERITED;
    d->source = target >= 0 ? target : d->number;
  } else if (original >= 0) {
    d->kind = DESCRIPTOR_DUPLICATE;
    d->source = original;
  } else if (read_line(info, "eventfd-count: %llx", &value)) {
    d->kind = DESCRIPTOR_EVENTS;
    d->value = value;
  } else if (read_line(info, "sigmask: %llx", &value)) {
    d->kind = DESCRIPTOR_SIGNALS;
    d->value = value;
  } else if (!strcmp(link, "anon_inode:[eventpoll]")) {
    d->kind = DESCRIPTOR_EPOLL;
    read_watches(t, d->number, info);
  } else if (S_ISCHR(status.st_mode) && size < (ssize_t)sizeof d->path) {
    d->kind = DESCRIPTOR_DEVICE;
    strcpy(d->path, link);
  } else {
    refuse("the monitor holds \"%s\" open, which cannot be frozen", link);
  }
}

void descriptors_freeze(struct frozen_tables *t, pid_t pid, const struct inventory *inventory) {
  int numbers[FROZEN_DESCRIPTORS_MAX];
  size_t count = list_numbers(pid, numbers);
  for (size_t i = 0; i < count; i++) {
    struct frozen_descriptor d = {.number = numbers[i]};
    if (d.number >= FROZEN_NUMBER_END) refuse("descriptor %d is too high", d.number);
    char path[64];
    descriptor_path(path, sizeof path, pid, "fdinfo", d.number);
    FILE *info = fopen(path, "re");
    unsigned flags;
    if (!info || !read_line(info, "flags: %o", &flags)) fail("read \"%s\"", path);
    d.status_flags = (int)flags & (STATUS_FLAGS | O_ACCMODE);
    d.descriptor_flags = flags & O_CLOEXEC ? FD_CLOEXEC : 0;
    describe_kind(t, &d, pid, inventory, info);
    fclose(info);
    t->descriptors[t->header.descriptors_count++] = d;
  }
}
