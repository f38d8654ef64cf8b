#define _GNU_SOURCE
#include "freeze.h"

#include <dirent.h>
#include <errno.h>
#include <linux/ptrace.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/user.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hyperjail.h"

// A thread that computes is about to wait for something: the guest stands still.
#define ATTEMPTS 200
#define PAUSE_NS 5000000
// What the kernel keeps in rax of a system call that it means to start again (include/linux/errno.h).
#define RESTART_SYSTEM_CALL (-512)
#define RESTART_ALWAYS (-513)
#define RESTART_NO_HANDLER (-514)
#define RESTART_BLOCK (-516)
#define SYSCALL_BYTES 2
#define CS_USER 0x33
#define SS_USER 0x2b
// Of ucontext: ss is valid and is to be taken as it is (arch/x86/include/uapi/asm/ucontext.h).
#define CONTEXT_FLAGS 6
#define RED_ZONE 128

struct stopped {
  pid_t pid;
  int own;  // its number in the monitor's namespace
  struct user_regs_struct registers;
};

// Of the namespace that the monitor is in: the last of the line.
static int own_tid(pid_t pid, pid_t tid) {
  char path[64], line[256];
  snprintf(path, sizeof path, "/proc/%d/task/%d/status", pid, tid);
  FILE *file = fopen(path, "re");
  if (!file) fail("open \"%s\"", path);
  int own = 0;
  while (fgets(line, sizeof line, file)) {
    if (strncmp(line, "NSpid:", 6)) continue;
    char *at = strrchr(line, '\t');
    own = at ? atoi(at + 1) : 0;
  }
  fclose(file);
  if (own <= 0 || own > FROZEN_TID_MAX) refuse("thread %d has the number %d", tid, own);
  return own;
}

// False for one that has just ended. Should this program end half-way, the monitor ends with it: it
// may be in the middle of a call that it did not make.
static bool stop(pid_t tid) {
  if (ptrace(PTRACE_SEIZE, tid, 0, PTRACE_O_EXITKILL)) {
    if (errno == ESRCH) return false;
    refuse("the kernel lets nobody trace thread %d: %s", tid, strerror(errno));
  }
  int status = 0;
  if (ptrace(PTRACE_INTERRUPT, tid, 0, 0) || waitpid(tid, &status, __WALL) != tid)
    fail("stop thread %d", tid);
  errno = EAGAIN;
  if (!WIFSTOPPED(status) || status >> 16 != PTRACE_EVENT_STOP)
    fail("stop thread %d, which ended or got a signal", tid);
  return true;
}

static int compare(const void *a, const void *b) {
  return ((const struct stopped *)a)->own - ((const struct stopped *)b)->own;
}

// Until a look at the list finds no new one: stopped threads make none.
static size_t stop_all(pid_t pid, struct stopped *threads) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task", pid);
  size_t count = 0, known;
  do {
    known = count;
    DIR *list = opendir(path);
    if (!list) fail("list the threads of %d", pid);
    for (struct dirent *entry; (entry = readdir(list));) {
      pid_t tid = (pid_t)atoi(entry->d_name);
      size_t i = 0;
      while (i < count && threads[i].pid != tid) i++;
      if (tid <= 0 || i < count) continue;
      if (count == FROZEN_THREADS_MAX) refuse("more than %d threads", FROZEN_THREADS_MAX);
      if (!stop(tid)) continue;
      threads[count].pid = tid;
      threads[count++].own = own_tid(pid, tid);
    }
    closedir(list);
  } while (count > known);
  qsort(threads, count, sizeof threads[0], compare);
  return count;
}

static bool is_waiting(const struct user_regs_struct *registers) {
  static const long ANSWERS[] = {RESTART_SYSTEM_CALL, RESTART_ALWAYS, RESTART_NO_HANDLER,
                                 RESTART_BLOCK, -EINTR};
  for (size_t i = 0; i < sizeof ANSWERS / sizeof ANSWERS[0]; i++)
    if ((long)registers->orig_rax >= 0 && (long)registers->rax == ANSWERS[i]) return true;
  return false;
}

