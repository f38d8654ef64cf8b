/*
 * hyperstart: PID 1 of a pod's VM. It is told what to do over the control port (PROTOCOL.md) and
 * does it in one loop; whatever takes long or runs a tenant's code is another process.
 *
 *   hyperstart --test-fd N DIRECTORY    as an ordinary process, for tests: no VM, no namespaces
 *   hyperstart --rehearse               as the program of a container in which nothing is to be done
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "cgroup.h"
#include "container.h"
#include "disk.h"
#include "limits.h"
#include "loop.h"
#include "pod.h"
#include "rehearse.h"
#include "relay.h"
#include "session.h"
#include "util.h"
#include "volume.h"

#define CONTROL_PORT "io.hypernetes.control"
#define SCSI_SCAN "/sys/class/scsi_host/host0/scan"
#define FILES_MAX 1048576

static uint64_t started_ms, ready_ms;
static struct source signals = {.fd = -1};
static struct timer shutdown_timer;
static bool greeted;

static void answer_hello(struct request *request) {
  char bytes[RESPONSE_BYTES_MAX - 256];
  struct utsname system;
  const struct json *versions = json_get(request->json, "versions");
  const struct json *version = json_first(versions);
  while (version && version->number != PROTOCOL_VERSION) version = json_next(version);
  if (!version) {
    respond_error(request, "Unsupported", 0, "hello: none of the versions is %d", PROTOCOL_VERSION);
    return;
  }
  uname(&system);
  struct json_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
  json_open(&writer, NULL, '{');
  json_put_number(&writer, "protocolVersion", PROTOCOL_VERSION);
  json_put_text(&writer, "kernelVersion", system.release, strlen(system.release));
  pod_put_boot_id(&writer);
  json_put_number(&writer, "startedUptimeMs", (int64_t)started_ms);
  json_put_number(&writer, "readyUptimeMs", (int64_t)ready_ms);
  json_put_true(&writer, "podReady", pod_is_ready());
  containers_describe(&writer);
  json_close(&writer, '}');
  greeted = true;
  respond_ok(request, &writer);
  containers_session_opened();
}

static void answer_ping(struct request *request) { respond_ok(request, NULL); }

static void put_usage(struct json_writer *writer, const char *id) {
  json_put_number(writer, "cpuNanos", test_mode ? 0 : cgroup_cpu_nanos(id));
  json_put_number(writer, "memoryBytes", test_mode ? 0 : cgroup_memory_bytes(id));
}

static void answer_stats(struct request *request) {
  char bytes[RESPONSE_BYTES_MAX - 256];
  struct json_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
  json_open(&writer, NULL, '{');
  put_usage(&writer, NULL);
  json_open(&writer, "containers", '[');
  const struct container *container;
  for (int i = 0; (container = container_at(i)); i++) {
    json_open(&writer, NULL, '{');
    json_put_text(&writer, "id", container->id, strlen(container->id));
    put_usage(&writer, container->place);
    json_close(&writer, '}');
  }
  json_close(&writer, ']');
  json_close(&writer, '}');
  respond_ok(request, &writer);
}

static void power_off(struct timer *timer) {
  (void)timer;
  containers_signal_all(SIGKILL);
  sync();
  if (test_mode) exit(0);
  reboot(RB_POWER_OFF);
  fatal("cannot power off: %s", strerror(errno));
}

static void answer_shutdown(struct request *request) {
  respond_ok(request, NULL);
  bool running = containers_signal_all(SIGTERM);
  timer_set(&shutdown_timer, running ? SHUTDOWN_GRACE_MS : 0, power_off);
}

struct operation {
  const char *name;
  void (*handle)(struct request *request);
};

static const struct operation OPERATIONS[] = {
    {"hello", answer_hello},
    {"ping", answer_ping},
    {"setupPod", pod_setup},
    {"endRehearsal", pod_end_rehearsal},
    {"setClock", pod_set_clock},
    {"volumeBegin", volume_begin},
    {"volumeFile", volume_file},
    {"volumeCommit", volume_commit},
    {"startContainer", container_start},
    {"removeContainer", container_remove},
    {"setResources", container_set_resources},
    {"prefetch", container_prefetch},
    {"exec", container_exec},
    {"signal", process_signal},
    {"resize", process_resize},
    {"connect", relay_connect},
    {"stats", answer_stats},
    {"shutdown", answer_shutdown},
};

static void on_request(struct request *request) {
  const char *name = json_text(request->json, "op", "");
  if (!greeted && strcmp(name, "hello")) {
    respond_error(request, "Invalid", 0, "the first request must be hello");
    return;
  }
  for (size_t i = 0; i < sizeof OPERATIONS / sizeof *OPERATIONS; i++) {
    if (strcmp(OPERATIONS[i].name, name)) continue;
    OPERATIONS[i].handle(request);
    return;
  }
  respond_error(request, "Unsupported", 0, "op: \"%.40s\" is unknown", name);
}

static bool on_data(uint32_t id, uint64_t offset, const uint8_t *bytes, size_t length) {
  bool known, ok = processes_data(id, offset, bytes, length, &known);
  return known ? ok : relays_data(id, offset, bytes, length, &known);
}

static bool on_end(uint32_t id, uint64_t offset) {
  bool known, ok = processes_end(id, offset, &known);
  return known ? ok : relays_end(id, offset, &known);
}

static bool on_window(uint32_t id, uint64_t acknowledged, uint64_t limit) {
  bool known, ok = processes_window(id, acknowledged, limit, &known);
  return known ? ok : relays_window(id, acknowledged, limit, &known);
}

static void on_reset(uint32_t id) {
  processes_reset(id);
  relays_reset(id);
}

static void on_opened(void) { greeted = false; }

static void on_closed(void) {
  containers_session_closed();
  relays_session_closed();
  pod_session_closed();
}

static const struct session_handlers HANDLERS = {
    .opened = on_opened,
    .closed = on_closed,
    .request = on_request,
    .data = on_data,
    .end = on_end,
    .window = on_window,
    .reset = on_reset,
    .exit_acknowledged = processes_exit_acknowledged,
};

static void signal_ready(struct source *source, uint32_t events) {
  struct signalfd_siginfo info;
  (void)events;
  while (read(source->fd, &info, sizeof info) == (ssize_t)sizeof info) continue;
  processes_reap();
  if (shutdown_timer.fire && !containers_signal_all(0)) power_off(NULL);
}

static void signals_init(void) {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGCHLD);
  sigprocmask(SIG_BLOCK, &set, NULL);
  signal(SIGPIPE, SIG_IGN);
  signals = (struct source){.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
                            .ready = signal_ready};
  if (signals.fd < 0 || !loop_watch(&signals, EPOLLIN)) fatal("signals: %s", strerror(errno));
}

struct fixed_mount {
  const char *source, *target, *type, *options;
  unsigned long flags;
};

/*
 * The root moves from the kernel's rootfs, from which `pivot_root` cannot leave, to a tmpfs. Its
 * size holds what PID 1 writes there, names and file volumes, and no more.
 */
