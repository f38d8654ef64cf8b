/*
 * Runs on the host: prints the frequency of its time stamp counter in kHz. An emulated guest is
 * told it on its command line, because it cannot measure it (src/hyperd/guestkernel/arguments.ts).
 */
#include <stdint.h>
#include <stdio.h>
#include <time.h>
#include <x86intrin.h>

#define SAMPLES 3
#define SAMPLE_NANOS 30000000

static uint64_t now_nanos(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC_RAW, &now);
  return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

/* The counter and the clock as close together as the shortest of some tries gets them. */
static void read_both(uint64_t *ticks, uint64_t *nanos) {
  uint64_t shortest = UINT64_MAX;
  for (int i = 0; i < 32; i++) {
    uint64_t before = __rdtsc(), at = now_nanos(), after = __rdtsc();
    if (after - before >= shortest) continue;
    shortest = after - before;
    *ticks = before + (after - before) / 2;
    *nanos = at;
  }
}

static uint64_t sample(void) {
  uint64_t ticks[2], nanos[2];
  struct timespec pause = {.tv_nsec = SAMPLE_NANOS};
  read_both(&ticks[0], &nanos[0]);
  nanosleep(&pause, NULL);
  read_both(&ticks[1], &nanos[1]);
  return (ticks[1] - ticks[0]) * 1000000u / (nanos[1] - nanos[0]);
}

int main(void) {
  uint64_t khz[SAMPLES];
  for (int i = 0; i < SAMPLES; i++) khz[i] = sample();
  uint64_t low = khz[0], high = khz[0], sum = khz[0];
  for (int i = 1; i < SAMPLES; i++) {
    sum += khz[i];
    if (khz[i] < low) low = khz[i];
    if (khz[i] > high) high = khz[i];
  }
  /* The middle one. */
  printf("%llu\n", (unsigned long long)(sum - low - high));
  return 0;
}
