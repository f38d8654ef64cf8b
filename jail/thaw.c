// hyperthaw IMAGE MEMORY NAME: becomes the monitor that `hyperjail freeze` wrote to the open file IMAGE,
// with the guest's memory from the open file MEMORY. It runs in a cell, after the jail has closed,
// with no right that a monitor does not have: what it needs are the calls of any program's start.
//
// It takes the place of everything it was started with: it moves to a random place, clears the
// address space, lays the frozen memory out (copied when written), makes descriptors at their old
// numbers and threads with their old numbers, which in a new PID namespace are the next ones, and
// has each go on where it was stopped. Without a C library: there is none to stand on. What stays of
// it are two pages of code and its stack, which nothing points to.
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/prctl.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stdbool.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>

#include "frozen.h"

#define STDERR 2
#define EXIT_THAW 125
#define STACK_BYTES 16384
// From a random address on: this program, the tables, the kernel's pages on their way.
#define WINDOW_BYTES 0x4000000ul
#define WINDOW_TABLES 0x1000000ul
#define WINDOW_SPECIALS 0x3000000ul
#define LOWEST_ADDRESS 0x10000ul
#define PAGE_BITS 12
#define RED_ZONE 128
#define ADDRESSES_END 0x7ffffffff000ul
#define AT_END 0
#define AT_VDSO 33
#define SET_FS 0x1002
// What the jail hands over lies below INHERITED_END, and above FROZEN_NUMBER_END meanwhile.
#define INHERITED_MIN 3
#define INHERITED_END 128
#define LIFTED 600
#define SIGNAL_SET_BYTES 8
#define NAME_BYTES 128
#define ALL_SIGNALS (~0ul)
#define SIGNAL_KILL 9
#define SIGNAL_STOP 19
#define MASK_BLOCK 0
#define THREAD_FLAGS (CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)

// From the linker.
extern const char __executable_start[], __bss_start[], _end[];

static unsigned char start_stack[STACK_BYTES] __attribute__((aligned(16)));
static uint64_t window;
static struct frozen_header *header;
// Threads that need nothing of the tables any more.
static volatile uint32_t gone_on;

