#include <errno.h>
#include <fcntl.h>
#include <linux/sched.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cgroup.h"
#include "child.h"
#include "container.h"
#include "pod.h"
#include "util.h"

static struct process processes[PROCESSES_MAX];

static struct process *find_process(uint32_t id) {
  /* 0 marks those that the host let go. */
  for (int i = 0; id > 3 && i < PROCESSES_MAX; i++)
    if (processes[i].used && processes[i].stream == (id & ~3u)) return &processes[i];
  return NULL;
}

static bool is_over(const struct process *process) {
  return !process->pid && process->status.fd < 0;
}

void process_free(struct process *process) {
  if (process->request) request_free(process->request);
  timer_cancel(&process->start_timer);
  loop_close(&process->status);
  if (process->terminal >= 0) close(process->terminal);
  stream_in_close(&process->in);
  stream_out_close(&process->out);
  stream_out_close(&process->error);
  memset(process, 0, sizeof *process);
}

/* The host let go of an exec, or its session ended: ends it, and frees it once it is reaped. */
static void abandon(struct process *process) {
  process->stream = 0;
  stream_in_close(&process->in);
  stream_out_close(&process->out);
  stream_out_close(&process->error);
  if (process->pid) {
    kill(-process->pid, SIGKILL);
    kill(process->pid, SIGKILL);
  } else if (is_over(process)) {
    process_free(process);
  }
}

static const char *exit_reason(const struct process *process, bool oom_killed) {
  if (oom_killed) return "OOMKilled";
  return process->wait_status == 0 ? "Completed" : "Error";
}

