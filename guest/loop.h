/* One thread, one epoll set, one event at a time: a handler may free any source, even its own. */
#ifndef HYPERSTART_LOOP_H
#define HYPERSTART_LOOP_H

#include <stdbool.h>
#include <stdint.h>

struct source {
  int fd;
  uint32_t events;
  void (*ready)(struct source *source, uint32_t events);
};

struct timer {
  uint64_t deadline_ms;
  void (*fire)(struct timer *timer);
  struct timer *next;
};

void loop_init(void);
/* Registers interest, changes it, or with 0 takes the source out of the set. False: no memory. */
bool loop_watch(struct source *source, uint32_t events);
/* Takes the source out and closes its descriptor. Idempotent. */
void loop_close(struct source *source);
/* Sets, or sets anew. The owner cancels before it frees the timer. */
void timer_set(struct timer *timer, uint64_t delay_ms, void (*fire)(struct timer *timer));
void timer_cancel(struct timer *timer);
/* Handles at most one event and all due timers; waits for them unless `busy`. */
void loop_turn(bool busy);

/* Since the kernel started. */
uint64_t uptime_ms(void);
/* Since the epoch, by the guest's clock. */
uint64_t clock_ms(void);

#endif
