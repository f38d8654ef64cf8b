#include "hyperjail.h"

#include <string.h>

// The value of an option is split in place: "12:ro:/path" and "/sys/file:8:0 rbps=1" by their first
// colons, a pair of paths by its last, since what we choose ourselves has none.
static char *split_at(char *colon, const char *text, const char *option) {
  if (!colon) refuse("%s \"%s\" has no \":\"", option, text);
  *colon = 0;
  return colon + 1;
}

static char *split(char *text, const char *option) {
  return split_at(strchr(text, ':'), text, option);
}

static char *split_last(char *text, const char *option) {
  return split_at(strrchr(text, ':'), text, option);
}

static const char *absolute(const char *option, const char *path) {
  if (path[0] != '/' || strlen(path) >= TEXT_MAX || strstr(path, "/../"))
    refuse("%s \"%s\" is not an absolute path without \"..\"", option, path);
  return path;
}

static struct descriptor *add_descriptor(struct options *o, const char *option, const char *target,
                                         enum descriptor_kind kind) {
  if (o->descriptor_count == DESCRIPTORS_MAX)
    refuse("more than %d inherited descriptors", DESCRIPTORS_MAX);
  struct descriptor *d = &o->descriptors[o->descriptor_count++];
  d->kind = kind;
  d->fd = -1;
  d->target = (int)parse_number(option, target, DESCRIPTOR_MIN, DESCRIPTOR_END - 1);
  for (size_t i = 0; i + 1 < o->descriptor_count; i++)
    if (o->descriptors[i].target == d->target) refuse("descriptor %d is given twice", d->target);
  return d;
}

// A name that stays in its directory: of a socket file or of a network device.
static const char *plain_name(const char *option, const char *name) {
  size_t length = strlen(name);
  if (!length || length > 40 || strchr(name, '/') || name[0] == '.')
    refuse("%s \"%s\" is not a plain name of 1 to 40 characters", option, name);
  return name;
}

void add_bind(struct options *o, const char *path, const char *target, bool executable) {
  if (o->bind_count == BINDS_MAX) refuse("more than %d binds", BINDS_MAX);
  o->binds[o->bind_count++] = (struct bind){path, target, executable};
}

static void parse_bind(struct options *o, const char *option, char *value, bool executable) {
  char *target = split_last(value, option);
  add_bind(o, absolute(option, value), absolute(option, target), executable);
}

static void add_path(const char **list, size_t *count, size_t max, const char *option,
                     const char *path) {
  if (*count == max) refuse("more than %zu of %s", max, option);
  list[(*count)++] = absolute(option, path);
}

static void parse_option(struct options *o, const char *name, char *value) {
  if (!strcmp(name, "--directory")) {
    o->directory = absolute(name, value);
  } else if (!strcmp(name, "--uid")) {
    o->uid = (uid_t)parse_number(name, value, UID_MIN, 0x7fffffff);
  } else if (!strcmp(name, "--files-max")) {
    o->file_count_max = parse_number(name, value, 64, 65536);
  } else if (!strcmp(name, "--bind")) {
    parse_bind(o, name, value, false);
  } else if (!strcmp(name, "--bind-executable")) {
    parse_bind(o, name, value, true);
  } else if (!strcmp(name, "--device")) {
    add_path(o->devices, &o->device_count, DEVICES_MAX, name, value);
  } else if (!strcmp(name, "--cgroup")) {
    add_path(o->cgroups, &o->cgroup_count, CGROUPS_MAX, name, value);
  } else if (!strcmp(name, "--keeper-cgroup")) {
    add_path(o->keeper_cgroups, &o->keeper_cgroup_count, CGROUPS_MAX, name, value);
  } else if (!strcmp(name, "--cgroup-set")) {
    if (o->setting_count == CGROUP_SETTINGS_MAX)
      refuse("more than %d of %s", CGROUP_SETTINGS_MAX, name);
    char *setting = split(value, name);
    o->settings[o->setting_count++] = (struct setting){absolute(name, value), setting};
  } else if (!strcmp(name, "--disk")) {
    char *mode = split(value, name);
    char *path = split(mode, name);
    bool writable = !strcmp(mode, "rw");
    if (!writable && strcmp(mode, "ro"))
      refuse("%s has the mode \"%s\", wanted ro or rw", name, mode);
    add_descriptor(o, name, value, writable ? DISK_WRITABLE : DISK_READ_ONLY)->path =
        absolute(name, path);
  } else if (!strcmp(name, "--listen")) {
    char *file = split(value, name);
    add_descriptor(o, name, value, LISTENING_SOCKET)->path = plain_name(name, file);
  } else if (!strcmp(name, "--tap")) {
    char *device = split(value, name);
    char *netns = split(device, name);
    struct descriptor *d = add_descriptor(o, name, value, TAP);
    d->path = plain_name(name, device);
    d->netns = absolute(name, netns);
  } else if (!strcmp(name, "--tap-nowhere")) {
    add_descriptor(o, name, value, TAP)->path = "tap0";
  } else if (!strcmp(name, "--inventory")) {
    o->inventory = plain_name(name, value);
  } else if (!strcmp(name, "--thaw")) {
    o->thaw = absolute(name, value);
  } else if (!strcmp(name, "--preload")) {
    o->preload = absolute(name, value);
  } else if (!strcmp(name, "--console")) {
    add_descriptor(o, name, value, CONSOLE);
  } else {
    refuse("unknown option \"%s\"", name);
  }
}

void parse_options(struct options *o, int count, char **arguments) {
  int i = 0;
  for (; i < count && strcmp(arguments[i], "--"); i += 2) {
    if (i + 1 >= count) refuse("option \"%s\" has no value", arguments[i]);
    parse_option(o, arguments[i], arguments[i + 1]);
  }
  if (i + 1 >= count) refuse("no program is given after \"--\"");
  o->program = arguments + i + 1;
  absolute("program", o->program[0]);
  if (!o->directory) refuse("--directory is missing");
  if (!o->uid) refuse("--uid is missing");
  if (!o->file_count_max) refuse("--files-max is missing");
}