// Whether all of them wait in the kernel. There, no register counts but the general ones.
static bool are_in_system_calls(struct stopped *threads, size_t count) {
  bool all = true;
  for (size_t i = 0; i < count; i++) {
    if (ptrace(PTRACE_GETREGS, threads[i].pid, 0, &threads[i].registers))
      fail("read registers of thread %d", threads[i].pid);
    if (!is_waiting(&threads[i].registers)) all = false;
  }
  return all;
}

static void release(const struct stopped *threads, size_t count) {
  for (size_t i = 0; i < count; i++) ptrace(PTRACE_DETACH, threads[i].pid, 0, 0);
}

// Has a stopped thread make a system call: the instruction that it waits in is used once more.
static long call(const struct stopped *thread, long number, long a, long b, long c, long d) {
  struct user_regs_struct registers = thread->registers;
  pid_t tid = thread->pid;
  registers.rip -= SYSCALL_BYTES;
  registers.orig_rax = (unsigned long)-1;
  registers.rax = (unsigned long)number;
  registers.rdi = (unsigned long)a;
  registers.rsi = (unsigned long)b;
  registers.rdx = (unsigned long)c;
  registers.r10 = (unsigned long)d;
  int status;
  if (ptrace(PTRACE_SETREGS, tid, 0, &registers) || ptrace(PTRACE_SINGLESTEP, tid, 0, 0) ||
      waitpid(tid, &status, __WALL) != tid)
    fail("have thread %d make a system call", tid);
  errno = EAGAIN;
  if (!WIFSTOPPED(status) || WSTOPSIG(status) != SIGTRAP || status >> 16)
    fail("examine thread %d, which ended or got a signal", tid);
  if (ptrace(PTRACE_GETREGS, tid, 0, &registers) ||
      ptrace(PTRACE_SETREGS, tid, 0, &thread->registers))
    fail("put thread %d back", tid);
  return (long)registers.rax;
}

static uint64_t peek(pid_t tid, uint64_t address) {
  errno = 0;
  long word = ptrace(PTRACE_PEEKDATA, tid, (void *)address, 0);
  if (errno) fail("read memory of thread %d", tid);
  return (uint64_t)word;
}

// Room below what the thread uses of its stack, for what a system call writes.
static uint64_t scratch(const struct stopped *thread) {
  return (thread->registers.rsp - RED_ZONE - 64) & ~15ul;
}

static void describe_context(struct frozen_context *c, struct user_regs_struct r) {
  switch ((long)r.rax) {
    case RESTART_SYSTEM_CALL:
    case RESTART_ALWAYS:
    case RESTART_NO_HANDLER:
      r.rax = r.orig_rax;
      r.rip -= SYSCALL_BYTES;
      break;
    case RESTART_BLOCK:
      r.rax = (unsigned long)-EINTR;
      break;
  }
  *c = (struct frozen_context){
      .flags = CONTEXT_FLAGS, .stack_flags = 2 /* SS_DISABLE */,
      .r8 = r.r8, .r9 = r.r9, .r10 = r.r10, .r11 = r.r11, .r12 = r.r12, .r13 = r.r13,
      .r14 = r.r14, .r15 = r.r15, .rdi = r.rdi, .rsi = r.rsi, .rbp = r.rbp, .rbx = r.rbx,
      .rdx = r.rdx, .rax = r.rax, .rcx = r.rcx, .rsp = r.rsp, .rip = r.rip, .rflags = r.eflags,
      .cs = CS_USER, .ss = SS_USER,
  };
}

static void read_name(struct frozen_thread *t, pid_t pid, pid_t tid) {
  char path[64];
  snprintf(path, sizeof path, "/proc/%d/task/%d/comm", pid, tid);
  FILE *file = fopen(path, "re");
  if (!file || !fgets(t->name, sizeof t->name, file)) fail("read \"%s\"", path);
  fclose(file);
  t->name[strcspn(t->name, "\n")] = 0;
}

