#define _GNU_SOURCE
#include "hyperjail.h"

#include <fcntl.h>
#include <linux/capability.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define CELL_NAMESPACES (CLONE_NEWPID | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | \
                         CLONE_NEWCGROUP)
#define PRELOAD_TARGET "/hyperlend.so"
#define THAW_TARGET "/hyperthaw"
#define CONSOLE_PIPE_BYTES 16384
// What a monitor prints, or a jail that fails, fits; a full pipe must not stop either.
#define ERRORS_PIPE_BYTES 65536

static int null_device(void) {
  int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
  if (fd < 0) fail("open \"/dev/null\"");
  return fd;
}

__attribute__((noreturn)) static void cell_run(const struct options *o, int go, int null,
                                               int errors) {
  char *const environment[] = {"LC_ALL=C", o->preload ? "LD_PRELOAD=" PRELOAD_TARGET : NULL, NULL};
  if (dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(errors, 2) < 0) fail("redirect output");
  if (sethostname("vm", 2)) fail("set the cell's host name");
  root_enter(o);
  limits_set(o->file_count_max);
  privileges_drop(o->uid);
  // A monitor without keeper would have nobody to tell of its end. Cleared by setresuid: after it.
  if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0)) fail("tie the cell to its keeper");
  char byte;
  if (read(go, &byte, 1) != 1) _exit(EXIT_JAIL);
  descriptors_place(o);
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  signal(SIGPIPE, SIG_DFL);
  seccomp_enter(o->thaw ? PR_SET_MM : o->inventory ? PR_GET_TID_ADDRESS : 0);
  execve(o->program[0], o->program, environment);
  fprintf(stderr, "hyperjail: cannot execute \"%s\"\n", o->program[0]);
  _exit(EXIT_NOT_EXECUTED);
}

// The daemon reads who to watch from this file, now and after it was restarted.
static void announce(pid_t cell) {
  char text[256];
  snprintf(text, sizeof text,
           "{\"keeper\":{\"pid\":%d,\"startTicks\":%llu},"
           "\"vmm\":{\"pid\":%d,\"startTicks\":%llu}}\n",
           getpid(), process_start_ticks(getpid()), cell, process_start_ticks(cell));
  int directory = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory < 0 || !replace_file(directory, "jail.json", text)) fail("write jail.json");
  close(directory);
}

static pid_t cell_start(void) {
  struct clone_args arguments = {.flags = CELL_NAMESPACES, .exit_signal = SIGCHLD};
  pid_t pid = (pid_t)syscall(SYS_clone3, &arguments, sizeof arguments);
  if (pid < 0) fail("make namespaces");
  return pid;
}

static int jail_run(int count, char **arguments) {
  static struct options options;
  parse_options(&options, count, arguments);
  if (options.preload) add_bind(&options, options.preload, PRELOAD_TARGET, true);
  if (options.thaw) add_bind(&options, options.thaw, THAW_TARGET, true);
  umask(077);
  signal(SIGPIPE, SIG_IGN);
  sigset_t blocked;
  sigemptyset(&blocked);
  sigaddset(&blocked, SIGCHLD);
  sigaddset(&blocked, SIGTERM);
  sigprocmask(SIG_SETMASK, &blocked, NULL);
  syscall(SYS_close_range, 3u, ~0u, 0u);
  if (chdir(options.directory)) fail("enter \"%s\"", options.directory);
  unlink("exit.json");
  int console[2], errors[2], go[2], null = null_device();
  if (pipe2(console, O_CLOEXEC) || pipe2(errors, O_CLOEXEC) || pipe2(go, O_CLOEXEC))
    fail("make pipes");
  fcntl(console[1], F_SETPIPE_SZ, CONSOLE_PIPE_BYTES);
  fcntl(errors[1], F_SETPIPE_SZ, ERRORS_PIPE_BYTES);
  descriptors_open(&options, console[1]);
  cgroup_create(&options);
  pid_t cell = cell_start();
  if (cell == 0) {
    close(go[1]);
    cell_run(&options, go[0], null, errors[1]);
  }
  // Not the cell's death but its absence of one must be what fails below: it waits for `go`.
  cgroup_enter(&options, cell);
  announce(cell);
  capabilities_keep(1ull << CAP_KILL);
  if (write(go[1], "", 1) != 1) fail("start the cell");
  close(console[1]);
  close(errors[1]);
  for (size_t i = 0; i < options.descriptor_count; i++) close(options.descriptors[i].fd);
  close(go[0]);
  close(go[1]);
  write_all(STDOUT_FILENO, "started\n", 8);
  for (int fd = 0; fd < 3; fd++) dup2(null, fd);
  return keeper_run(&options, cell, console[0], errors[0]);
}

#define TSC_WINDOW_NS 50000000L

// An emulated guest reads the host's counter and often cannot find out how fast it runs.
static int tsc_print(void) {
  struct timespec a, b, window = {0, TSC_WINDOW_NS};
  clock_gettime(CLOCK_MONOTONIC_RAW, &a);
  unsigned long long start = __rdtsc();
  nanosleep(&window, NULL);
  clock_gettime(CLOCK_MONOTONIC_RAW, &b);
  unsigned long long end = __rdtsc();
  double ns = (double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec);
  printf("%.0f\n", (double)(end - start) * 1e6 / ns);
  return 0;
}

int main(int count, char **arguments) {
  if (count >= 2 && !strcmp(arguments[1], "run")) return jail_run(count - 2, arguments + 2);
  if (count >= 2 && !strcmp(arguments[1], "attach")) return attach_run(count - 2, arguments + 2);
  if (count >= 2 && !strcmp(arguments[1], "freeze")) return freeze_run(count - 2, arguments + 2);
  if (count == 2 && !strcmp(arguments[1], "tsc")) return tsc_print();
  refuse("usage: hyperjail run|attach|freeze|tsc [options]");
}
