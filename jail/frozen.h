// A frozen monitor: the memory, threads and descriptors of a QEMU process that emulates a stopped
// guest, in a file from which `hyperthaw` makes such processes again. `hyperjail freeze` writes it.
//
//   header | segments | files | descriptors | watches | actions | threads | pages ...
//
// Tables and pages begin at multiples of FROZEN_PAGE. The file is of one boot of one host and one
// build of both programs: it holds addresses, and structures as the compiler lays them out.
#ifndef FROZEN_H
#define FROZEN_H

#include <stdint.h>

#define FROZEN_MAGIC "hnfrozen"
#define FROZEN_VERSION 1u
#define FROZEN_PAGE 4096ul

// Between these addresses hyperthaw works, at a random place: far below everything that Linux gives
// a program that may lie anywhere, which QEMU is.
#define THAW_MIN 0x100000000ul
#define THAW_END 0x400000000000ul

// More than QEMU 7.2 has (1,100 segments of 190 files, 25 descriptors, 3 to 12 threads).
#define FROZEN_SEGMENTS_MAX 8192
#define FROZEN_FILES_MAX 512
#define FROZEN_DESCRIPTORS_MAX 256
#define FROZEN_WATCHES_MAX 256
#define FROZEN_THREADS_MAX 64
#define FROZEN_SPECIALS_MAX 4
#define FROZEN_SIGNALS 64
#define FROZEN_PATH_MAX 256
#define FROZEN_TID_MAX 1024
// Descriptors keep their numbers; what hyperthaw is given is kept above them meanwhile.
#define FROZEN_NUMBER_END 400

enum frozen_segment_kind {
  SEGMENT_ANONYMOUS,  // nothing was ever written there
  SEGMENT_PAGES,      // from this file, copied when written
  SEGMENT_COPY,       // from this file, copied now: /proc shows a command line of such memory only
  SEGMENT_FILE,       // from a file that the cell shows: programs and libraries
  SEGMENT_GUEST,      // from the file of the guest's memory, copied when written
};

struct frozen_segment {
  uint64_t start, length, offset;
  uint32_t protection, kind, file, unused;
};

// The same file, or another one of that name?
struct frozen_file {
  char path[FROZEN_PATH_MAX];
  uint64_t device, inode, size, modified_ns;
};

enum frozen_descriptor_kind {
  DESCRIPTOR_INHERITED,  // from the jail, at the number `source`
  DESCRIPTOR_DUPLICATE,  // of `source`, which comes before it
  DESCRIPTOR_EVENTS,     // an eventfd with `value` in it
  DESCRIPTOR_SIGNALS,    // a signalfd for the mask `value`
  DESCRIPTOR_EPOLL,
  DESCRIPTOR_DEVICE,     // opened by its path
};

struct frozen_descriptor {
  int32_t number, kind, source;
  int32_t status_flags, descriptor_flags, unused;
  uint64_t value;
  char path[64];
};

// What an epoll descriptor looks at.
struct frozen_watch {
  int32_t epoll, number;
  uint32_t events, unused;
  uint64_t data;
};

// As the kernel takes it, without the C library's view of it.
struct frozen_action {
  uint64_t handler, flags, restorer, mask;
};

// What rt_sigreturn takes back: the kernel's ucontext of x86-64.
struct frozen_context {
  uint64_t flags, link;
  uint64_t stack_pointer, stack_flags, stack_size;
  uint64_t r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip;
  uint64_t rflags;
  uint16_t cs, gs, fs, ss;
  uint64_t error, trap, old_mask, cr2, fpstate, reserved[8];
  uint64_t signal_mask;
};

struct frozen_thread {
  // hyperthaw's own stack of the thread, until the thread goes on.
  unsigned char stack[4096 - 512];
  struct frozen_context context;
  uint64_t fs_base, tid_address, robust_list, robust_list_size;
  uint64_t rseq, rseq_signature;
  uint32_t rseq_size;
  int32_t tid;
  char name[16];
} __attribute__((aligned(4096)));

struct frozen_range {
  uint64_t start, length;
};

// Where the kernel takes the parts of the program to lie: the heap grows behind its end.
struct frozen_layout {
  uint64_t code_start, code_end, data_start, data_end, heap_start, heap_end, stack_start;
  uint64_t arguments_start, arguments_end, environment_start, environment_end;
};

struct frozen_header {
  char magic[8];
  uint32_t version, threads_count;
  uint32_t segments_count, files_count, descriptors_count, watches_count;
  uint64_t segments, files, descriptors, watches, actions, threads, tables_end;
  // The kernel's own pages in the process, vDSO last; the new process has them somewhere else.
  uint64_t specials_count;
  struct frozen_range specials[FROZEN_SPECIALS_MAX];
  struct frozen_layout layout;
  // The C library's own way out of a signal's handler: it calls rt_sigreturn.
  uint64_t restorer;
  uint64_t timer_slack_ns;
};

#endif
