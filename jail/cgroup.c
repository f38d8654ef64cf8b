#include "hyperjail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

// Which hierarchies there are and what is set in them is the caller's business; version 1 and 2
// differ in names only: a directory is made, files in it are written, a PID goes to cgroup.procs.
void cgroup_create(const struct options *o) {
  for (size_t i = 0; i < o->cgroup_count; i++)
    if (mkdir(o->cgroups[i], 0755) && errno != EEXIST)
      fail("make control group \"%s\"", o->cgroups[i]);
  for (size_t i = 0; i < o->setting_count; i++)
    write_text(o->settings[i].file, o->settings[i].value);
}

static void enter(const char *cgroup, pid_t pid) {
  char path[TEXT_MAX + 16], text[16];
  snprintf(path, sizeof path, "%s/cgroup.procs", cgroup);
  snprintf(text, sizeof text, "%d", pid);
  write_text(path, text);
}

void cgroup_enter(const struct options *o, pid_t pid) {
  for (size_t i = 0; i < o->cgroup_count; i++) enter(o->cgroups[i], pid);
  for (size_t i = 0; i < o->keeper_cgroup_count; i++) enter(o->keeper_cgroups[i], getpid());
}

// A group is busy for a moment after its last process was reaped.
#define REMOVE_ATTEMPTS 400
#define REMOVE_PAUSE_NS 5000000

void cgroup_remove(const struct options *o) {
  for (size_t i = 0; i < o->cgroup_count; i++) {
    for (int attempt = 0; attempt < REMOVE_ATTEMPTS; attempt++) {
      if (!rmdir(o->cgroups[i]) || errno != EBUSY) break;
      nanosleep(&(struct timespec){0, REMOVE_PAUSE_NS}, NULL);
    }
  }
}
