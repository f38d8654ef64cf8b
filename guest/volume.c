#include "volume.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "limits.h"
#include "util.h"

static bool complain(char *error, size_t size, const char *volume) {
  snprintf(error, size, "volume \"%s\": %s", volume, strerror(errno));
  return false;
}

static bool volume_path(char *path, size_t size, const char *name) {
  return name_is_valid(name, VOLUME_NAME_BYTES_MAX) &&
         format_path(path, size, "%s/volume/%s", state_root, name);
}

static bool is_mount_point(const char *path) {
  struct stat here, parent;
  char above[PATH_BYTES_MAX];
  if (!format_path(above, sizeof above, "%s/..", path)) return false;
  return stat(path, &here) == 0 && stat(above, &parent) == 0 && here.st_dev != parent.st_dev;
}

static bool mount_memory(const char *path, int64_t limit_mib) {
  char options[64];
  if (test_mode || is_mount_point(path)) return true;
  if (limit_mib > 0)
    snprintf(options, sizeof options, "mode=1777,size=%lldm", (long long)limit_mib);
  else
    snprintf(options, sizeof options, "mode=1777");
  return mount("tmpfs", path, "tmpfs", MS_NODEV | MS_NOSUID, options) == 0;
}

static bool bind_scratch(const char *path, const char *name) {
  char source[PATH_BYTES_MAX];
  if (test_mode || is_mount_point(path)) return true;
  if (!format_path(source, sizeof source, "/scratch/volumes/%s", name)) return false;
  if (mkdir(source, 0777) < 0 && errno != EEXIST) return false;
  return chmod(source, 0777) == 0 && mount(source, path, NULL, MS_BIND, NULL) == 0;
}

bool volume_create(const struct json *volume, char *error, size_t size) {
  char path[PATH_BYTES_MAX];
  const char *name = json_text(volume, "name", ""), *type = json_text(volume, "type", "");
  if (!volume_path(path, sizeof path, name)) {
    snprintf(error, size, "volume: bad name \"%.100s\"", name);
    return false;
  }
  if (mkdir(path, 0755) < 0 && errno != EEXIST) return complain(error, size, name);
  bool ok = true;
  if (!strcmp(type, "scratch")) {
    ok = bind_scratch(path, name);
  } else if (!strcmp(type, "memory")) {
    ok = mount_memory(path, json_number(volume, "sizeLimitMib", 0));
  } else if (strcmp(type, "files")) {
    snprintf(error, size, "volume \"%s\": unknown type \"%.40s\"", name, type);
    return false;
  }
  return ok ? true : complain(error, size, name);
}

void volumes_remove(void) {
  char path[PATH_BYTES_MAX];
  DIR *list = format_path(path, sizeof path, "%s/volume", state_root) ? opendir(path) : NULL;
  for (struct dirent *entry; list && (entry = readdir(list));)
    if (volume_path(path, sizeof path, entry->d_name)) remove_tree(path);
  if (list) closedir(list);
}

static bool refuse(struct request *request, const char *what) {
  respond_error(request, "Invalid", 0, "%s: \"%.100s\" of volume \"%.100s\": %s", what,
                json_text(request->json, "path", ""), json_text(request->json, "volume", ""),
                strerror(errno));
  return false;
}

/* Opens the volume and names the directory of the version. False: refused. */
static bool open_version(struct request *request, int *volume, char *version, size_t size) {
  char path[PATH_BYTES_MAX];
  *volume = -1;
  errno = ENOENT;
  if (volume_path(path, sizeof path, json_text(request->json, "volume", "")))
    *volume = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  if (*volume < 0) {
    respond_error(request, "NotFound", 0, "volume \"%.100s\" does not exist",
                  json_text(request->json, "volume", ""));
    return false;
  }
  snprintf(version, size, "..v%lld", (long long)json_number(request->json, "version", 0));
  return true;
}

static int64_t current_version(int volume) {
  char target[64];
  long long version;
  ssize_t length = readlinkat(volume, "..data", target, sizeof target - 1);
  if (length < 0) return -1;
  target[length] = 0;
  return sscanf(target, "..v%lld", &version) == 1 ? version : -1;
}

/* Whether the volume has what the request is to bring, or newer. */
static bool is_current(int volume, const struct request *request) {
  return current_version(volume) >= json_number(request->json, "version", 0);
}

static void remove_at(int directory, const char *name) {
  char path[64 + 256];
  if (format_path(path, sizeof path, "/proc/self/fd/%d/%s", directory, name)) remove_tree(path);
}

void volume_begin(struct request *request) {
  int volume;
  char version[32];
  if (!open_version(request, &volume, version, sizeof version)) return;
  if (is_current(volume, request)) {
    respond_ok(request, NULL);
    close(volume);
    return;
  }
  bool made = mkdirat(volume, version, 0755) == 0;
  if (!made && errno == EEXIST) {
    remove_at(volume, version);
    made = mkdirat(volume, version, 0755) == 0;
  }
  if (made)
    respond_ok(request, NULL);
  else
    refuse(request, "cannot begin version");
  close(volume);
}

