#define _GNU_SOURCE
#include "freeze.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "hyperjail.h"

#define PAGE FROZEN_PAGE
// Of /proc/PID/pagemap (Documentation/admin-guide/mm/pagemap.rst).
#define IS_PRESENT (1ull << 63)
#define IS_SWAPPED (1ull << 62)
#define IS_OF_FILE (1ull << 61)
// Pages between two that were written which are taken with them: a mapping more costs more.
#define GAP_PAGES 32
#define CHUNK_PAGES 256
// Of the page map, read at once.
#define ENTRIES 4096ul
// What the kernel would let a stack grow to; the room is there, for nothing else is put below one.
#define STACK_BYTES (8ul << 20)

struct mapping {
  uint64_t start, end, offset;
  char permissions[5];
  unsigned long inode;
  char path[FROZEN_PATH_MAX];
  bool is_stack;
};

struct writer {
  struct frozen_tables *tables;
  pid_t pid;
  int memory, pagemap, image;
  uint64_t offset;
};

static void add(struct frozen_tables *t, struct frozen_segment s) {
  if (t->header.segments_count == FROZEN_SEGMENTS_MAX)
    refuse("more than %d segments of memory", FROZEN_SEGMENTS_MAX);
  t->segments[t->header.segments_count++] = s;
}

static uint32_t protection(const struct mapping *m) {
  return (m->permissions[0] == 'r' ? PROT_READ : 0) | (m->permissions[1] == 'w' ? PROT_WRITE : 0) |
         (m->permissions[2] == 'x' ? PROT_EXEC : 0);
}

static bool is_zero(const unsigned char *page) {
  return page[0] == 0 && !memcmp(page, page + 1, PAGE - 1);
}

// Zero pages become holes.
static void write_pages(struct writer *w, uint64_t start, uint64_t end) {
  static unsigned char bytes[CHUNK_PAGES * PAGE];
  for (uint64_t at = start; at < end;) {
    size_t size = end - at < sizeof bytes ? end - at : sizeof bytes;
    if (pread(w->memory, bytes, size, (off_t)at) != (ssize_t)size) fail("read the monitor's memory");
    for (size_t i = 0; i < size; i += PAGE)
      if (!is_zero(bytes + i) &&
          pwrite(w->image, bytes + i, PAGE, (off_t)(w->offset + at - start + i)) != (ssize_t)PAGE)
        fail("write the frozen monitor");
    at += size;
  }
}

static void add_run(struct writer *w, const struct mapping *m, uint64_t start, uint64_t end) {
  write_pages(w, start, end);
  add(w->tables, (struct frozen_segment){.start = start, .length = end - start, .offset = w->offset,
                                         .protection = protection(m),
                                         .kind = m->is_stack ? SEGMENT_COPY : SEGMENT_PAGES});
  w->offset += end - start;
}

// What is in no page that the process has written is as `base` says.
static void freeze_private(struct writer *w, const struct mapping *m, struct frozen_segment base) {
  static uint64_t entries[ENTRIES];
  uint64_t run_start = 0, run_end = 0;
  add(w->tables, base);
  for (uint64_t at = m->start; at < m->end;) {
    size_t count = (m->end - at) / PAGE < ENTRIES ? (m->end - at) / PAGE : ENTRIES;
    if (pread(w->pagemap, entries, 8 * count, (off_t)(at / PAGE * 8)) != (ssize_t)(8 * count))
      fail("read the page map of %d", w->pid);
    for (size_t i = 0; i < count; i++, at += PAGE) {
      if (!(entries[i] & (IS_PRESENT | IS_SWAPPED)) || entries[i] & IS_OF_FILE) continue;
      if (run_end && at - run_end > GAP_PAGES * PAGE) {
        add_run(w, m, run_start, run_end);
        run_end = 0;
      }
      if (!run_end) run_start = at;
      run_end = at + PAGE;
    }
  }
  if (run_end) add_run(w, m, run_start, run_end);
}