/* What the container left in its termination log; it may hold anything, and may be huge. */
static size_t read_message(const struct container *container, char *bytes, size_t size) {
  char path[PATH_BYTES_MAX];
  if (!place_path(path, sizeof path, container->place, "termination-log")) return 0;
  int fd = open(path, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return 0;
  ssize_t length = read(fd, bytes, size);
  close(fd);
  return length > 0 ? (size_t)length : 0;
}

void process_report(struct process *process) {
  if (!process->used || !process->started || process->pid || process->exit_sent) return;
  if (process->exit_acknowledged || !process->stream || !session_is_open()) return;
  if (!stream_out_done(&process->out) || !stream_out_done(&process->error)) return;
  char bytes[8 * TERMINATION_MESSAGE_BYTES_MAX], message[TERMINATION_MESSAGE_BYTES_MAX];
  bool oom_killed = !process->exec && process->container->oom_killed;
  int status = process->wait_status, number = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
  size_t length = process->exec ? 0 : read_message(process->container, message, sizeof message);
  const char *reason = exit_reason(process, oom_killed);
  struct json_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
  json_open(&writer, NULL, '{');
  json_put_number(&writer, "exitCode", number ? 128 + number : WEXITSTATUS(status));
  json_put_number(&writer, "signal", number);
  json_put_true(&writer, "oomKilled", oom_killed);
  json_put_text(&writer, "reason", reason, strlen(reason));
  json_put_text(&writer, "message", message, length);
  json_put_number(&writer, "finishedAtMs", (int64_t)process->finished_ms);
  json_close(&writer, '}');
  process->exit_sent = session_send_exit(process->stream, &writer);
}

static void stream_changed(void *owner) { process_report(owner); }

static void after_exit(struct process *process) {
  if (process->status.fd >= 0) return;
  if (!process->started) {
    struct container *container = process->exec ? NULL : process->container;
    struct request *request = process->request;
    int code = process->start_code;
    char error[sizeof process->start_error];
    memcpy(error, process->start_error, sizeof error);
    process->request = NULL;
    process_free(process);
    if (container) container_start_failed(container);
    /* Last, so that the host finds nothing of it when it hears of the failure. */
    if (request) respond_error(request, "StartError", code, "%s", error);
    return;
  }
  stream_in_close(&process->in);
  if (!process->exec) container_exited(process->container);
  if (!process->used) return;
  if (!process->stream) {
    process_free(process);
    return;
  }
  stream_out_drain(&process->out);
  stream_out_drain(&process->error);
  process_report(process);
}

static void answer_start(struct process *process) {
  struct request *request = process->request;
  char bytes[64];
  process->request = NULL;
  if (!request) return;
  struct json_writer ok = {.bytes = bytes, .capacity = sizeof bytes};
  json_open(&ok, NULL, '{');
  json_put_number(&ok, "stream", process->stream);
  json_close(&ok, '}');
  respond_ok(request, &ok);
}

static void start_ended(struct process *process) {
  loop_close(&process->status);
  timer_cancel(&process->start_timer);
  process->started = !process->start_code;
  if (process->started) {
    answer_start(process);
    if (!process->exec) container_started(process->container);
  }
  if (!process->pid) after_exit(process);
}

static void set_up_output(struct stream_out *stream, struct process *process, uint64_t limit) {
  stream->limit = limit;
  stream->changed = stream_changed;
  stream->owner = process;
}

static bool take_terminal(struct process *process, int master) {
  unsigned number;
  if (process->terminal >= 0 || ioctl(master, TIOCGPTN, &number) < 0 ||
      fcntl(master, F_SETFL, O_RDWR | O_NONBLOCK) < 0) {
    close(master);
    return false;
  }
  process->terminal = master;
  uint32_t base = process->stream;
  int in = fcntl(master, F_DUPFD_CLOEXEC, 3), out = fcntl(master, F_DUPFD_CLOEXEC, 3);
  if (!base) {
    if (in >= 0) close(in);
    if (out >= 0) close(out);
    return in >= 0 && out >= 0;
  }
  bool marked = !process->exec;
  uint64_t limit = process->first_window;
  bool ok = stream_in_open(&process->in, base, in, PROCESS_RING_BYTES);
  ok = stream_out_open(&process->out, base + 1, out, PROCESS_RING_BYTES, marked) && ok;
  /* Both kinds of output come out of the terminal. */
  ok = stream_out_open(&process->error, base + 2, -1, 1, false) && ok;
  set_up_output(&process->out, process, limit);
  set_up_output(&process->error, process, limit);
  return ok;
}

/* Descriptor 0 is never passed: it stands for none. */
static int received_descriptor(struct msghdr *header) {
  struct cmsghdr *control = CMSG_FIRSTHDR(header);
  int fd = 0;
  if (control && control->cmsg_level == SOL_SOCKET && control->cmsg_type == SCM_RIGHTS &&
      control->cmsg_len == CMSG_LEN(sizeof fd))
    memcpy(&fd, CMSG_DATA(control), sizeof fd);
  return fd;
}

/* The child's words until `exec` closes its end. */
static void status_ready(struct source *source, uint32_t events) {
  struct process *process =
      (struct process *)((char *)source - offsetof(struct process, status));
  struct status_message message;
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control;
  struct iovec part = {&message, sizeof message};
  struct msghdr header = {.msg_iov = &part,
                          .msg_iovlen = 1,
                          .msg_control = control.bytes,
                          .msg_controllen = sizeof control.bytes};
  (void)events;
  ssize_t count = recvmsg(source->fd, &header, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
  if (count < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (count == (ssize_t)sizeof message) {
    int terminal = received_descriptor(&header);
    if (terminal) {
      if (take_terminal(process, terminal)) return;
      message = (struct status_message){EXIT_START_FAILED, "cannot use the terminal"};
      if (process->pid) kill(process->pid, SIGKILL);
    }
    /* It was whole before it was told. */
    if (message.exit_code == EXIT_NOT_YET) return;
    process->start_code = message.exit_code ? message.exit_code : EXIT_START_FAILED;
    snprintf(process->start_error, sizeof process->start_error, "%.*s",
             (int)sizeof message.text - 1, message.text);
  }
  start_ended(process);
}

static void start_timed_out(struct timer *timer) {
  struct process *process =
      (struct process *)((char *)timer - offsetof(struct process, start_timer));
  process->start_code = EXIT_START_FAILED;
  snprintf(process->start_error, sizeof process->start_error, "did not start within %d ms",
           START_WAIT_MS);
  if (process->pid) kill(process->pid, SIGKILL);
  start_ended(process);
}

/* Hands our ends to the streams; without `stdin` the process reads an end of file at once. */
static bool open_streams(struct process *process, const int ours[3], bool has_stdin,
                         uint64_t window) {
  bool marked = !process->exec;
  uint32_t base = process->stream;
  bool ok = true;
  if (has_stdin)
    ok = stream_in_open(&process->in, base, ours[0], PROCESS_RING_BYTES);
  else
    close(ours[0]);
  ok = stream_out_open(&process->out, base + 1, ours[1], PROCESS_RING_BYTES, marked) && ok;
  ok = stream_out_open(&process->error, base + 2, ours[2], PROCESS_RING_BYTES, marked) && ok;
  set_up_output(&process->out, process, window);
  set_up_output(&process->error, process, window);
  return ok;
}

static int open_mount_namespace(const struct container *container) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/ns/mnt", container->process->pid);
  return open(path, O_RDONLY | O_CLOEXEC);
}

/* The process is there; from now on it is this one. False with errno. */
static bool take_spawned(struct process *process, struct spawned *spawned) {
  const struct json *json = process->request->json;
  bool has_terminal = json_true(json_get(json, "process"), "tty");
  bool has_stdin = process->exec || json_true(json, "stdin");
  uint64_t window = (uint64_t)json_number(json, "window", 0);
  process->pid = spawned->pid;
  process->status = (struct source){.fd = spawned->status_fd, .ready = status_ready};
  spawned->status_fd = -1;
  bool ok = loop_watch(&process->status, EPOLLIN);
  if (!ok || has_terminal) {
    process->first_window = window;
    spawned_close(spawned);
  } else if (!open_streams(process, spawned->stdio, has_stdin, window)) {
    kill(process->pid, SIGKILL);
  }
  return ok;
}

static struct process *new_process(uint32_t stream) {
  if (!stream || stream & 3 || find_process(stream)) return NULL;
  for (int i = 0; i < PROCESSES_MAX; i++) {
    struct process *process = &processes[i];
    if (process->used) continue;
    memset(process, 0, sizeof *process);
    process->used = true;
    process->terminal = process->status.fd = -1;
    process->in.source.fd = process->out.source.fd = process->error.source.fd = -1;
    process->stream = stream;
    return process;
  }
  return NULL;
}

static struct process *begin(struct container *container, struct request *request, bool exec) {
  struct process *process = new_process((uint32_t)json_number(request->json, "stream", 0));
  if (!process) {
    respond_error(request, "Invalid", 0,
                  "stream: taken, not a multiple of 4, or more than %d processes", PROCESSES_MAX);
    return NULL;
  }
  process->container = container;
  process->exec = exec;
  process->request = request;
  timer_set(&process->start_timer, START_WAIT_MS, start_timed_out);
  return process;
}

static void cannot_begin(struct process *process) {
  process->start_code = EXIT_START_FAILED;
  snprintf(process->start_error, sizeof process->start_error, "cannot make a process: %s",
           strerror(errno));
  if (process->pid) kill(process->pid, SIGKILL);
  start_ended(process);
}

void process_start(struct container *container, struct request *request, struct blank *blank) {
  struct process *process = begin(container, request, false);
  if (!process) {
    blank_abandon(blank);
    container_start_failed(container);
    return;
  }
  container->process = process;
  blank_tell(blank, request);
  if (!take_spawned(process, &blank->process)) cannot_begin(process);
}

void process_exec(struct container *container, struct request *request) {
  struct process *process = begin(container, request, true);
  if (!process) return;
  struct spawned spawned;
  struct spawn spawn = {.place = container->place,
                        .process = json_get(request->json, "process"),
                        .mount_namespace = test_mode ? -1 : open_mount_namespace(container)};
  pid_t neighbour = pod_pause_pid() ? pod_pause_pid() : container->process->pid;
  bool ok = spawn_process(&spawned, &spawn, neighbour, 0);
  int saved = errno;
  if (spawn.mount_namespace >= 0) close(spawn.mount_namespace);
  errno = saved;
  if (!ok || !take_spawned(process, &spawned)) cannot_begin(process);
}

void processes_reap(void) {
  int status;
  for (pid_t pid; (pid = waitpid(-1, &status, WNOHANG)) > 0;) {
    blank_reaped(pid);
    for (int i = 0; i < PROCESSES_MAX; i++) {
      struct process *process = &processes[i];
      if (!process->used || process->pid != pid) continue;
      process->pid = 0;
      process->wait_status = status;
      process->finished_ms = clock_ms();
      /* What it said of its start is in the socket already; the end of that is its end. */
      if (process->status.fd < 0)
        after_exit(process);
      else
        while (process->used && process->status.fd >= 0) status_ready(&process->status, EPOLLIN);
      break;
    }
  }
}

void process_signal(struct request *request) {
  struct process *process = find_process((uint32_t)json_number(request->json, "stream", 0));
  int64_t number = json_number(request->json, "signal", 0);
  if (number < 1 || number >= NSIG) {
    respond_error(request, "Invalid", 0, "signal: %lld, wanted 1 to %d", (long long)number,
                  NSIG - 1);
  } else if (!process || !process->started || !process->pid) {
    respond_error(request, "NotFound", 0, "the process has ended");
  } else {
    kill(process->pid, (int)number);
    respond_ok(request, NULL);
  }
}

void process_resize(struct request *request) {
  struct process *process = find_process((uint32_t)json_number(request->json, "stream", 0));
  int64_t width = json_number(request->json, "width", 0);
  int64_t height = json_number(request->json, "height", 0);
  if (width < 0 || width > UINT16_MAX || height < 0 || height > UINT16_MAX) {
    respond_error(request, "Invalid", 0, "terminal size out of range");
  } else if (!process || process->terminal < 0) {
    respond_error(request, "NotFound", 0, "the process has no terminal");
  } else {
    struct winsize size = {.ws_col = (uint16_t)width, .ws_row = (uint16_t)height};
    ioctl(process->terminal, TIOCSWINSZ, &size);
    respond_ok(request, NULL);
  }
}

void containers_session_opened(void) {
  for (int i = 0; i < PROCESSES_MAX; i++) {
    struct process *process = &processes[i];
    process->exit_sent = false;
    if (process->used && process->in.ring) stream_in_announce(&process->in);
  }
}

void containers_session_closed(void) {
  for (int i = 0; i < PROCESSES_MAX; i++) {
    struct process *process = &processes[i];
    if (!process->used) continue;
    /* Nobody waits for the answer any more; what was started goes on. */
    if (process->exec) abandon(process);
  }
}

bool processes_data(uint32_t id, uint64_t offset, const uint8_t *bytes, size_t length,
                    bool *known) {
  struct process *process = find_process(id);
  *known = process && id == process->stream && process->in.ring;
  return !*known || stream_in_data(&process->in, offset, bytes, length);
}

bool processes_end(uint32_t id, uint64_t offset, bool *known) {
  struct process *process = find_process(id);
  *known = process && id == process->stream && process->in.ring;
  return !*known || stream_in_end(&process->in, offset);
}

bool processes_window(uint32_t id, uint64_t acknowledged, uint64_t limit, bool *known) {
  struct process *process = find_process(id);
  struct stream_out *stream = NULL;
  if (process && id == process->stream + 1) stream = &process->out;
  if (process && id == process->stream + 2) stream = &process->error;
  *known = stream && stream->ring;
  return !*known || stream_out_window(stream, acknowledged, limit);
}

void processes_reset(uint32_t id) {
  struct process *process = find_process(id);
  if (process && process->exec) abandon(process);
}

void processes_exit_acknowledged(uint32_t id) {
  struct process *process = find_process(id);
  if (!process || !process->exit_sent) return;
  process->exit_acknowledged = true;
  if (process->exec) process_free(process);
}