static const struct fixed_mount MOUNTS[] = {
    {"root", "/new", "tmpfs", "mode=755,size=64m", MS_NODEV | MS_NOSUID},
    {"devtmpfs", "/new/dev", "devtmpfs", "mode=755", MS_NOSUID},
    {"proc", "/new/proc", "proc", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
    {"sysfs", "/new/sys", "sysfs", NULL, MS_NOSUID | MS_NODEV | MS_NOEXEC},
    {"shm", "/new/shm", "tmpfs", "mode=1777,size=64m", MS_NOSUID | MS_NODEV | MS_NOEXEC},
};

static const char *const DIRECTORIES[] = {"/new/root", "/new/image", "/new/scratch", "/new/volume",
                                          "/new/pod"};

static void mount_root(void) {
  for (size_t i = 0; i < sizeof MOUNTS / sizeof *MOUNTS; i++) {
    const struct fixed_mount *item = &MOUNTS[i];
    if (mkdir(item->target, 0755) < 0 && errno != EEXIST)
      fatal("%s: %s", item->target, strerror(errno));
    if (mount(item->source, item->target, item->type, item->flags, item->options) < 0)
      fatal("mount %s: %s", item->target, strerror(errno));
  }
  for (size_t i = 0; i < sizeof DIRECTORIES / sizeof *DIRECTORIES; i++)
    if (mkdir(DIRECTORIES[i], 0755) < 0) fatal("%s: %s", DIRECTORIES[i], strerror(errno));
}

/*
 * `/modules/list` names the files in the order in which they depend on each other, one to a line,
 * with parameters after a space.
 */
static void load_modules(void) {
  char list[8192];
  if (read_file("/modules/list", list, sizeof list) < 0) return;
  for (char *name = strtok(list, "\n"); name; name = strtok(NULL, "\n")) {
    char path[256], *space = strchr(name, ' ');
    const char *parameters = space ? space + 1 : "";
    if (space) *space = 0;
    if (!format_path(path, sizeof path, "/modules/%s", name)) continue;
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || (syscall(SYS_finit_module, fd, parameters, 0) < 0 && errno != EEXIST))
      note("module %s: %s", name, strerror(errno));
    if (fd >= 0) close(fd);
    /* The archive's copy is memory of the VM. */
    unlink(path);
  }
}

