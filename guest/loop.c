#include "loop.h"

#include <errno.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

static int epoll_fd = -1;
static struct timer *timers;

static uint64_t read_clock(clockid_t clock) {
  struct timespec now;
  clock_gettime(clock, &now);
  return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

uint64_t uptime_ms(void) { return read_clock(CLOCK_BOOTTIME); }
uint64_t clock_ms(void) { return read_clock(CLOCK_REALTIME); }

void loop_init(void) { epoll_fd = epoll_create1(EPOLL_CLOEXEC); }

bool loop_watch(struct source *source, uint32_t events) {
  if (source->events == events) return true;
  struct epoll_event event = {.events = events, .data.ptr = source};
  int operation = !events ? EPOLL_CTL_DEL : source->events ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
  if (epoll_ctl(epoll_fd, operation, source->fd, &event) < 0 && events) return false;
  source->events = events;
  return true;
}

void loop_close(struct source *source) {
  if (source->fd < 0) return;
  loop_watch(source, 0);
  close(source->fd);
  source->fd = -1;
}

void timer_cancel(struct timer *timer) {
  for (struct timer **link = &timers; *link; link = &(*link)->next) {
    if (*link != timer) continue;
    *link = timer->next;
    return;
  }
}

void timer_set(struct timer *timer, uint64_t delay_ms, void (*fire)(struct timer *timer)) {
  timer_cancel(timer);
  timer->deadline_ms = uptime_ms() + delay_ms;
  timer->fire = fire;
  struct timer **link = &timers;
  while (*link && (*link)->deadline_ms <= timer->deadline_ms) link = &(*link)->next;
  timer->next = *link;
  *link = timer;
}

static void fire_due(void) {
  uint64_t now_ms = uptime_ms();
  while (timers && timers->deadline_ms <= now_ms) {
    struct timer *due = timers;
    timers = due->next;
    due->fire(due);
  }
}

static int wait_ms(bool busy) {
  if (busy) return 0;
  if (!timers) return -1;
  uint64_t now_ms = uptime_ms();
  if (timers->deadline_ms <= now_ms) return 0;
  uint64_t delay_ms = timers->deadline_ms - now_ms;
  return delay_ms > 1000000 ? 1000000 : (int)delay_ms;
}

void loop_turn(bool busy) {
  struct epoll_event event;
  int count = epoll_wait(epoll_fd, &event, 1, wait_ms(busy));
  if (count == 1) {
    struct source *source = event.data.ptr;
    source->ready(source, event.events);
  }
  fire_due();
}
