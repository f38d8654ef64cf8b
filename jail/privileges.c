#define _GNU_SOURCE
#include "hyperjail.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

// Never above the hard limit: raising it takes CAP_SYS_RESOURCE, which a container may lack.
static void limit(int resource, rlim_t wanted) {
  struct rlimit now;
  if (getrlimit(resource, &now)) fail("read a resource limit");
  if (wanted > now.rlim_max) wanted = now.rlim_max;
  if (setrlimit(resource, &(struct rlimit){wanted, wanted})) fail("set a resource limit");
}

void limits_set(unsigned long file_count_max) {
  limit(RLIMIT_NOFILE, file_count_max);
  // A core would hold the tenant's memory. Too small for a file; and only 1, not 0, keeps the kernel
  // from starting a handler that core_pattern names.
  limit(RLIMIT_CORE, 1);
}

// The bounding set can be shrunk only while CAP_SETPCAP is there: before the user changes.
static void bounding_set_keep(unsigned long long mask) {
  for (int capability = 0; capability < 64; capability++) {
    if (mask >> capability & 1) continue;
    if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) && errno != EINVAL)
      fail("drop capability %d from the bounding set", capability);
  }
}

static void capabilities_set(unsigned long long mask) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct data[2] = {
      {(unsigned)mask, (unsigned)mask, 0},
      {(unsigned)(mask >> 32), (unsigned)(mask >> 32), 0},
  };
  if (syscall(SYS_capset, &header, data)) fail("set capabilities");
}

void capabilities_keep(unsigned long long mask) {
  bounding_set_keep(mask);
  capabilities_set(mask);
}

void privileges_drop(uid_t uid) {
  if (setgroups(0, NULL)) fail("drop supplementary groups");
  bounding_set_keep(0);
  if (setresgid(uid, uid, uid)) fail("become group %u", uid);
  if (setresuid(uid, uid, uid)) fail("become user %u", uid);
  capabilities_set(0);
  if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)) fail("forbid new privileges");
}
