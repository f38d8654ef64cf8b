#include "place.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "limits.h"
#include "util.h"

#define DIRECTORY "scratch/containers"

bool place_path(char *path, size_t size, const char *name, const char *part) {
  return format_path(path, size, "%s/" DIRECTORY "/%s/%s", state_root, name, part);
}

static bool make_files(const char *name) {
  static const char *const PARTS[] = {"", "upper", "work"};
  char path[PATH_BYTES_MAX];
  for (size_t i = 0; i < sizeof PARTS / sizeof *PARTS; i++)
    if (!place_path(path, sizeof path, name, PARTS[i]) || mkdir(path, 0755) < 0) return false;
  return place_path(path, sizeof path, name, "termination-log") &&
         write_file_mode(path, "", 0, 0666) == 0;
}

bool place_make(char name[PLACE_BYTES_MAX + 1], char *error, size_t size) {
  static unsigned count;
  snprintf(name, PLACE_BYTES_MAX + 1, "%u", count++);
  if (!make_files(name)) {
    snprintf(error, size, "cannot make its writable layer: %s", strerror(errno));
  } else if (!test_mode && !cgroup_create(name)) {
    snprintf(error, size, "cgroup: %s", strerror(errno));
  } else {
    return true;
  }
  place_remove(name);
  return false;
}

/* The container's writable layer can be deep and wide: PID 1 does not wait for its removal. */
void place_remove(const char *name) {
  char path[PATH_BYTES_MAX];
  if (!test_mode) cgroup_kill(name);
  pid_t pid = fork();
  if (pid > 0) return;
  if (place_path(path, sizeof path, name, "")) remove_tree(path);
  const struct timespec pause = {.tv_nsec = CGROUP_EMPTY_POLL_MS * 1000000};
  for (int i = 0; pid == 0 && !test_mode && i < CGROUP_EMPTY_POLLS; i++) {
    if (cgroup_is_empty(name)) break;
    nanosleep(&pause, NULL);
  }
  if (!test_mode) cgroup_remove(name);
  if (pid == 0) _exit(0);
}