static long call(long number, long a, long b, long c, long d, long e, long f) {
  long result;
  register long r10 __asm__("r10") = d;
  register long r8 __asm__("r8") = e;
  register long r9 __asm__("r9") = f;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

static size_t length(const char *text) {
  size_t n = 0;
  while (text[n]) n++;
  return n;
}

static void say(const char *text) { call(SYS_write, STDERR, (long)text, (long)length(text), 0, 0, 0); }

__attribute__((noreturn)) static void fail(const char *what, const char *subject, long error) {
  char digits[24];
  char *at = digits + sizeof digits;
  unsigned long value = (unsigned long)(error < 0 ? -error : error);
  *--at = 0;
  *--at = '\n';
  do *--at = (char)('0' + value % 10);
  while (value /= 10);
  say("hyperthaw: cannot ");
  say(what);
  say(subject);
  say(": error ");
  say(at);
  for (;;) call(SYS_exit_group, EXIT_THAW, 0, 0, 0, 0, 0);
}

static void check(long result, const char *what) {
  if (result < 0) fail(what, "", result);
}

static const void *table(uint64_t offset) { return (const char *)header + offset; }

static void tables_load(long image) {
  struct frozen_header h;
  long size = call(SYS_pread64, image, (long)&h, sizeof h, 0, 0, 0);
  if (size != sizeof h) fail("read the frozen monitor", "", size);
  for (size_t i = 0; i < sizeof h.magic; i++)
    if (h.magic[i] != FROZEN_MAGIC[i]) fail("understand the frozen monitor", "", EINVAL);
  if (h.version != FROZEN_VERSION || h.tables_end > WINDOW_SPECIALS - WINDOW_TABLES)
    fail("understand the frozen monitor", "", EINVAL);
  long at = call(SYS_mmap, (long)(window + WINDOW_TABLES), (long)h.tables_end,
                 PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_FIXED_NOREPLACE, image, 0);
  if (at != (long)(window + WINDOW_TABLES)) fail("map the tables", "", at);
  header = (struct frozen_header *)at;
}

// The kernel's pages move together: the code in the last of them finds the others by distance.
static void specials_move(uint64_t vdso) {
  if (!header->specials_count) return;
  const struct frozen_range *last = &header->specials[header->specials_count - 1];
  for (size_t i = 0; i < header->specials_count; i++) {
    const struct frozen_range *r = &header->specials[i];
    long distance = (long)(last->start - r->start);
    long to = (long)(window + WINDOW_SPECIALS) + (long)(r->start - header->specials[0].start);
    long at = call(SYS_mremap, (long)vdso - distance, (long)r->length, (long)r->length,
                   MREMAP_MAYMOVE | MREMAP_FIXED, to, 0);
    if (at != to) fail("move the vDSO", "", at);
  }
}

static void specials_place(void) {
  for (size_t i = 0; i < header->specials_count; i++) {
    const struct frozen_range *r = &header->specials[i];
    long from = (long)(window + WINDOW_SPECIALS) + (long)(r->start - header->specials[0].start);
    long at = call(SYS_mremap, from, (long)r->length, (long)r->length,
                   MREMAP_MAYMOVE | MREMAP_FIXED, (long)r->start, 0);
    if (at != (long)r->start) fail("place the vDSO", "", at);
  }
}

static size_t copy(char *to, const char *text, size_t size) {
  size_t n = 0;
  for (; n + 1 < size && text[n]; n++) to[n] = text[n];
  to[n] = 0;
  return n + 1;
}

// Without it the heap could not grow: the kernel would take it to begin behind this program. What
// others see as the command line is the name from now on.
static void layout_set(const char *name) {
  const struct frozen_layout *l = &header->layout;
  size_t size = copy((char *)l->arguments_start, name, l->arguments_end - l->arguments_start);
  struct prctl_mm_map map = {
      .start_code = l->code_start, .end_code = l->code_end, .start_data = l->data_start,
      .end_data = l->data_end, .start_brk = l->heap_start, .brk = l->heap_end,
      .start_stack = l->stack_start, .arg_start = l->arguments_start,
      .arg_end = l->arguments_start + size, .env_start = l->environment_start,
      .env_end = l->environment_end, .exe_fd = ~0u,
  };
  check(call(SYS_prctl, PR_SET_MM, PR_SET_MM_MAP, (long)&map, sizeof map, 0, 0), "set the layout");
}

static void memory_clear(void) {
  uint64_t end = window + WINDOW_BYTES;
  check(call(SYS_munmap, LOWEST_ADDRESS, (long)(window - LOWEST_ADDRESS), 0, 0, 0, 0), "clear memory");
  check(call(SYS_munmap, (long)end, (long)(ADDRESSES_END - end), 0, 0, 0, 0), "clear memory");
}

static long file_open(const struct frozen_file *f) {
  long fd = call(SYS_openat, AT_FDCWD, (long)f->path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
  if (fd < 0) fail("open ", f->path, fd);
  struct stat status;
  check(call(SYS_fstat, fd, (long)&status, 0, 0, 0, 0), "examine a library");
  uint64_t modified_ns =
      (uint64_t)status.st_mtim.tv_sec * 1000000000u + (uint64_t)status.st_mtim.tv_nsec;
  if (status.st_dev != f->device || status.st_ino != f->inode ||
      (uint64_t)status.st_size != f->size || modified_ns != f->modified_ns)
    fail("go on with another ", f->path, ESTALE);
  return fd;
}

// A page behind the end of a mapped file would be missed only when it is used.
static uint64_t size_of(long fd) {
  struct stat status;
  check(call(SYS_fstat, fd, (long)&status, 0, 0, 0, 0), "examine the frozen monitor");
  return (uint64_t)status.st_size;
}

static void memory_map(long image, long guest) {
  uint64_t image_size = size_of(image), guest_size = size_of(guest);
  const struct frozen_segment *segments = table(header->segments);
  const struct frozen_file *files = table(header->files);
  long file = -1;
  uint32_t opened = ~0u;
  for (size_t i = 0; i < header->segments_count; i++) {
    const struct frozen_segment *s = &segments[i];
    long flags = MAP_PRIVATE | MAP_FIXED, fd = -1;
    if (s->kind == SEGMENT_ANONYMOUS || s->kind == SEGMENT_COPY) flags |= MAP_ANONYMOUS | MAP_NORESERVE;
    if (s->kind == SEGMENT_PAGES) fd = image;
    if (s->kind == SEGMENT_GUEST) fd = guest;
    if (s->kind == SEGMENT_FILE) {
      if (s->file != opened) {
        if (file >= 0) call(SYS_close, file, 0, 0, 0, 0, 0);
        file = file_open(&files[s->file]);
        opened = s->file;
      }
      fd = file;
    }
    if (((s->kind == SEGMENT_PAGES || s->kind == SEGMENT_COPY) && s->offset + s->length > image_size) ||
        (s->kind == SEGMENT_GUEST && s->offset + s->length > guest_size))
      fail("map a file that is too short", "", EINVAL);
    long at = call(SYS_mmap, (long)s->start, (long)s->length, s->protection, flags, fd,
                   fd < 0 ? 0 : (long)s->offset);
    if (at != (long)s->start) fail("map memory", "", at);
    if (s->kind == SEGMENT_COPY &&
        call(SYS_pread64, image, at, (long)s->length, (long)s->offset, 0, 0) != (long)s->length)
      fail("read the stack", "", EIO);
  }
  if (file >= 0) call(SYS_close, file, 0, 0, 0, 0, 0);
}

// The file gets the number `target`, which nothing has; `fd` is given up.
static void place(long fd, int target, int flags) {
  if (fd < 0) fail("make a descriptor", "", fd);
  if (fd == target) {
    check(call(SYS_fcntl, fd, F_SETFD, flags, 0, 0, 0), "set a descriptor's flags");
    return;
  }
  long at = call(SYS_fcntl, fd, flags & FD_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, target, 0, 0, 0);
  if (at != target) fail("place a descriptor", "", at);
  call(SYS_close, fd, 0, 0, 0, 0, 0);
}

static long lift(long fd) {
  return call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, LIFTED + fd, 0, 0, 0);
}

static long duplicate(long fd) {
  return call(SYS_fcntl, fd, F_DUPFD_CLOEXEC, LIFTED + INHERITED_END, 0, 0, 0);
}

// High, as everything that is not in its place yet.
static long raise(long fd) {
  if (fd < 0) return fd;
  long high = duplicate(fd);
  call(SYS_close, fd, 0, 0, 0, 0, 0);
  return high;
}

static long descriptor_make(const struct frozen_descriptor *d) {
  switch (d->kind) {
    case DESCRIPTOR_INHERITED:
      return duplicate(LIFTED + d->source);
    case DESCRIPTOR_DUPLICATE:
      return duplicate(d->source);
    case DESCRIPTOR_EVENTS: {
      long fd = call(SYS_eventfd2, 0, 0, 0, 0, 0, 0);
      if (fd >= 0 && d->value) call(SYS_write, fd, (long)&d->value, 8, 0, 0, 0);
      return raise(fd);
    }
    case DESCRIPTOR_SIGNALS:
      return raise(call(SYS_signalfd4, -1, (long)&d->value, SIGNAL_SET_BYTES, 0, 0, 0));
    case DESCRIPTOR_EPOLL:
      return raise(call(SYS_epoll_create1, 0, 0, 0, 0, 0, 0));
    case DESCRIPTOR_DEVICE:
      return raise(call(SYS_openat, AT_FDCWD, (long)d->path, d->status_flags | O_CLOEXEC, 0, 0, 0));
  }
  return -EINVAL;
}

static void descriptors_make(void) {
  for (long fd = INHERITED_MIN; fd < INHERITED_END; fd++) {
    if (lift(fd) < 0) continue;
    call(SYS_close, fd, 0, 0, 0, 0, 0);
  }
  const struct frozen_descriptor *all = table(header->descriptors);
  for (size_t i = 0; i < header->descriptors_count; i++) {
    const struct frozen_descriptor *d = &all[i];
    if (d->number < INHERITED_MIN) continue;
    place(descriptor_make(d), d->number, d->descriptor_flags);
    check(call(SYS_fcntl, d->number, F_SETFL, d->status_flags, 0, 0, 0), "set a file's flags");
  }
  const struct frozen_watch *watches = table(header->watches);
  for (size_t i = 0; i < header->watches_count; i++) {
    struct epoll_event event = {.events = watches[i].events, .data.u64 = watches[i].data};
    check(call(SYS_epoll_ctl, watches[i].epoll, EPOLL_CTL_ADD, watches[i].number, (long)&event, 0, 0),
          "watch a descriptor");
  }
  for (long fd = LIFTED; fd < LIFTED + INHERITED_END; fd++) call(SYS_close, fd, 0, 0, 0, 0, 0);
}

static void actions_set(void) {
  const struct frozen_action *actions = table(header->actions);
  for (long signal = 1; signal <= FROZEN_SIGNALS; signal++) {
    if (signal == SIGNAL_KILL || signal == SIGNAL_STOP) continue;
    check(call(SYS_rt_sigaction, signal, (long)&actions[signal - 1], 0, SIGNAL_SET_BYTES, 0, 0),
          "set a signal's action");
  }
}

// QEMU's own filter is not part of its memory. The jail's holds, and allows two things too many, by
// which this program started and has laid out its memory.
static void start_forbid(void) {
  struct sock_filter code[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_execve, 4, 0),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_prctl, 0, 2),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_MM, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
  };
  struct sock_fprog program = {sizeof code / sizeof code[0], code};
  check(call(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, (long)&program, 0, 0, 0), "forbid another start");
}

