#include "pod.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/random.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "blank.h"
#include "disk.h"
#include "limits.h"
#include "loop.h"
#include "network.h"
#include "util.h"
#include "volume.h"

#define ENTROPY_BYTES_MIN 32
#define ENTROPY_BYTES_MAX 256
#define SCRATCH_OPTIONS "barrier=0,noinit_itable,no_prefetch_block_bitmaps"

/*
 * A VM that waits for a pod, or becomes a template, has rehearsed: it has been set up as a pod once,
 * so that what runs for the first time has run. It is set up again for the pod that it gets.
 */
static enum { POD_NEW, POD_REHEARSED, POD_READY } state;
static bool scratch_mounted;
static pid_t pause_pid;
static struct request *waiting;
static struct timer disk_timer;

bool pod_is_ready(void) { return state == POD_READY; }
bool pod_takes_containers(void) { return state != POD_NEW; }
int pod_pause_pid(void) { return pause_pid; }

static bool complain(char *error, size_t size, const char *what) {
  snprintf(error, size, "%s: %s", what, strerror(errno));
  return false;
}

static bool set_clock(int64_t epoch_ms, char *error, size_t size) {
  struct timespec time = {.tv_sec = epoch_ms / 1000, .tv_nsec = epoch_ms % 1000 * 1000000};
  if (epoch_ms <= 0) {
    errno = EINVAL;
    return complain(error, size, "epochMs");
  }
  if (!test_mode && clock_settime(CLOCK_REALTIME, &time) < 0)
    return complain(error, size, "cannot set the clock");
  return true;
}

/* Credits the bytes and makes the generator use them now: a restored guest shares its old state. */
static bool add_entropy(const uint8_t *bytes, size_t length, char *error, size_t size) {
  struct {
    struct rand_pool_info info;
    uint8_t bytes[ENTROPY_BYTES_MAX];
  } pool;
  if (length < ENTROPY_BYTES_MIN || length > ENTROPY_BYTES_MAX) {
    snprintf(error, size, "entropy: %zu bytes, wanted %d to %d", length, ENTROPY_BYTES_MIN,
             ENTROPY_BYTES_MAX);
    return false;
  }
  if (test_mode) return true;
  pool.info.entropy_count = (int)length * 8;
  pool.info.buf_size = (int)length;
  memcpy(pool.info.buf, bytes, length);
  int fd = open("/dev/urandom", O_WRONLY | O_CLOEXEC);
  bool ok = fd >= 0 && ioctl(fd, RNDADDENTROPY, &pool) == 0 && ioctl(fd, RNDRESEEDCRNG) == 0;
  if (!ok) complain(error, size, "cannot add entropy");
  if (fd >= 0) close(fd);
  explicit_bzero(&pool, sizeof pool);
  return ok;
}

/* The format that the kubelet writes. Everybody may read it, as what this process creates. */
static bool write_hosts(const struct json *setup, char *error, size_t size) {
  const struct json *network = json_get(setup, "network");
  const char *hostname = json_text(setup, "hostname", ""), *domain = json_text(setup, "domain", "");
  FILE *file = fopen("/pod/hosts", "we");
  if (!file) return complain(error, size, "/etc/hosts");
  fputs(
      "# Kubernetes-managed hosts file.\n127.0.0.1\tlocalhost\n"
      "::1\tlocalhost ip6-localhost ip6-loopback\nfe00::0\tip6-localnet\n"
      "fe00::0\tip6-mcastprefix\nfe00::1\tip6-allnodes\nfe00::2\tip6-allrouters\n",
      file);
  const char *address = json_text(network, "address", "");
  if (*address) {
    fprintf(file, "%.*s\t", (int)strcspn(address, "/"), address);
    if (*domain) fprintf(file, "%s.%s\t", hostname, domain);
    fprintf(file, "%s\n", hostname);
  }
  const struct json *alias = json_first(json_get(setup, "hostAliases"));
  if (alias) fputs("\n# Entries added by HostAliases.\n", file);
  for (; alias; alias = json_next(alias)) {
    fputs(json_text(alias, "ip", ""), file);
    const struct json *name = json_first(json_get(alias, "hostnames"));
    for (; name; name = json_next(name)) fprintf(file, "\t%s", name->text ? name->text : "");
    fputc('\n', file);
  }
  return fclose(file) == 0 ? true : complain(error, size, "/etc/hosts");
}

static void write_words(FILE *file, const char *keyword, const struct json *list) {
  const struct json *word = json_first(list);
  if (!word) return;
  fputs(keyword, file);
  for (; word; word = json_next(word)) fprintf(file, " %s", word->text ? word->text : "");
  fputc('\n', file);
}

