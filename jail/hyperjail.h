// hyperjail: puts one virtual machine monitor into a cell of its own and waits for its end.
//
//   hyperjail run    [options] -- PROGRAM [ARGUMENT...]
//   hyperjail attach --socket QMP --fdset N --disk-ro|--disk-rw PATH
//   hyperjail attach --socket QMP --state PATH    has the monitor save its state to that file
//   hyperjail freeze --pid PID --start-ticks N --inventory PATH --image PATH
//                    writes a monitor that stands still to a file, and ends it: frozen.h
//   hyperjail tsc    prints the frequency of the time stamp counter in kHz
//
// Two processes come out of `run`. The *keeper* stays outside as a process of root with next to
// no memory: it drains console and error output into files of bounded size, and when the monitor
// has ended it removes the control groups and leaves the verdict in exit.json. The *cell* becomes
// the monitor: own user, PID, mount, network, IPC and UTS namespace, a read-only root in which
// nothing is writable, no capability, seccomp. All that it may use of the host it inherits as open
// file descriptors: disks, the tap device, listening sockets.
#ifndef HYPERJAIL_H
#define HYPERJAIL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

// More than any VM needs; a bound on what a confused caller can make a root process do.
#define BINDS_MAX 256
#define DEVICES_MAX 8
#define CGROUPS_MAX 8
#define CGROUP_SETTINGS_MAX 128
#define DESCRIPTORS_MAX 64
#define TEXT_MAX 4096
// Targets of inherited descriptors lie in [DESCRIPTOR_MIN, DESCRIPTOR_END).
#define DESCRIPTOR_MIN 3
#define DESCRIPTOR_END 128
#define UID_MIN 1000

enum descriptor_kind { DISK_READ_ONLY, DISK_WRITABLE, LISTENING_SOCKET, TAP, CONSOLE };

// Something that the cell inherits open at the number `target`.
struct descriptor {
  enum descriptor_kind kind;
  int target;
  const char *path;   // disk: its file; socket: its name in the directory; tap: its name
  const char *netns;  // tap: path of its network namespace; NULL: a tap that leads nowhere
  int fd;
};

struct bind {
  const char *path;
  const char *target;
  bool executable;
};

struct setting {
  const char *file;
  const char *value;
};

struct options {
  const char *directory;
  uid_t uid;
  struct bind binds[BINDS_MAX];
  size_t bind_count;
  const char *devices[DEVICES_MAX];
  size_t device_count;
  const char *cgroups[CGROUPS_MAX];
  size_t cgroup_count;
  const char *keeper_cgroups[CGROUPS_MAX];
  size_t keeper_cgroup_count;
  struct setting settings[CGROUP_SETTINGS_MAX];
  size_t setting_count;
  struct descriptor descriptors[DESCRIPTORS_MAX];
  size_t descriptor_count;
  unsigned long file_count_max;
  const char *inventory;  // file in the directory for what is inherited; NULL: none is written
  const char *thaw;     // hyperthaw as a file of the host, where it is the program
  const char *preload;  // hyperlend.so as a file of the host; NULL: the program runs without it
  char **program;
};

// util.c. `fail` prints "hyperjail: cannot WHAT: reason of errno" and exits with 125.
// `refuse` says what no second attempt will change, and exits with 124.
#define EXIT_REFUSED 124
#define EXIT_JAIL 125
#define EXIT_NOT_EXECUTED 126
__attribute__((noreturn, format(printf, 1, 2))) void fail(const char *format, ...);
__attribute__((noreturn, format(printf, 1, 2))) void refuse(const char *format, ...);
unsigned long parse_number(const char *name, const char *text, unsigned long min,
                           unsigned long max);
void write_text(const char *path, const char *text);
bool write_all(int fd, const void *bytes, size_t size);
// Replaces DIRECTORY/NAME as a whole; readers see the old or the new file.
bool replace_file(int directory, const char *name, const char *text);
// /proc/PID/stat, numbered as in proc(5); what is no number is 0.
#define STAT_FIELDS 53
void process_stat(pid_t pid, unsigned long long fields[STAT_FIELDS]);
unsigned long long process_start_ticks(pid_t pid);

// options.c
void parse_options(struct options *options, int count, char **arguments);
void add_bind(struct options *options, const char *path, const char *target, bool executable);

// cgroup.c
void cgroup_create(const struct options *options);
void cgroup_enter(const struct options *options, pid_t pid);
void cgroup_remove(const struct options *options);

// descriptors.c
void descriptors_open(struct options *options, int console);
void descriptors_place(const struct options *options);
int disk_open(const struct descriptor *descriptor);

// root.c
void root_enter(const struct options *options);

// privileges.c
void limits_set(unsigned long file_count_max);
void privileges_drop(uid_t uid);
void capabilities_keep(unsigned long long mask);

// seccomp.c
// `process_option` is what this monitor alone may ask of prctl; 0 is nothing.
void seccomp_enter(unsigned process_option);

// keeper.c
int keeper_run(const struct options *options, pid_t cell, int console, int errors);

// attach.c
int attach_run(int count, char **arguments);

// freeze.c
int freeze_run(int count, char **arguments);

#endif
