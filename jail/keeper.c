#define _GNU_SOURCE
#include "hyperjail.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

// A guest may print for ever: its console is kept in two files of this size, the older dropped.
#define CONSOLE_FILE_BYTES (128 << 10)
// The monitor's own messages; the first ones tell why it failed.
#define ERRORS_FILE_BYTES (64 << 10)
#define CHUNK_BYTES 4096
// How long a VM may outlive its directory, without which nobody can find it to end it.
#define LOOK_MS 3000
// After each full chunk, so that a chatty guest costs the host at most 400 kB/s of copying;
// the pipe is full meanwhile and the guest's serial port waits.
#define CHUNK_PAUSE_NS 10000000

struct sink {
  int source;
  int directory;
  const char *name;
  const char *older;  // NULL: what does not fit is dropped
  int file;
  long size;
  long size_max;
};

static void sink_open(struct sink *s) {
  int flags = O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW;
  s->file = openat(s->directory, s->name, flags, 0600);
  s->size = 0;
}

static void sink_write(struct sink *s, const char *bytes, long size) {
  if (s->size + size > s->size_max) {
    if (!s->older) return;
    if (s->file >= 0) close(s->file);
    renameat(s->directory, s->name, s->directory, s->older);
    sink_open(s);
  }
  // A full disk loses console output and nothing else.
  if (s->file >= 0 && write_all(s->file, bytes, (size_t)size)) s->size += size;
}

// Returns whether the source may give more.
static bool sink_fill(struct sink *s) {
  char bytes[CHUNK_BYTES];
  ssize_t size = read(s->source, bytes, sizeof bytes);
  if (size < 0) return errno == EAGAIN || errno == EINTR;
  if (size == 0) return false;
  sink_write(s, bytes, size);
  if (size == sizeof bytes) nanosleep(&(struct timespec){0, CHUNK_PAUSE_NS}, NULL);
  return true;
}

// What is in the pipes at the end is at most their capacity: the panic message is in there.
static void sink_drain(struct sink *s) {
  fcntl(s->source, F_SETFL, O_NONBLOCK);
  char bytes[CHUNK_BYTES];
  ssize_t size;
  while ((size = read(s->source, bytes, sizeof bytes)) > 0) sink_write(s, bytes, size);
}

static bool is_removed(int directory) {
  struct stat status;
  return fstat(directory, &status) == 0 && status.st_nlink == 0;
}

static long oom_kills(const struct options *o) {
  static const char *const FILES[] = {"memory.events", "memory.oom_control"};
  for (size_t i = 0; i < o->cgroup_count; i++) {
    for (size_t k = 0; k < 2; k++) {
      char path[TEXT_MAX + 32], line[256];
      snprintf(path, sizeof path, "%s/%s", o->cgroups[i], FILES[k]);
      FILE *file = fopen(path, "re");
      if (!file) continue;
      long count = 0;
      while (fgets(line, sizeof line, file)) sscanf(line, "oom_kill %ld", &count);
      fclose(file);
      return count;
    }
  }
  return 0;
}

static void verdict(const struct options *o, int directory, int status, bool requested,
                    const struct rusage *usage) {
  char text[512], code[16] = "null", number[16] = "null";
  if (WIFEXITED(status)) snprintf(code, sizeof code, "%d", WEXITSTATUS(status));
  if (WIFSIGNALED(status)) snprintf(number, sizeof number, "%d", WTERMSIG(status));
  long long cpu = (usage->ru_utime.tv_sec + usage->ru_stime.tv_sec) * 1000000LL +
                  usage->ru_utime.tv_usec + usage->ru_stime.tv_usec;
  long kills = oom_kills(o);
  cgroup_remove(o);
  snprintf(text, sizeof text,
           "{\"exitCode\":%s,\"signal\":%s,\"requested\":%s,\"oomKills\":%ld,"
           "\"cpuMicros\":%lld,\"atMs\":%lld}\n",
           code, number, requested ? "true" : "false", kills, cpu, (long long)time(NULL) * 1000);
  // With a full disk there is no verdict; the daemon then sees the keeper gone without one.
  replace_file(directory, "exit.json", text);
}

// The caller has blocked SIGCHLD and SIGTERM. SIGTERM ends the monitor: only its parent can send
// it a signal without the danger that its PID names another process by now.
int keeper_run(const struct options *o, pid_t cell, int console, int errors) {
  int directory = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0) fail("open the VM's directory");
  struct sink sinks[2] = {
      {console, directory, "console.log", "console.old.log", -1, 0, CONSOLE_FILE_BYTES},
      {errors, directory, "vmm.log", NULL, -1, 0, ERRORS_FILE_BYTES},
  };
  for (int i = 0; i < 2; i++) sink_open(&sinks[i]);
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGCHLD);
  sigaddset(&signals, SIGTERM);
  int events = signalfd(-1, &signals, SFD_CLOEXEC);
  if (events < 0) fail("wait for signals");
  bool requested = false;
  int status = 0;
  struct rusage usage = {0};
  for (;;) {
    struct pollfd ready[3] = {{events, POLLIN, 0}, {sinks[0].source, POLLIN, 0},
                              {sinks[1].source, POLLIN, 0}};
    if (poll(ready, 3, LOOK_MS) < 0 && errno != EINTR) fail("wait for events");
    if (!requested && is_removed(directory)) {
      requested = true;
      kill(cell, SIGKILL);
    }
    for (int i = 0; i < 2; i++)
      if (ready[i + 1].revents && !sink_fill(&sinks[i])) sinks[i].source = -1;
    if (!ready[0].revents) continue;
    struct signalfd_siginfo event;
    if (read(events, &event, sizeof event) != sizeof event) continue;
    if (event.ssi_signo == SIGTERM) {
      requested = true;
      kill(cell, SIGKILL);
    }
    if (wait4(cell, &status, WNOHANG, &usage) == cell) break;
  }
  for (int i = 0; i < 2; i++)
    if (sinks[i].source >= 0) sink_drain(&sinks[i]);
  verdict(o, directory, status, requested, &usage);
  return 0;
}
