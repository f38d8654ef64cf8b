/* Control groups (v2): /sys/fs/cgroup/pod/<place of a container>. */
#ifndef HYPERSTART_CGROUP_H
#define HYPERSTART_CGROUP_H

#include <stdbool.h>
#include <stdint.h>

struct resources {
  /* 0: no limit. */
  int64_t cpu_millis;
  int64_t cpu_weight_millis;
  int64_t memory_bytes;
};

void cgroup_init(void);
/* Without limits. False with errno. */
bool cgroup_create(const char *id);
/* The first limits of one that was created. */
bool cgroup_limit(const char *id, const struct resources *resources, char *error, unsigned size);
/* Other limits for a container that runs; false, and nothing changed, where it uses more. */
bool cgroup_resize(const char *id, const struct resources *resources, char *error, unsigned size);
/* For writing "0" by a new process; -1 with errno. */
int cgroup_open_processes(const char *id);
void cgroup_kill(const char *id);
bool cgroup_is_empty(const char *id);
void cgroup_remove(const char *id);
/* How often the kernel killed something in it for want of memory. */
int64_t cgroup_oom_kills(const char *id);
/* `id` NULL: all containers together. */
int64_t cgroup_cpu_nanos(const char *id);
int64_t cgroup_memory_bytes(const char *id);

#endif
