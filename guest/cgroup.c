#include "cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "limits.h"
#include "util.h"

#define ROOT "/sys/fs/cgroup"
#define POD ROOT "/pod"

static int64_t number_after(const char *text, const char *key) {
  const char *found = strstr(text, key);
  return found ? strtoll(found + strlen(key), NULL, 10) : 0;
}

/* Of the pod without an id; a container that has no group yet has an empty one. */
static bool group_path(char *path, size_t size, const char *id, const char *file) {
  if (id && !*id) return false;
  return id ? format_path(path, size, POD "/%s/%s", id, file)
            : format_path(path, size, POD "/%s", file);
}

static int group_write(const char *id, const char *file, const char *text) {
  char path[256];
  if (!group_path(path, sizeof path, id, file)) return -1;
  return write_file(path, text);
}

static bool group_read(const char *id, const char *file, char *text, size_t size) {
  char path[256];
  return group_path(path, sizeof path, id, file) && read_file(path, text, size) >= 0;
}

/* What all containers may use together leaves PID 1 room to work whatever they do. */
static void limit_pod(void) {
  char text[4096], number[32];
  if (read_file("/proc/meminfo", text, sizeof text) > 0) {
    uint64_t available = (uint64_t)number_after(text, "MemAvailable:") * 1024;
    uint64_t floor = MEMORY_RESERVE_BYTES;
    uint64_t limit = available > 2 * floor ? available - floor : available / 2;
    snprintf(number, sizeof number, "%llu", (unsigned long long)limit);
    group_write(NULL, "memory.max", number);
  }
  if (read_file("/proc/sys/kernel/threads-max", text, sizeof text) > 0) {
    long limit = atol(text) - PROCESS_RESERVE;
    snprintf(number, sizeof number, "%ld", limit > 16 ? limit : 16);
    group_write(NULL, "pids.max", number);
  }
}

void cgroup_init(void) {
  if (mount("cgroup2", ROOT, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
    fatal("cgroup2: %s", strerror(errno));
  if (write_file(ROOT "/cgroup.subtree_control", "+cpu +memory +pids") < 0)
    note("cgroup controllers: %s", strerror(errno));
  if (mkdir(POD, 0755) < 0) fatal("cgroup: %s", strerror(errno));
  write_file(POD "/cgroup.subtree_control", "+cpu +memory +pids");
  limit_pod();
}

/* Kubernetes' conversion from shares (2 to 262144) to weight (1 to 10000). */
static int64_t cpu_weight(int64_t millis) {
  int64_t shares = millis * 1024 / 1000;
  if (shares < 2) shares = 2;
  if (shares > 262144) shares = 262144;
  return 1 + (shares - 2) * 9999 / 262142;
}

static void format_limit(char *text, size_t size, int64_t limit) {
  if (limit > 0)
    snprintf(text, size, "%lld", (long long)limit);
  else
    snprintf(text, size, "max");
}

static bool write_limits(const char *id, const struct resources *resources) {
  char number[32], text[64];
  int64_t quota = resources->cpu_millis * 100;
  format_limit(number, sizeof number, resources->memory_bytes);
  if (group_write(id, "memory.max", number) < 0) return false;
  format_limit(number, sizeof number, quota > 0 && quota < 1000 ? 1000 : quota);
  snprintf(text, sizeof text, "%s 100000", number);
  if (group_write(id, "cpu.max", text) < 0) return false;
  snprintf(text, sizeof text, "%lld", (long long)cpu_weight(resources->cpu_weight_millis));
  return group_write(id, "cpu.weight", text) == 0;
}

/* The kernel kills for a limit below what is used, so such a one is not set. */
bool cgroup_resize(const char *id, const struct resources *resources, char *error, unsigned size) {
  int64_t used = cgroup_memory_bytes(id);
  if (resources->memory_bytes > 0 && used > resources->memory_bytes) {
    snprintf(error, size, "memory limit %lld is below the %lld bytes in use",
             (long long)resources->memory_bytes, (long long)used);
    return false;
  }
  return cgroup_limit(id, resources, error, size);
}

bool cgroup_create(const char *id) {
  char path[256];
  if (!format_path(path, sizeof path, POD "/%s", id)) return false;
  if (mkdir(path, 0755) < 0) return false;
  /* As the kubelet sets it: a container whose memory ran out ends as a whole. */
  return group_write(id, "memory.oom.group", "1") == 0;
}

bool cgroup_limit(const char *id, const struct resources *resources, char *error, unsigned size) {
  if (write_limits(id, resources)) return true;
  snprintf(error, size, "cgroup: %s", strerror(errno));
  return false;
}

int cgroup_open_processes(const char *id) {
  char path[256];
  if (!group_path(path, sizeof path, id, "cgroup.procs")) return -1;
  return open(path, O_WRONLY | O_CLOEXEC);
}

void cgroup_kill(const char *id) { group_write(id, "cgroup.kill", "1"); }

bool cgroup_is_empty(const char *id) {
  char text[256];
  return !group_read(id, "cgroup.events", text, sizeof text) || strstr(text, "populated 0");
}

void cgroup_remove(const char *id) {
  char path[256];
  if (format_path(path, sizeof path, POD "/%s", id)) rmdir(path);
}

int64_t cgroup_oom_kills(const char *id) {
  char text[512];
  return group_read(id, "memory.events", text, sizeof text) ? number_after(text, "oom_kill ") : 0;
}

int64_t cgroup_cpu_nanos(const char *id) {
  char text[1024];
  return group_read(id, "cpu.stat", text, sizeof text) ? number_after(text, "usage_usec ") * 1000
                                                       : 0;
}

/* Kubernetes' working set: what is used without the page cache that can go at any time. */
int64_t cgroup_memory_bytes(const char *id) {
  char text[8192];
  if (!group_read(id, "memory.current", text, sizeof text)) return 0;
  int64_t used = strtoll(text, NULL, 10);
  if (!group_read(id, "memory.stat", text, sizeof text)) return used;
  int64_t inactive = number_after(text, "inactive_file ");
  return used > inactive ? used - inactive : 0;
}