static void enter_root(void) {
  if (chdir("/new") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 ||
      chdir("/") < 0)
    fatal("cannot enter the root: %s", strerror(errno));
}

/* PID 1 starts without descriptors when the kernel found no console. */
static void open_console(void) {
  int fd = open("/dev/console", O_RDWR | O_NOCTTY);
  if (fd < 0) fd = open("/dev/kmsg", O_WRONLY);
  for (int i = 0; fd >= 0 && i < 3; i++)
    if (fd != i) dup2(fd, i);
  if (fd > 2) close(fd);
}

static uint64_t monotonic_ns(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* How late a short timer is, at most TIMER_TRIAL_MAX_NS. Does not sleep: it might not wake up. */
static uint64_t try_timer(int fd) {
  const struct itimerspec wanted = {.it_value.tv_nsec = TIMER_TRIAL_NS};
  uint64_t began = monotonic_ns(), passed = 0, fired;
  timerfd_settime(fd, 0, &wanted, NULL);
  while (passed < TIMER_TRIAL_MAX_NS && read(fd, &fired, sizeof fired) < 0)
    passed = monotonic_ns() - began;
  return passed;
}

/*
 * An emulated kernel measures its timer when it starts. Where the host did not let it run meanwhile
 * it takes it for faster than it is, and all that sleeps would sleep many times too long. Now a
 * timer can only be late for the same reason: the best of many tries tells the two apart.
 */
static void check_timer(void) {
  int fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
  bool right = fd < 0;
  for (int i = 0; !right && i < TIMER_TRIALS; i++)
    right = try_timer(fd) < TIMER_TRIAL_NS * TIMER_LATE_FACTOR;
  if (!right) fatal("the kernel has measured its timer wrongly: the host is too busy");
  if (fd >= 0) close(fd);
}

static void boot(void) {
  struct rlimit files = {FILES_MAX, FILES_MAX};
  umask(022);
  /* Inherited until exec: a container cannot look into what is on its way into it. */
  prctl(PR_SET_DUMPABLE, 0);
  load_modules();
  mount_root();
  enter_root();
  open_console();
  check_timer();
  /* All disks are units of the first target; the others are not looked at, which takes long. */
  write_file(SCSI_SCAN, "0 0 -");
  setrlimit(RLIMIT_NOFILE, &files);
  cgroup_init();
  write_file("/proc/sys/kernel/printk", "1");
}

static void device_changed(void) {
  pod_device_changed();
  containers_device_changed();
}

int main(int argc, char **argv) {
  int fd;
  if (argc >= 2 && !strcmp(argv[1], "--rehearse")) return argc == 2 ? rehearse() : 0;
  started_ms = uptime_ms();
  test_mode = argc == 4 && !strcmp(argv[1], "--test-fd");
  loop_init();
  if (test_mode) {
    char path[PATH_BYTES_MAX];
    fd = atoi(argv[2]);
    state_root = argv[3];
    fcntl(fd, F_SETFL, O_RDWR | O_NONBLOCK);
    fcntl(fd, F_SETFD, FD_CLOEXEC);
    if (format_path(path, sizeof path, "%s/scratch/containers", state_root))
      make_directories(path, 0755);
    if (format_path(path, sizeof path, "%s/volume", state_root)) make_directories(path, 0755);
  } else {
    if (getpid() != 1) {
      note("runs only as PID 1 of a VM");
      return 2;
    }
    boot();
    uevent_init(device_changed);
    if ((fd = port_open(CONTROL_PORT)) < 0) fatal("no control port \"%s\"", CONTROL_PORT);
  }
  signals_init();
  session_init(fd, &HANDLERS);
  ready_ms = uptime_ms();
  for (;;) loop_turn(session_turn());
}