static bool write_resolver(const struct json *dns, char *error, size_t size) {
  FILE *file = fopen("/pod/resolv.conf", "we");
  if (!file) return complain(error, size, "/etc/resolv.conf");
  write_words(file, "search", json_get(dns, "searches"));
  const struct json *server = json_first(json_get(dns, "nameservers"));
  for (; server; server = json_next(server))
    fprintf(file, "nameserver %s\n", server->text ? server->text : "");
  write_words(file, "options", json_get(dns, "options"));
  return fclose(file) == 0 ? true : complain(error, size, "/etc/resolv.conf");
}

static bool set_names(const struct json *setup, char *error, size_t size) {
  const char *hostname = json_text(setup, "hostname", "");
  if (!name_is_valid(hostname, 64)) {
    snprintf(error, size, "hostname: \"%.80s\", wanted 1 to 64 of [A-Za-z0-9.-]", hostname);
    return false;
  }
  char line[80];
  int length = snprintf(line, sizeof line, "%s\n", hostname);
  if (sethostname(hostname, strlen(hostname)) < 0) return complain(error, size, "hostname");
  if (write_file_mode("/pod/hostname", line, (size_t)length, 0644) < 0)
    return complain(error, size, "/etc/hostname");
  return write_hosts(setup, error, size) && write_resolver(json_get(setup, "dns"), error, size);
}

static bool set_sysctls(const struct json *sysctls, char *error, size_t size) {
  for (const struct json *item = json_first(sysctls); item; item = json_next(item)) {
    char path[PATH_BYTES_MAX];
    if (!name_is_valid(item->key, 200) || strstr(item->key, "..") || item->type != JSON_STRING ||
        !format_path(path, sizeof path, "/proc/sys/%s", item->key)) {
      snprintf(error, size, "sysctl: bad name or value \"%.100s\"", item->key);
      return false;
    }
    for (char *dot = path + 10; *dot; dot++)
      if (*dot == '.') *dot = '/';
    if (write_file(path, item->text) < 0) {
      snprintf(error, size, "sysctl %s: %s", item->key, strerror(errno));
      return false;
    }
  }
  return true;
}

/* 0: waits for its disk; 1: mounted; -1: failed. */
static int mount_scratch(const struct json *setup, char *error, size_t size) {
  const char *serial = json_text(setup, "scratchSerial", "");
  char path[64];
  if (scratch_mounted) return 1;
  if (!*serial) {
    scratch_mounted = mount("scratch", "/scratch", "tmpfs", MS_NODEV, "mode=755") == 0;
  } else {
    if (!disk_find(serial, path, sizeof path)) return 0;
    /* It holds nothing that outlives the VM, so there is nothing to order writes for. Nor is it ever
     * checked, so tables of files that are never made need no zeros; and nothing is read ahead. */
    scratch_mounted = mount(path, "/scratch", "ext4", MS_NODEV | MS_NOATIME, SCRATCH_OPTIONS) == 0;
  }
  if (!scratch_mounted) {
    complain(error, size, "cannot mount the scratch disk");
    return -1;
  }
  if (mkdir("/scratch/containers", 0700) < 0 && errno != EEXIST) return -1;
  if (mkdir("/scratch/volumes", 0755) < 0 && errno != EEXIST) return -1;
  return 1;
}

/* PID 1 of a namespace that all containers share: it only reaps. */
_Noreturn static void pause_run(void) {
  sigset_t all;
  sigfillset(&all);
  sigprocmask(SIG_SETMASK, &all, NULL);
  prctl(PR_SET_NAME, "pause");
  prctl(PR_SET_DUMPABLE, 0);
  chdir("/");
  syscall(SYS_close_range, 0u, ~0u, 0u);
  for (;;) {
    sigset_t child;
    int signal;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigwait(&child, &signal);
    while (waitpid(-1, NULL, WNOHANG) > 0) continue;
  }
}

static bool start_pause(char *error, size_t size) {
  if (pause_pid > 0 || test_mode) return true;
  long pid = syscall(SYS_clone, CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) pause_run();
  if (pid < 0) return complain(error, size, "cannot share a process namespace");
  pause_pid = (pid_t)pid;
  return true;
}

static bool configure_network(const struct json *network, char *error, size_t size) {
  if (!network_loopback_up(error, size)) return false;
  if (!network || network->type != JSON_OBJECT) return true;
  struct network wanted = {.mac = json_text(network, "mac", ""),
                           .address = json_text(network, "address", ""),
                           .gateway = json_text(network, "gateway", ""),
                           .mtu = (uint32_t)json_number(network, "mtu", 0)};
  return network_configure(&wanted, error, size);
}

static bool create_volumes(const struct json *setup, char *error, size_t size) {
  const struct json *volumes = json_get(setup, "volumes");
  if (volumes && volumes->count > VOLUMES_MAX) {
    snprintf(error, size, "volumes: %u, at most %d", volumes->count, VOLUMES_MAX);
    return false;
  }
  const struct json *volume = json_first(volumes);
  for (; volume; volume = json_next(volume))
    if (!volume_create(volume, error, size)) return false;
  return true;
}

