// The parts of `hyperjail freeze`; freeze.c puts them together.
#ifndef FREEZE_H
#define FREEZE_H

#include <stdbool.h>
#include <sys/types.h>

#include "frozen.h"
#include "hyperjail.h"

struct frozen_tables {
  struct frozen_header header;
  struct frozen_segment segments[FROZEN_SEGMENTS_MAX];
  struct frozen_file files[FROZEN_FILES_MAX];
  struct frozen_descriptor descriptors[FROZEN_DESCRIPTORS_MAX];
  struct frozen_watch watches[FROZEN_WATCHES_MAX];
  struct frozen_action actions[FROZEN_SIGNALS];
  struct frozen_thread threads[FROZEN_THREADS_MAX];
};

// What the monitor inherited, as the jail wrote it down: device and inode of each target.
struct inventory {
  struct {
    int target;
    dev_t device;
    ino_t inode;
  } items[DESCRIPTORS_MAX];
  size_t count;
};

// freeze-threads.c. Stops every thread in a system call and describes it; the process stays stopped
// until this program ends.
void threads_freeze(struct frozen_tables *t, pid_t pid);

// freeze-memory.c. Writes the pages from `offset` on.
void memory_freeze(struct frozen_tables *t, pid_t pid, const struct inventory *inventory, int image,
                   uint64_t offset);

// freeze-descriptors.c
void descriptors_settle(pid_t pid, const struct inventory *inventory);
void descriptors_freeze(struct frozen_tables *t, pid_t pid, const struct inventory *inventory);
int inventory_find(const struct inventory *inventory, dev_t device, ino_t inode);

#endif
