#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cgroup.h"
#include "limits.h"
#include "util.h"

static void close_all(int fds[3]) {
  for (int i = 0; i < 3; i++) {
    if (fds[i] >= 0) close(fds[i]);
    fds[i] = -1;
  }
}

static bool make_pipes(int ours[3], int theirs[3]) {
  for (int i = 0; i < 3; i++) ours[i] = theirs[i] = -1;
  for (int i = 0; i < 3; i++) {
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0) return false;
    ours[i] = ends[i == 0];
    theirs[i] = ends[i != 0];
    fcntl(ours[i], F_SETFL, O_NONBLOCK);
    /* Where that is refused the pipe is as it was, and works. */
    fcntl(ours[i], F_SETPIPE_SZ, PIPE_BYTES);
  }
  return true;
}

/* Makes children of this process appear in a PID namespace; -1 with errno. */
static int use_pid_namespace(pid_t pid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/ns/pid", pid);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return -1;
  int result = setns(fd, CLONE_NEWPID), saved = errno;
  close(fd);
  errno = saved;
  return result;
}

static pid_t clone_child(struct spawned *spawned, const struct spawn *spawn, pid_t neighbour,
                         unsigned long namespaces) {
  pid_t home = getpid();
  if (test_mode) neighbour = 0, namespaces = 0;
  if (neighbour && use_pid_namespace(neighbour) < 0) return -1;
  long pid = syscall(SYS_clone, namespaces | SIGCHLD, 0, 0, 0, 0);
  if (pid == 0) {
    /* Our ends: with one of its own it would not see that we are gone. */
    spawned_close(spawned);
    child_run(spawn);
  }
  int saved = errno;
  if (neighbour && use_pid_namespace(home) < 0) fatal("cannot return to the PID namespace");
  errno = saved;
  return (pid_t)pid;
}

bool spawn_process(struct spawned *spawned, struct spawn *spawn, pid_t neighbour,
                   unsigned long namespaces) {
  int status[2];
  if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, status) < 0) return false;
  spawned->status_fd = status[0];
  spawn->status_fd = status[1];
  bool ok = make_pipes(spawned->stdio, spawn->stdio);
  spawn->cgroup_fd = test_mode ? -1 : cgroup_open_processes(spawn->place);
  if (ok) ok = (spawned->pid = clone_child(spawned, spawn, neighbour, namespaces)) > 0;
  int saved = errno;
  close(spawn->status_fd);
  close_all(spawn->stdio);
  if (spawn->cgroup_fd >= 0) close(spawn->cgroup_fd);
  if (!ok) spawned_close(spawned);
  errno = saved;
  return ok;
}

void spawned_close(struct spawned *spawned) {
  if (spawned->status_fd >= 0) close(spawned->status_fd);
  spawned->status_fd = -1;
  close_all(spawned->stdio);
}