/* Relative, without empty, "." or ".." parts, and no first part that begins with "..". */
static bool file_path_is_valid(const char *path) {
  if (!*path || strlen(path) >= PATH_BYTES_MAX || !strncmp(path, "..", 2)) return false;
  for (const char *part = path;; part++) {
    size_t length = strcspn(part, "/");
    if (!length || length > 255 || !strncmp(part, "./", 2) || !strcmp(part, ".") ||
        !strncmp(part, "../", 3) || !strcmp(part, ".."))
      return false;
    part += length;
    if (!*part) return true;
  }
}

static bool make_parents(int directory, const char *path) {
  char copy[PATH_BYTES_MAX];
  snprintf(copy, sizeof copy, "%s", path);
  for (char *slash = strchr(copy, '/'); slash; slash = strchr(slash + 1, '/')) {
    *slash = 0;
    if (mkdirat(directory, copy, 0755) < 0 && errno != EEXIST) return false;
    *slash = '/';
  }
  return true;
}

static bool write_part(int fd, const struct request *request) {
  const struct json *json = request->json;
  off_t offset = (off_t)json_number(json, "offset", 0);
  size_t done = 0;
  while (done < request->attachment_length) {
    ssize_t count = pwrite(fd, request->attachment + done, request->attachment_length - done,
                           offset + (off_t)done);
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) return false;
    done += (size_t)count;
  }
  int64_t uid = json_number(json, "uid", -1), gid = json_number(json, "gid", -1);
  if ((uid >= 0 || gid >= 0) && fchown(fd, (uid_t)uid, (gid_t)gid) < 0) return false;
  return fchmod(fd, (mode_t)json_number(json, "mode", 0644) & 07777) == 0;
}

void volume_file(struct request *request) {
  int volume, directory = -1, file = -1;
  char version[32];
  const char *path = json_text(request->json, "path", "");
  if (!open_version(request, &volume, version, sizeof version)) return;
  if (is_current(volume, request)) {
    respond_ok(request, NULL);
    close(volume);
    return;
  }
  errno = EINVAL;
  bool ok = file_path_is_valid(path) && json_number(request->json, "offset", 0) >= 0;
  if (ok) directory = open_beneath(volume, version, O_RDONLY | O_DIRECTORY);
  ok = ok && directory >= 0 && make_parents(directory, path);
  /* The directory is not linked yet, so nobody can have put anything into it. */
  int flags = O_WRONLY | O_CREAT | O_NOFOLLOW | O_CLOEXEC;
  if (ok) file = openat(directory, path, flags, 0600);
  ok = ok && file >= 0 && write_part(file, request);
  if (ok)
    respond_ok(request, NULL);
  else
    refuse(request, "cannot write");
  /* What follows may be on its way already: without this file there is no such version. */
  if (!ok) remove_at(volume, version);
  if (file >= 0) close(file);
  if (directory >= 0) close(directory);
  close(volume);
}

static bool replace_link(int volume, const char *target, const char *name) {
  char present[PATH_BYTES_MAX];
  if (symlinkat(target, volume, name) == 0) return true;
  if (errno != EEXIST) return false;
  ssize_t length = readlinkat(volume, name, present, sizeof present - 1);
  if (length >= 0) {
    present[length] = 0;
    if (!strcmp(present, target)) return true;
  }
  unlinkat(volume, "..link", 0);
  if (symlinkat(target, volume, "..link") < 0) return false;
  return renameat(volume, "..link", volume, name) == 0;
}

/* Makes a link for every name of the new version, and removes what is neither it nor a link. */
static bool link_names(int volume, const char *version) {
  int directory = openat(volume, version, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
  DIR *list = directory < 0 ? NULL : fdopendir(directory);
  bool ok = list != NULL;
  for (struct dirent *entry; ok && (entry = readdir(list));) {
    char target[300];
    if (!strcmp(entry->d_name, ".") || !strcmp(entry->d_name, "..")) continue;
    ok = format_path(target, sizeof target, "..data/%s", entry->d_name) &&
         replace_link(volume, target, entry->d_name);
  }
  if (list)
    closedir(list);
  else if (directory >= 0)
    close(directory);
  return ok;
}

static void remove_stale(int volume, const char *version) {
  int copy = openat(volume, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  DIR *list = copy < 0 ? NULL : fdopendir(copy);
  for (struct dirent *entry; list && (entry = readdir(list));) {
    const char *name = entry->d_name;
    char path[300];
    if (!strcmp(name, ".") || !strcmp(name, "..") || !strcmp(name, "..data")) continue;
    if (!strcmp(name, version)) continue;
    bool stale = !strncmp(name, "..v", 3);
    if (!stale && format_path(path, sizeof path, "%s/%s", version, name))
      stale = faccessat(volume, path, F_OK, AT_SYMLINK_NOFOLLOW) < 0;
    if (stale) remove_at(volume, name);
  }
  if (list) closedir(list);
}

void volume_commit(struct request *request) {
  int volume;
  char version[32];
  if (!open_version(request, &volume, version, sizeof version)) return;
  bool ok = true;
  if (!is_current(volume, request)) {
    ok = faccessat(volume, version, F_OK, AT_SYMLINK_NOFOLLOW) == 0 &&
         replace_link(volume, version, "..data") && link_names(volume, version);
    if (ok) remove_stale(volume, version);
  }
  if (ok)
    respond_ok(request, NULL);
  else
    refuse(request, "cannot commit version");
  close(volume);
}