// The way back from a signal's handler takes all registers from a context. So that nothing has to
// stay for it, it goes onto the thread's own stack, and the C library's code is the last step.
__attribute__((noreturn)) static void context_enter(const struct frozen_context *context,
                                                    uint64_t restorer) {
  uint64_t top = (context->rsp - RED_ZONE - sizeof *context) & ~15ul;
  struct frozen_context *own = (struct frozen_context *)top;
  *own = *context;
  __asm__ volatile(
      "mov %0, %%rsp\n\t"
      "lock incl (%2)\n\t"
      "jmp *%1"
      :
      : "r"(own), "r"(restorer), "r"(&gone_on)
      : "memory");
  __builtin_unreachable();
}

static void thread_register(const struct frozen_thread *t) {
  call(SYS_prctl, PR_SET_NAME, (long)t->name, 0, 0, 0, 0);
  if (t->robust_list)
    call(SYS_set_robust_list, (long)t->robust_list, (long)t->robust_list_size, 0, 0, 0, 0);
  if (t->rseq)
    check(call(SYS_rseq, (long)t->rseq, t->rseq_size, 0, (long)t->rseq_signature, 0, 0),
          "register restartable sequences");
}

__attribute__((noreturn, used)) static void thread_go_on(struct frozen_thread *t) {
  thread_register(t);
  context_enter(&t->context, header->restorer);
}

