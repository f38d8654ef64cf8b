#include "container.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "blank.h"
#include "cgroup.h"
#include "disk.h"
#include "pod.h"
#include "prefetch.h"
#include "util.h"

static struct container containers[CONTAINERS_MAX];

static struct container *find_container(const char *id) {
  for (int i = 0; i < CONTAINERS_MAX; i++)
    if (containers[i].used && !strcmp(containers[i].id, id)) return &containers[i];
  return NULL;
}

const struct container *container_at(int index) {
  for (int i = 0; i < CONTAINERS_MAX; i++)
    if (containers[i].used && index-- == 0) return &containers[i];
  return NULL;
}

static struct container *new_container(const char *id) {
  for (int i = 0; i < CONTAINERS_MAX; i++) {
    struct container *container = &containers[i];
    if (container->used) continue;
    memset(container, 0, sizeof *container);
    container->used = true;
    snprintf(container->id, sizeof container->id, "%s", id);
    return container;
  }
  return NULL;
}

static void container_free(struct container *container) {
  timer_cancel(&container->disk_timer);
  if (container->request) request_free(container->request);
  if (*container->place) place_remove(container->place);
  if (container->removal) respond_ok(container->removal, NULL);
  memset(container, 0, sizeof *container);
}

void container_started(struct container *container) { container->phase = CONTAINER_RUNNING; }

void container_start_failed(struct container *container) { container_free(container); }

static void container_drop(struct container *container) {
  if (container->process) process_free(container->process);
  container_free(container);
}

void container_exited(struct container *container) {
  container->phase = CONTAINER_EXITED;
  if (container->removal) {
    container_drop(container);
    return;
  }
  if (test_mode) return;
  container->oom_killed = cgroup_oom_kills(container->place) > 0;
  /* In a shared PID namespace the others do not end with the first. */
  cgroup_kill(container->place);
}

/* 0: its disk is not there yet; 1: mounted; -1: failed. Shared by all containers of the image. */
static int mount_image(const struct json *spec, char *error, size_t size) {
  const char *serial = json_text(spec, "imageSerial", "");
  const char *type = json_text(spec, "imageFsType", "");
  char path[PATH_BYTES_MAX], device[64];
  struct stat here, parent;
  if (!name_is_valid(serial, SERIAL_BYTES_MAX) || (strcmp(type, "erofs") && strcmp(type, "ext4"))) {
    snprintf(error, size, "imageSerial or imageFsType: bad value");
    return -1;
  }
  snprintf(path, sizeof path, "/image/%s", serial);
  if (mkdir(path, 0755) < 0 && errno != EEXIST) goto failed;
  if (stat(path, &here) == 0 && stat("/image", &parent) == 0 && here.st_dev != parent.st_dev)
    return 1;
  if (!disk_find(serial, device, sizeof device)) return 0;
  if (mount(device, path, type, MS_RDONLY | MS_NODEV | MS_NOATIME, NULL) == 0) return 1;
failed:
  snprintf(error, size, "cannot mount the image \"%.40s\": %s", serial, strerror(errno));
  return -1;
}

static struct resources resources_of(const struct json *spec) {
  const struct json *resources = json_get(spec, "resources");
  return (struct resources){.cpu_millis = json_number(resources, "cpuMillis", 0),
                            .cpu_weight_millis = json_number(resources, "cpuWeightMillis", 0),
                            .memory_bytes = json_number(resources, "memoryBytes", 0)};
}

/* A container without its request: what only its place and its image decide is done. */
static bool take_blank(struct container *container, struct blank *blank, char *error, size_t size) {
  const struct json *spec = container->request->json;
  struct resources wanted = resources_of(spec);
  if (!blank_take(blank, spec, error, size)) return false;
  strcpy(container->place, blank->place);
  if (test_mode || cgroup_limit(container->place, &wanted, error, (unsigned)size)) return true;
  blank_abandon(blank);
  return false;
}

static void fail_start(struct container *container, const char *error) {
  respond_error(container->request, "StartError", EXIT_START_FAILED, "%s", error);
  container->request = NULL;
  container_free(container);
}

/* Starts it unless its disk is still missing. */
static void take_up(struct container *container) {
  char error[512] = "";
  struct blank blank;
  int mounted = test_mode ? 1 : mount_image(container->request->json, error, sizeof error);
  if (!mounted) return;
  timer_cancel(&container->disk_timer);
  if (mounted < 0 || !take_blank(container, &blank, error, sizeof error)) {
    fail_start(container, error);
    return;
  }
  struct request *request = container->request;
  container->request = NULL;
  container->phase = CONTAINER_STARTING;
  process_start(container, request, &blank);
}

static void disk_missing(struct timer *timer) {
  struct container *container =
      (struct container *)((char *)timer - offsetof(struct container, disk_timer));
  char error[128];
  snprintf(error, sizeof error, "imageSerial: no disk \"%.40s\" after %d ms",
           json_text(container->request->json, "imageSerial", ""), DISK_WAIT_MS);
  fail_start(container, error);
}

/* The host asked before, and may have lost the answer with its session. */
static void start_again(struct container *container, struct request *request) {
  char bytes[64];
  struct json_writer ok = {.bytes = bytes, .capacity = sizeof bytes};
  struct request **pending = container->request ? &container->request : NULL;
  if (container->phase == CONTAINER_STARTING) pending = &container->process->request;
  if (pending) {
    if (*pending) respond_error(*pending, "Invalid", 0, "startContainer: asked for again");
    *pending = request;
    return;
  }
  json_open(&ok, NULL, '{');
  json_put_number(&ok, "stream", container->process->stream);
  json_close(&ok, '}');
  respond_ok(request, &ok);
}