static void describe(struct frozen_thread *t, pid_t pid, const struct stopped *s) {
  pid_t tid = s->pid;
  describe_context(&t->context, s->registers);
  if (ptrace(PTRACE_GETSIGMASK, tid, sizeof t->context.signal_mask, &t->context.signal_mask))
    fail("read the signal mask of thread %d", tid);
  t->fs_base = s->registers.fs_base;
  t->tid = s->own;
  read_name(t, pid, tid);
  uint64_t place = scratch(s);
  if (call(s, SYS_prctl, PR_GET_TID_ADDRESS, (long)place, 0, 0))
    refuse("the kernel does not tell the address of a thread's number");
  t->tid_address = peek(tid, place);
  uint64_t list, size;
  if (syscall(SYS_get_robust_list, tid, &list, &size)) fail("read the robust list of %d", tid);
  t->robust_list = list;
  t->robust_list_size = size;
  struct ptrace_rseq_configuration rseq = {0};
  if (ptrace(PTRACE_GET_RSEQ_CONFIGURATION, tid, sizeof rseq, &rseq) < 0)
    refuse("the kernel does not tell of restartable sequences");
  t->rseq = rseq.rseq_abi_pointer;
  t->rseq_size = rseq.rseq_abi_size;
  t->rseq_signature = rseq.signature;
}

static void describe_actions(struct frozen_action *actions, const struct stopped *leader) {
  uint64_t place = scratch(leader);
  for (int signal = 1; signal <= FROZEN_SIGNALS; signal++) {
    if (call(leader, SYS_rt_sigaction, signal, 0, (long)place, 8))
      refuse("the monitor cannot tell its action for signal %d", signal);
    for (size_t i = 0; i < sizeof *actions / 8; i++)
      ((uint64_t *)&actions[signal - 1])[i] = peek(leader->pid, place + 8 * i);
  }
}

static uint64_t find_restorer(const struct frozen_action *actions) {
  for (int i = 0; i < FROZEN_SIGNALS; i++)
    if (actions[i].restorer) return actions[i].restorer;
  refuse("the monitor handles no signal");
}

static uint64_t timer_slack(pid_t pid) {
  char path[64];
  unsigned long ns;
  snprintf(path, sizeof path, "/proc/%d/timerslack_ns", pid);
  FILE *file = fopen(path, "re");
  if (!file || fscanf(file, "%lu", &ns) != 1) fail("read \"%s\"", path);
  fclose(file);
  return ns;
}

static void describe_layout(struct frozen_layout *l, const struct stopped *leader) {
  unsigned long long fields[STAT_FIELDS];
  process_stat(leader->pid, fields);
  *l = (struct frozen_layout){
      .code_start = fields[26], .code_end = fields[27], .stack_start = fields[28],
      .data_start = fields[45], .data_end = fields[46], .heap_start = fields[47],
      .arguments_start = fields[48], .arguments_end = fields[49],
      .environment_start = fields[50], .environment_end = fields[51],
      .heap_end = (uint64_t)call(leader, SYS_brk, 0, 0, 0, 0),
  };
}

void threads_freeze(struct frozen_tables *t, pid_t pid) {
  static struct stopped threads[FROZEN_THREADS_MAX];
  size_t count;
  for (int attempt = 1;; attempt++) {
    count = stop_all(pid, threads);
    if (are_in_system_calls(threads, count)) break;
    release(threads, count);
    errno = EBUSY;
    if (attempt == ATTEMPTS) fail("bring the monitor to rest");
    nanosleep(&(struct timespec){0, PAUSE_NS}, NULL);
  }
  for (size_t i = 0; i < count; i++) describe(&t->threads[i], pid, &threads[i]);
  if (t->threads[0].tid != 1) refuse("the monitor is not the first process of its namespace");
  describe_actions(t->actions, &threads[0]);
  t->header.restorer = find_restorer(t->actions);
  t->header.timer_slack_ns = timer_slack(pid);
  describe_layout(&t->header.layout, &threads[0]);
  t->header.threads_count = (uint32_t)count;
}
