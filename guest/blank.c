#include "blank.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "pod.h"
#include "util.h"

/* The one that was made ahead, and what it was made as. */
static struct {
  bool there;
  struct blank blank;
  char *text;
  struct json_document plan;
} ahead;

static bool is_privileged(const struct json *spec) {
  return json_true(json_get(json_get(spec, "process"), "security"), "privileged");
}

/* A descriptor of PID 1's own mount namespace, in which volumes are found. */
static int home_namespace(void) {
  static int fd = -1;
  if (fd < 0) fd = open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
  return fd;
}

static bool blank_make(struct blank *blank, const struct json *plan, bool privileged, char *error,
                       size_t size) {
  char path[PATH_BYTES_MAX];
  if (!place_make(blank->place, error, size)) return false;
  snprintf(path, sizeof path, "/image/%s", json_text(plan, "imageSerial", ""));
  blank->spec_fd = memfd_create("spec", MFD_CLOEXEC);
  struct spawn spawn = {.place = blank->place,
                        .image = path,
                        .privileged = privileged,
                        .mount_paths = json_get(plan, "mountPaths"),
                        .spec_fd = blank->spec_fd,
                        .home_namespace = home_namespace()};
  unsigned long namespaces = CLONE_NEWNS | (pod_pause_pid() ? 0 : CLONE_NEWPID);
  if (blank->spec_fd >= 0 && spawn_process(&blank->process, &spawn, pod_pause_pid(), namespaces))
    return true;
  snprintf(error, size, "cannot make a process: %s", strerror(errno));
  if (blank->spec_fd >= 0) close(blank->spec_fd);
  place_remove(blank->place);
  return false;
}

/* No mount point that was made ahead would be seen in the container. */
static bool mounts_all(const struct json *spec, const struct json *plan) {
  const struct json *path = json_first(json_get(plan, "mountPaths"));
  for (; path; path = json_next(path)) {
    const struct json *mounted = json_first(json_get(spec, "mounts"));
    while (mounted && (!path->text || *json_text(mounted, "subPath", "") ||
                       strcmp(json_text(mounted, "path", ""), path->text)))
      mounted = json_next(mounted);
    if (!mounted) return false;
  }
  return true;
}

static void forget_plan(void) {
  ahead.there = false;
  json_free(&ahead.plan);
  free(ahead.text);
  ahead.text = NULL;
}

bool blank_take(struct blank *blank, const struct json *spec, char *error, size_t size) {
  const char *image = json_text(spec, "imageSerial", "");
  bool privileged = is_privileged(spec);
  const struct json *plan = ahead.plan.nodes;
  bool is_wanted = ahead.there && !strcmp(json_text(plan, "imageSerial", ""), image);
  if (is_wanted && !privileged && !pod_pause_pid() && mounts_all(spec, plan)) {
    *blank = ahead.blank;
    forget_plan();
    return true;
  }
  if (is_wanted) blank_discard();
  return blank_make(blank, spec, privileged, error, size);
}

void blank_abandon(struct blank *blank) {
  if (blank->process.pid > 0) kill(blank->process.pid, SIGKILL);
  spawned_close(&blank->process);
  close(blank->spec_fd);
}

void blank_tell(struct blank *blank, const struct request *request) {
  size_t length = request->text_length, done = 0;
  while (done < length) {
    ssize_t count = write(blank->spec_fd, request->text + done, length - done);
    if (count < 0) break;
    done += (size_t)count;
  }
  close(blank->spec_fd);
  /* One that has failed by itself has said so. */
  if (done < length || send(blank->process.status_fd, "", 1, MSG_NOSIGNAL) != 1)
    kill(blank->process.pid, SIGKILL);
}

/* It says so, or what went wrong. */
static bool await_whole(const struct blank *blank, char *error, size_t size) {
  struct status_message message;
  struct pollfd wait = {.fd = blank->process.status_fd, .events = POLLIN};
  if (poll(&wait, 1, BLANK_WAIT_MS) < 1) {
    snprintf(error, size, "blank container: not whole after %d ms", BLANK_WAIT_MS);
    return false;
  }
  ssize_t count = recv(wait.fd, &message, sizeof message, MSG_DONTWAIT);
  if (count == (ssize_t)sizeof message && message.exit_code == EXIT_NOT_YET) return true;
  snprintf(error, size, "blank container: %.400s", count > 0 ? message.text : "it has ended");
  return false;
}

bool blank_prepare(const struct request *plan, char *error, size_t size) {
  blank_discard();
  ahead.text = strndup(plan->text, plan->text_length);
  ahead.plan = (struct json_document){0};
  if (!ahead.text || !json_parse(&ahead.plan, ahead.text, plan->text_length)) {
    snprintf(error, size, "blank container: out of memory");
    forget_plan();
    return false;
  }
  if (!blank_make(&ahead.blank, ahead.plan.nodes, false, error, size)) {
    forget_plan();
    return false;
  }
  ahead.there = true;
  if (await_whole(&ahead.blank, error, size)) return true;
  blank_discard();
  return false;
}

void blank_discard(void) {
  if (!ahead.there) return;
  forget_plan();
  blank_abandon(&ahead.blank);
  place_remove(ahead.blank.place);
}

void blank_reaped(pid_t pid) {
  if (!ahead.there || ahead.blank.process.pid != pid) return;
  ahead.blank.process.pid = 0;
  blank_discard();
}
