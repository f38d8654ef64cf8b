#define _GNU_SOURCE
#include "freeze.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "hyperjail.h"

static void inventory_read(struct inventory *inventory, const char *path) {
  FILE *file = fopen(path, "re");
  if (!file) fail("open \"%s\"", path);
  char line[128];
  while (fgets(line, sizeof line, file)) {
    int target;
    unsigned long device, inode;
    if (sscanf(line, "%d %lu %lu", &target, &device, &inode) != 3 ||
        inventory->count == sizeof inventory->items / sizeof inventory->items[0])
      refuse("\"%s\" is not a list of descriptors", path);
    inventory->items[inventory->count].target = target;
    inventory->items[inventory->count].device = device;
    inventory->items[inventory->count++].inode = inode;
  }
  fclose(file);
}

static uint64_t place(uint64_t *at, size_t size) {
  uint64_t here = *at;
  *at += (size + FROZEN_PAGE - 1) / FROZEN_PAGE * FROZEN_PAGE;
  return here;
}

// All tables have their full size; what is not used of them is holes.
static void layout(struct frozen_header *h) {
  memcpy(h->magic, FROZEN_MAGIC, sizeof h->magic);
  h->version = FROZEN_VERSION;
  uint64_t at = 0;
  place(&at, sizeof *h);
  h->segments = place(&at, sizeof(struct frozen_segment) * FROZEN_SEGMENTS_MAX);
  h->files = place(&at, sizeof(struct frozen_file) * FROZEN_FILES_MAX);
  h->descriptors = place(&at, sizeof(struct frozen_descriptor) * FROZEN_DESCRIPTORS_MAX);
  h->watches = place(&at, sizeof(struct frozen_watch) * FROZEN_WATCHES_MAX);
  h->actions = place(&at, sizeof(struct frozen_action) * FROZEN_SIGNALS);
  h->threads = place(&at, sizeof(struct frozen_thread) * FROZEN_THREADS_MAX);
  h->tables_end = at;
}

static void write_table(int image, uint64_t offset, const void *table, size_t size) {
  if (pwrite(image, table, size, (off_t)offset) != (ssize_t)size) fail("write the frozen monitor");
}

// The header is last: a file without one is not whole.
static void write_tables(int image, const struct frozen_tables *t) {
  const struct frozen_header *h = &t->header;
  write_table(image, h->segments, t->segments, sizeof t->segments[0] * h->segments_count);
  write_table(image, h->files, t->files, sizeof t->files[0] * h->files_count);
  write_table(image, h->descriptors, t->descriptors, sizeof t->descriptors[0] * h->descriptors_count);
  write_table(image, h->watches, t->watches, sizeof t->watches[0] * h->watches_count);
  write_table(image, h->actions, t->actions, sizeof t->actions);
  write_table(image, h->threads, t->threads, sizeof t->threads[0] * h->threads_count);
  write_table(image, 0, h, sizeof *h);
}

int freeze_run(int count, char **arguments) {
  const char *inventory_path = NULL, *image_path = NULL;
  pid_t pid = 0;
  unsigned long ticks = 0;
  for (int i = 0; i < count; i += 2) {
    const char *name = arguments[i];
    if (i + 1 >= count) refuse("option \"%s\" has no value", name);
    char *value = arguments[i + 1];
    if (!strcmp(name, "--pid")) pid = (pid_t)parse_number(name, value, 2, 0x7fffffff);
    else if (!strcmp(name, "--start-ticks")) ticks = parse_number(name, value, 0, ~0ul - 1);
    else if (!strcmp(name, "--inventory")) inventory_path = value;
    else if (!strcmp(name, "--image")) image_path = value;
    else refuse("unknown option \"%s\"", name);
  }
  if (!pid || !ticks || !inventory_path || !image_path)
    refuse("--pid, --start-ticks, --inventory and --image are needed");
  static struct frozen_tables tables;
  static struct inventory inventory;
  inventory_read(&inventory, inventory_path);
  int image = open(image_path, O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
  struct statvfs place;
  if (image < 0 || fstatvfs(image, &place)) fail("make \"%s\"", image_path);
  if (place.f_flag & ST_NOEXEC) refuse("\"%s\" lies where nothing may be executed", image_path);
  layout(&tables.header);
  descriptors_settle(pid, &inventory);
  threads_freeze(&tables, pid);
  errno = ESRCH;
  if (process_start_ticks(pid) != ticks) fail("find the monitor %d", pid);
  descriptors_freeze(&tables, pid, &inventory);
  memory_freeze(&tables, pid, &inventory, image, tables.header.tables_end);
  write_tables(image, &tables);
  return 0;
}