// Returns the new thread's number in the thread that called.
static long thread_make(struct frozen_thread *t) {
  struct frozen_thread **top = (struct frozen_thread **)(t->stack + sizeof t->stack);
  *--top = t;
  long result;
  long flags = THREAD_FLAGS | CLONE_SETTLS | CLONE_CHILD_CLEARTID;
  register long r10 __asm__("r10") = (long)t->tid_address;
  register long r8 __asm__("r8") = (long)t->fs_base;
  __asm__ volatile(
      "syscall\n\t"
      "test %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "pop %%rdi\n\t"
      "xor %%ebp, %%ebp\n\t"
      "and $-16, %%rsp\n\t"
      "call thread_go_on\n"
      "1:"
      : "=a"(result)
      : "a"(SYS_clone), "D"(flags), "S"(top), "d"(0), "r"(r10), "r"(r8)
      : "rcx", "r11", "memory");
  return result;
}

// Takes a number that a thread had which ended before the freezing.
static long number_take(struct frozen_thread *next) {
  long result;
  register long r10 __asm__("r10") = 0;
  register long r8 __asm__("r8") = 0;
  __asm__ volatile(
      "syscall\n\t"
      "test %%rax, %%rax\n\t"
      "jnz 1f\n\t"
      "xor %%edi, %%edi\n\t"
      "mov %4, %%eax\n\t"
      "syscall\n\t"
      "hlt\n"
      "1:"
      : "=a"(result)
      : "a"(SYS_clone), "D"(THREAD_FLAGS), "S"(next->stack + sizeof next->stack), "i"(SYS_exit), "d"(0),
        "r"(r10), "r"(r8)
      : "rcx", "r11", "memory");
  return result;
}