void container_start(struct request *request) {
  const char *id = json_text(request->json, "id", "");
  struct container *container = find_container(id);
  if (container) {
    start_again(container, request);
    return;
  }
  if (!name_is_valid(id, ID_BYTES_MAX)) {
    respond_error(request, "Invalid", 0, "id: \"%.100s\", wanted 1 to %d of [a-z0-9-]", id,
                  ID_BYTES_MAX);
  } else if (!pod_takes_containers()) {
    respond_error(request, "Invalid", 0, "startContainer: the pod is not set up yet");
  } else if (!(container = new_container(id))) {
    respond_error(request, "Invalid", 0, "startContainer: %d containers, which is the limit",
                  CONTAINERS_MAX);
  } else {
    container->request = request;
    timer_set(&container->disk_timer, DISK_WAIT_MS, disk_missing);
    take_up(container);
  }
}

void container_remove(struct request *request) {
  struct container *container = find_container(json_text(request->json, "id", ""));
  if (!container) {
    respond_ok(request, NULL);
    return;
  }
  struct process *process = container->process;
  if (container->removal)
    respond_error(container->removal, "Invalid", 0, "removeContainer: asked for again");
  container->removal = request;
  if (process && process->pid)
    kill(process->pid, SIGKILL);
  else if (container->phase == CONTAINER_WAITING)
    fail_start(container, "removed before it started");
  else
    container_drop(container);
}

void container_set_resources(struct request *request) {
  const char *id = json_text(request->json, "id", "");
  struct container *container = find_container(id);
  struct resources wanted = resources_of(request->json);
  char error[256];
  if (!container)
    respond_error(request, "NotFound", 0, "container \"%.100s\" does not exist", id);
  else if (wanted.cpu_millis < 0 || wanted.memory_bytes < 0)
    respond_error(request, "Invalid", 0, "resources: less than 0");
  else if (container->phase == CONTAINER_WAITING)
    respond_error(request, "Invalid", 0, "setResources: \"%s\" has not started", container->id);
  else if (!test_mode && !cgroup_resize(container->place, &wanted, error, sizeof error))
    respond_error(request, "Refused", 0, "%s", error);
  else
    respond_ok(request, NULL);
}

void container_exec(struct request *request) {
  const char *id = json_text(request->json, "id", "");
  struct container *container = find_container(id);
  if (!container)
    respond_error(request, "NotFound", 0, "container \"%.100s\" does not exist", id);
  else if (container->phase != CONTAINER_RUNNING || !container->process->pid)
    respond_error(request, "NotFound", 0, "container \"%s\" is not running", container->id);
  else
    process_exec(container, request);
}

/* Nobody else is served by a VM of nobody, so that it may wait here. */
void container_prefetch(struct request *request) {
  char error[512], path[PATH_BYTES_MAX];
  const struct timespec pause = {.tv_nsec = DISK_POLL_MS * 1000000};
  int mounted = test_mode ? 1 : 0, root;
  snprintf(error, sizeof error, "prefetch: no disk after %d ms", DISK_WAIT_MS);
  if (pod_is_ready()) {
    respond_error(request, "Invalid", 0, "prefetch: the pod is set up");
    return;
  }
  for (int i = 0; !mounted && i < DISK_WAIT_MS / DISK_POLL_MS; i++) {
    mounted = mount_image(request->json, error, sizeof error);
    if (!mounted) nanosleep(&pause, NULL);
  }
  if (mounted <= 0) {
    respond_error(request, "Invalid", 0, "%s", error);
    return;
  }
  snprintf(path, sizeof path, "/image/%s", json_text(request->json, "imageSerial", ""));
  root = test_mode ? -1 : open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (root >= 0) {
    prefetch_files(root, json_text(request->json, "program", ""));
    close(root);
  }
  if (pod_takes_containers() &&
      !blank_prepare(request, error, sizeof error))
    respond_error(request, "Invalid", 0, "%s", error);
  else
    respond_ok(request, NULL);
}

void containers_device_changed(void) {
  for (int i = 0; i < CONTAINERS_MAX; i++)
    if (containers[i].used && containers[i].request) take_up(&containers[i]);
}

static const char *phase_name(const struct container *container) {
  return container->phase == CONTAINER_EXITED ? "exited" : "running";
}

static void describe_output(struct json_writer *writer, const char *key,
                            const struct stream_out *stream) {
  json_open(writer, key, '[');
  json_put_number(writer, NULL, (int64_t)stream->start);
  json_put_number(writer, NULL, (int64_t)stream->end);
  json_close(writer, ']');
}

void containers_describe(struct json_writer *writer) {
  json_open(writer, "containers", '[');
  for (int i = 0; i < CONTAINERS_MAX; i++) {
    struct container *container = &containers[i];
    if (!container->used || !container->process || !container->process->started) continue;
    struct process *process = container->process;
    json_open(writer, NULL, '{');
    json_put_text(writer, "id", container->id, strlen(container->id));
    json_put_text(writer, "phase", phase_name(container), strlen(phase_name(container)));
    json_put_number(writer, "stream", process->stream);
    json_put_number(writer, "stdin", process->in.ring && !process->in.ended
                                         ? (int64_t)process->in.received
                                         : -1);
    describe_output(writer, "stdout", &process->out);
    describe_output(writer, "stderr", &process->error);
    json_close(writer, '}');
  }
  json_close(writer, ']');
}

bool containers_signal_all(int number) {
  bool any = false;
  for (int i = 0; i < CONTAINERS_MAX; i++) {
    struct container *container = &containers[i];
    if (!container->used || !container->process || !container->process->pid) continue;
    any = true;
    if (number) kill(container->process->pid, number);
  }
  return any;
}