// What /proc/PID/maps says of the device is not what stat says of it, with overlays for one.
static struct stat examine(const struct writer *w, const struct mapping *m) {
  char path[96];
  snprintf(path, sizeof path, "/proc/%d/map_files/%lx-%lx", w->pid, m->start, m->end);
  struct stat status;
  if (stat(path, &status)) fail("examine \"%s\"", path);
  return status;
}

static uint32_t file_index(struct writer *w, const struct mapping *m, const struct stat *status) {
  struct frozen_header *h = &w->tables->header;
  for (uint32_t i = 0; i < h->files_count; i++)
    if (!strcmp(w->tables->files[i].path, m->path)) return i;
  if (h->files_count == FROZEN_FILES_MAX) refuse("more than %d mapped files", FROZEN_FILES_MAX);
  struct frozen_file *f = &w->tables->files[h->files_count];
  strcpy(f->path, m->path);
  f->device = status->st_dev;
  f->inode = status->st_ino;
  f->size = (uint64_t)status->st_size;
  f->modified_ns =
      (uint64_t)status->st_mtim.tv_sec * 1000000000u + (uint64_t)status->st_mtim.tv_nsec;
  return h->files_count++;
}

static void add_special(struct frozen_header *h, const struct mapping *m) {
  if (h->specials_count == FROZEN_SPECIALS_MAX) refuse("more pages of the kernel's than expected");
  h->specials[h->specials_count++] = (struct frozen_range){m->start, m->end - m->start};
}

static void freeze_mapping(struct writer *w, const struct mapping *m,
                           const struct inventory *inventory) {
  struct frozen_segment s = {.start = m->start, .length = m->end - m->start, .offset = m->offset,
                             .protection = protection(m), .kind = SEGMENT_ANONYMOUS};
  if (!strcmp(m->path, "[vsyscall]")) return;
  if (!strncmp(m->path, "[vvar", 5) || !strcmp(m->path, "[vdso]"))
    return add_special(&w->tables->header, m);
  if (m->inode) {
    struct stat status = examine(w, m);
    if (inventory_find(inventory, status.st_dev, status.st_ino) >= 0) {
      s.kind = SEGMENT_GUEST;
      return add(w->tables, s);
    }
    s.kind = SEGMENT_FILE;
    s.file = file_index(w, m, &status);
  }
  if (m->permissions[3] != 'p') refuse("the monitor shares the memory \"%s\"", m->path);
  if (m->is_stack) {
    s.start = m->end - STACK_BYTES;
    s.length = STACK_BYTES;
  }
  freeze_private(w, m, s);
}

static bool parse(char *line, struct mapping *m) {
  int at = 0;
  line[strcspn(line, "\n")] = 0;
  if (sscanf(line, "%lx-%lx %4s %lx %*s %lu %n", &m->start, &m->end, m->permissions, &m->offset,
             &m->inode, &at) < 5)
    return false;
  if (strlen(line + at) >= sizeof m->path) return false;
  strcpy(m->path, line + at);
  m->is_stack = !strcmp(m->path, "[stack]");
  return true;
}

static int open_of(pid_t pid, const char *name, int flags) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/%s", pid, name);
  int fd = open(path, flags | O_CLOEXEC);
  if (fd < 0) fail("open \"%s\"", path);
  return fd;
}

void memory_freeze(struct frozen_tables *t, pid_t pid, const struct inventory *inventory, int image,
                   uint64_t offset) {
  struct writer w = {t, pid, open_of(pid, "mem", O_RDONLY), open_of(pid, "pagemap", O_RDONLY),
                     image, offset};
  char path[64], line[512];
  snprintf(path, sizeof path, "/proc/%d/maps", pid);
  FILE *maps = fopen(path, "re");
  if (!maps) fail("open \"%s\"", path);
  while (fgets(line, sizeof line, maps)) {
    struct mapping m;
    if (!parse(line, &m)) refuse("a mapping is not understood: %s", line);
    if (m.start < THAW_END) refuse("the monitor has memory at %lx", m.start);
    freeze_mapping(&w, &m, inventory);
  }
  fclose(maps);
  if (ftruncate(image, (off_t)w.offset)) fail("set the size of the frozen monitor");
}
