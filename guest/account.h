/* Users and groups, as the image's /etc/passwd and /etc/group tell them. */
#ifndef HYPERSTART_ACCOUNT_H
#define HYPERSTART_ACCOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "limits.h"

struct account {
  uid_t uid;
  gid_t gid;
  char home[PATH_BYTES_MAX];
  gid_t groups[GROUPS_MAX];
  int group_count;
};

/*
 * `user` is "", a uid, a name, or either of them with ":" and a gid or group name. `root` is a
 * descriptor of the container's root. False: `error` has the words that container runtimes use.
 */
bool account_find(int root, const char *user, struct account *account, char *error, size_t size);
bool account_add_group(struct account *account, gid_t gid);

#endif