static bool set_up(struct request *request, char *error, size_t size) {
  const struct json *setup = request->json;
  if (!set_clock(json_number(setup, "epochMs", 0), error, size)) return false;
  if (!add_entropy(request->attachment, request->attachment_length, error, size)) return false;
  if (!test_mode) {
    if (!set_names(setup, error, size)) return false;
    if (!configure_network(json_get(setup, "network"), error, size)) return false;
    if (!set_sysctls(json_get(setup, "sysctls"), error, size)) return false;
  }
  if (!create_volumes(setup, error, size)) return false;
  return !json_true(setup, "shareProcessNamespace") || start_pause(error, size);
}

/*
 * The kernel draws it when it is first read. Before its entropy is fresh it must not be: all VMs
 * that start from one template would have the same. A rehearsal reads what is drawn each time.
 */
void pod_put_boot_id(struct json_writer *writer) {
  char id[64] = "";
  if (pod_is_ready())
    read_file("/proc/sys/kernel/random/boot_id", id, sizeof id);
  else if (read_file("/proc/sys/kernel/random/uuid", id, sizeof id) > 0)
    *id = 0;
  json_put_text(writer, "bootId", id, strlen(id));
}

static void answer_ready(struct request *request) {
  char bytes[256];
  struct json_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
  json_open(&writer, NULL, '{');
  pod_put_boot_id(&writer);
  json_close(&writer, '}');
  respond_ok(request, &writer);
}

static void take_up(void) {
  char error[512] = "";
  struct request *request = waiting;
  int scratch = test_mode ? 1 : mount_scratch(request->json, error, sizeof error);
  if (!scratch) return;
  waiting = NULL;
  timer_cancel(&disk_timer);
  if (scratch < 0 || !set_up(request, error, sizeof error)) {
    respond_error(request, "Invalid", 0, "%s", error);
    return;
  }
  state = json_true(request->json, "rehearsal") ? POD_REHEARSED : POD_READY;
  answer_ready(request);
}

static void disk_missing(struct timer *timer) {
  (void)timer;
  struct request *request = waiting;
  waiting = NULL;
  respond_error(request, "Invalid", 0, "scratchSerial: no disk \"%.40s\" after %d ms",
                json_text(request->json, "scratchSerial", ""), DISK_WAIT_MS);
}

void pod_setup(struct request *request) {
  if (pod_is_ready()) {
    answer_ready(request);
    return;
  }
  if (waiting) {
    respond_error(request, "Invalid", 0, "setupPod: another one is under way");
    return;
  }
  waiting = request;
  timer_set(&disk_timer, DISK_WAIT_MS, disk_missing);
  take_up();
}

/* Files of removed containers are unlinked by another process, which may not be done. */
static bool unmount(const char *path) {
  const struct timespec pause = {.tv_nsec = UNMOUNT_POLL_MS * 1000000};
  for (int i = 0; i < UNMOUNT_POLLS; i++) {
    if (umount2(path, 0) == 0) return true;
    if (errno != EBUSY) return false;
    nanosleep(&pause, NULL);
  }
  return false;
}

static bool unmount_images(void) {
  DIR *list = opendir("/image");
  bool ok = true;
  if (!list) return false;
  for (struct dirent *entry; ok && (entry = readdir(list));) {
    char path[PATH_BYTES_MAX];
    if (entry->d_name[0] == '.') continue;
    ok = format_path(path, sizeof path, "/image/%s", entry->d_name) && unmount(path) && rmdir(path) == 0;
  }
  closedir(list);
  return ok;
}

/* A template has no disk and no network: each VM that starts from it gets its own, which it keeps. */
void pod_end_rehearsal(struct request *request) {
  bool keeps = json_true(request->json, "keepsScratch");
  blank_discard();
  if (state == POD_READY) {
    respond_error(request, "Invalid", 0, "endRehearsal: the pod is set up");
  } else if (!test_mode && !unmount_images()) {
    respond_error(request, "Invalid", 0, "endRehearsal: /image: %s", strerror(errno));
  } else if (scratch_mounted && !keeps && !test_mode && !unmount("/scratch")) {
    respond_error(request, "Invalid", 0, "endRehearsal: /scratch: %s", strerror(errno));
  } else {
    volumes_remove();
    if (!keeps) {
      scratch_mounted = false;
      state = POD_NEW;
      if (!test_mode) network_forget();
    }
    respond_ok(request, NULL);
  }
}

void pod_device_changed(void) {
  if (waiting) take_up();
}

void pod_session_closed(void) {
  if (!waiting) return;
  timer_cancel(&disk_timer);
  request_free(waiting);
  waiting = NULL;
}

void pod_set_clock(struct request *request) {
  char error[128];
  if (set_clock(json_number(request->json, "epochMs", 0), error, sizeof error))
    respond_ok(request, NULL);
  else
    respond_error(request, "Invalid", 0, "%s", error);
}