static void threads_make(struct frozen_thread *threads) {
  long number = 1;
  for (size_t i = 1; i < header->threads_count; i++) {
    struct frozen_thread *t = &threads[i];
    while (++number < t->tid)
      if (number_take(t) != number) fail("number a thread", "", EAGAIN);
    long made = thread_make(t);
    if (made != number) fail("make a thread", "", made);
  }
}

// The first process of the namespace is the last to go on: the tables are not needed then.
__attribute__((noreturn)) static void leader_go_on(struct frozen_thread *leader) {
  call(SYS_set_tid_address, (long)leader->tid_address, 0, 0, 0, 0, 0);
  check(call(SYS_arch_prctl, SET_FS, (long)leader->fs_base, 0, 0, 0, 0), "set the thread's base");
  thread_register(leader);
  while (gone_on != header->threads_count - 1) call(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
  struct frozen_context context = leader->context;
  uint64_t restorer = header->restorer;
  call(SYS_munmap, (long)(window + WINDOW_TABLES), (long)(WINDOW_BYTES - WINDOW_TABLES), 0, 0, 0, 0);
  context_enter(&context, restorer);
}

__attribute__((noreturn, used)) static void thaw(long *stack) {
  long count = stack[0];
  char **arguments = (char **)&stack[1];
  if (count != 4) fail("start without IMAGE, MEMORY and NAME", "", EINVAL);
  long numbers[2] = {0, 0};
  for (int i = 0; i < 2; i++)
    for (const char *at = arguments[i + 1]; *at >= '0' && *at <= '9'; at++)
      numbers[i] = numbers[i] * 10 + (*at - '0');
  char name[NAME_BYTES];
  copy(name, arguments[3], sizeof name);
  long *at = &stack[1 + count + 1];
  while (*at) at++;
  uint64_t vdso = 0;
  for (at++; at[0] != AT_END; at += 2)
    if (at[0] == AT_VDSO) vdso = (uint64_t)at[1];

  unsigned long all = ALL_SIGNALS;
  call(SYS_rt_sigprocmask, MASK_BLOCK, (long)&all, 0, SIGNAL_SET_BYTES, 0, 0);
  tables_load(numbers[0]);
  specials_move(vdso);
  memory_clear();
  memory_map(numbers[0], numbers[1]);
  specials_place();
  layout_set(name);
  descriptors_make();
  actions_set();
  start_forbid();
  call(SYS_prctl, PR_SET_TIMERSLACK, (long)header->timer_slack_ns, 0, 0, 0, 0);
  struct frozen_thread *threads = (struct frozen_thread *)table(header->threads);
  threads_make(threads);
  leader_go_on(&threads[0]);
}

// A place that nobody can know: what is the same in all emulators would be a foothold in each.
static uint64_t window_choose(void) {
  uint64_t random;
  if (call(SYS_getrandom, (long)&random, sizeof random, 0, 0, 0, 0) != sizeof random)
    fail("draw a random number", "", EAGAIN);
  return (THAW_MIN + random % (THAW_END - WINDOW_BYTES - THAW_MIN)) >> PAGE_BITS << PAGE_BITS;
}

// Everything refers to everything else by distance, so a copy works.
__attribute__((noreturn, used)) static void move(long *stack) {
  uint64_t here = (uint64_t)__executable_start, size = (uint64_t)_end - here;
  window = window_choose();
  long at = call(SYS_mmap, (long)window, (long)size, PROT_READ | PROT_WRITE,
                 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
  if (at != (long)window) fail("map memory", "", at);
  for (uint64_t i = 0; i < size; i += sizeof(uint64_t))
    *(uint64_t *)(window + i) = *(const uint64_t *)(here + i);
  check(call(SYS_mprotect, (long)window, (long)((uint64_t)__bss_start - here), PROT_READ | PROT_EXEC, 0,
             0, 0),
        "protect the program");
  uint64_t distance = window - here;
  __asm__ volatile(
      "mov %0, %%rsp\n\t"
      "xor %%ebp, %%ebp\n\t"
      "call *%1"
      :
      : "r"((uint64_t)start_stack + sizeof start_stack + distance), "r"((uint64_t)thaw + distance),
        "D"(stack)
      : "memory");
  __builtin_unreachable();
}

__asm__(
    ".globl _start\n"
    "_start:\n\t"
    "mov %rsp, %rdi\n\t"
    "and $-16, %rsp\n\t"
    "call move\n");
