#include "account.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util.h"

struct fields {
  char *field[7];
  int count;
};

/* Splits a line at colons, in place. */
static struct fields split(char *line) {
  struct fields fields = {.count = 0};
  while (line && fields.count < 7) {
    char *colon = strchr(line, ':');
    if (colon) *colon = 0;
    fields.field[fields.count++] = line;
    line = colon ? colon + 1 : NULL;
  }
  return fields;
}

static bool parse_id(const char *text, uint32_t *id) {
  char *end;
  if (*text < '0' || *text > '9') return false;
  errno = 0;
  unsigned long value = strtoul(text, &end, 10);
  if (errno || *end || value > INT32_MAX) return false;
  *id = (uint32_t)value;
  return true;
}

static char *next_line(char **rest) {
  char *line = *rest;
  if (!line || !*line) return NULL;
  char *newline = strchr(line, '\n');
  if (newline) *newline = 0;
  *rest = newline ? newline + 1 : NULL;
  return line;
}

/* Sets `name` to the account's name where the file has one, "" otherwise. */
static bool find_user(char *passwd, const char *user, struct account *account, char *name,
                      size_t size) {
  uint32_t wanted, uid, gid;
  bool numeric = parse_id(user, &wanted);
  *name = 0;
  for (char *line; (line = next_line(&passwd));) {
    struct fields entry = split(line);
    if (entry.count < 6 || !parse_id(entry.field[2], &uid) || !parse_id(entry.field[3], &gid))
      continue;
    if (strcmp(entry.field[0], user) && !(numeric && uid == wanted)) continue;
    account->uid = uid;
    account->gid = gid;
    snprintf(name, size, "%s", entry.field[0]);
    if (*entry.field[5]) snprintf(account->home, sizeof account->home, "%s", entry.field[5]);
    return true;
  }
  if (numeric) account->uid = wanted;
  return numeric;
}

bool account_add_group(struct account *account, gid_t gid) {
  for (int i = 0; i < account->group_count; i++)
    if (account->groups[i] == gid) return true;
  if (account->group_count == GROUPS_MAX) return false;
  account->groups[account->group_count++] = gid;
  return true;
}

static bool is_member(char *members, const char *name) {
  size_t length = strlen(name);
  for (char *member = members; length && member; member = strchr(member, ',')) {
    if (*member == ',') member++;
    if (!strncmp(member, name, length) && (!member[length] || member[length] == ',')) return true;
  }
  return false;
}

/* Finds the wanted group; without one, collects those that `name` is a member of. */
static bool find_groups(char *group, const char *wanted, const char *name,
                        struct account *account) {
  uint32_t number, gid;
  bool numeric = wanted && parse_id(wanted, &number);
  for (char *line; (line = next_line(&group));) {
    struct fields entry = split(line);
    if (entry.count < 3 || !parse_id(entry.field[2], &gid)) continue;
    if (!wanted) {
      if (entry.count > 3 && is_member(entry.field[3], name)) account_add_group(account, gid);
    } else if (!strcmp(entry.field[0], wanted)) {
      account->gid = gid;
      return true;
    }
  }
  if (numeric) account->gid = number;
  return !wanted || numeric;
}

bool account_find(int root, const char *user, struct account *account, char *error, size_t size) {
  char copy[256], name[256];
  size_t length;
  memset(account, 0, sizeof *account);
  strcpy(account->home, "/");
  if (!format_path(copy, sizeof copy, "%s", *user ? user : "0")) {
    snprintf(error, size, "user: longer than %zu bytes", sizeof copy - 1);
    return false;
  }
  char *group = strchr(copy, ':');
  if (group) *group++ = 0;
  if (group && !*group) group = NULL;
  char *file = read_file_at(root, "/etc/passwd", ACCOUNT_FILE_BYTES_MAX, &length);
  bool found = find_user(file, *copy ? copy : "0", account, name, sizeof name);
  free(file);
  if (!found) {
    snprintf(error, size, "unable to find user %s: no matching entries in passwd file", copy);
    return false;
  }
  file = read_file_at(root, "/etc/group", ACCOUNT_FILE_BYTES_MAX, &length);
  found = find_groups(file, group, name, account);
  free(file);
  /* Also among the supplementary ones, or a program could shed it to pass a denial by group. */
  if (found) account_add_group(account, account->gid);
  if (!found)
    snprintf(error, size, "unable to find group %s: no matching entries in group file", group);
  return found;
}
