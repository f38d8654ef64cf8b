/*
 * Containers and processes.
 *
 *   container   waiting --disk--> starting --exec--> running --exit--> exited --remove--> (gone)
 *                  |                  |
 *                  +------ failed ----+--> (gone), the request was answered with StartError
 *
 * A container's exit is reported in every session until it is acknowledged or removed. Processes
 * of `exec` and their streams belong to the session that made them and end with it.
 */
#ifndef HYPERSTART_CONTAINER_H
#define HYPERSTART_CONTAINER_H

#include <sys/types.h>

#include "blank.h"
#include "limits.h"
#include "loop.h"
#include "session.h"
#include "stream.h"

struct container;

struct process {
  bool used;
  struct container *container;
  /* Base of its stream numbers: +0 standard input, +1 output, +2 error. 0: the host let it go. */
  uint32_t stream;
  bool exec;
  /* 0 when it was reaped. */
  pid_t pid;
  /* The start's outcome arrives here; closed when the program runs. */
  struct source status;
  struct timer start_timer;
  struct request *request;
  bool started;
  int start_code;
  char start_error[1024];
  /* Master of its terminal, or -1; and what its output may send before a window arrives. */
  int terminal;
  uint64_t first_window;
  struct stream_in in;
  struct stream_out out, error;
  int wait_status;
  uint64_t finished_ms;
  bool exit_sent, exit_acknowledged;
};

struct container {
  bool used;
  char id[ID_BYTES_MAX + 1];
  /* Empty before it starts. */
  char place[PLACE_BYTES_MAX + 1];
  enum { CONTAINER_WAITING, CONTAINER_STARTING, CONTAINER_RUNNING, CONTAINER_EXITED } phase;
  struct process *process;
  /* While it waits for its image's disk. */
  struct request *request;
  /* Answered when it is gone. */
  struct request *removal;
  struct timer disk_timer;
  bool oom_killed;
};

void containers_init(void);
void container_start(struct request *request);
void container_remove(struct request *request);
/* Other limits for a container that has started. */
void container_set_resources(struct request *request);
void container_exec(struct request *request);
/* Mounts an image that a pod to come may use, and reads what its program begins with. */
void container_prefetch(struct request *request);
/* signal {stream, signal} and resize {stream, width, height} of any process. */
void process_signal(struct request *request);
void process_resize(struct request *request);

/* Reaps whatever ended. */
void processes_reap(void);
void containers_device_changed(void);
void containers_session_opened(void);
void containers_session_closed(void);
void containers_describe(struct json_writer *writer);
/* The n-th container in use, for statistics; NULL beyond the last. */
const struct container *container_at(int index);

/* From the session; false: the host broke the protocol. */
bool processes_data(uint32_t id, uint64_t offset, const uint8_t *bytes, size_t length, bool *known);
bool processes_end(uint32_t id, uint64_t offset, bool *known);
bool processes_window(uint32_t id, uint64_t acknowledged, uint64_t limit, bool *known);
void processes_reset(uint32_t id);
void processes_exit_acknowledged(uint32_t id);

/* Shutdown: to all containers; whether any still runs. */
bool containers_signal_all(int signal);

/*
 * process.c: for container.c. Each takes over the request, and answers it when the program runs;
 * the first also takes over the blank container.
 */
void process_start(struct container *container, struct request *request, struct blank *blank);
void process_exec(struct container *container, struct request *request);
void process_free(struct process *process);
/* Tells the host of an exit, once all output was sent and if it was not told in this session. */
void process_report(struct process *process);
/* Called by process.c. */
void container_started(struct container *container);
void container_start_failed(struct container *container);
void container_exited(struct container *container);

#endif
