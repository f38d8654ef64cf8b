// Stands in the place of the VMM and tells, as JSON on descriptor 13, what it can see and do.
//
//   inmate look free|filtered VICTIM PORT NAME SECRET OTHER
//
// VICTIM is the process of `inmate host NAME` and PORT its service; SECRET a file of the host
// and OTHER the directory of another VM. `free` makes the calls too that the filter kills for. The
// same program, run outside of any jail, shows that each attempt would work.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <net/if.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define PIDS_END 40000
#define SHARED_KEY 0x68796a61

static FILE *out;
static int victim, port;
static const char *name, *secret, *other;
static char memory[16] = "of the victim";

static void print_file(const char *path) {
  FILE *file = fopen(path, "r");
  fprintf(out, ",\"%s\":\"", path);
  for (int c; file && (c = fgetc(file)) != EOF;) {
    if (c == '\n') fputs("\\n", out);
    else if (c == '"' || c == '\\') fprintf(out, "\\%c", c);
    else if (c >= 32) fputc(c, out);
  }
  fputs("\"", out);
  if (file) fclose(file);
}

static void walk(const char *path, int depth) {
  DIR *directory = opendir(path);
  for (struct dirent *e; directory && (e = readdir(directory));) {
    if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
    char child[512];
    snprintf(child, sizeof child, "%s/%s", strcmp(path, "/") ? path : "", e->d_name);
    struct stat status;
    bool known = !lstat(child, &status);
    fprintf(out, ",\"%s %o\"", child, known ? status.st_mode : 0);
    if (known && S_ISDIR(status.st_mode) && depth) walk(child, depth - 1);
  }
  if (directory) closedir(directory);
}

static void attempt(const char *what, long result) {
  fprintf(out, ",\"%s\":%d", what, result < 0 ? errno : 0);
}

static void print_descriptors(void) {
  fputs(",\"descriptors\":[-1", out);
  for (int fd = 0; fd < 1024; fd++)
    if (fcntl(fd, F_GETFD) >= 0 && fd != fileno(out)) fprintf(out, ",%d", fd);
  fputs("]", out);
}

static void print_limits(void) {
  struct rlimit files, core, size;
  getrlimit(RLIMIT_NOFILE, &files);
  getrlimit(RLIMIT_CORE, &core);
  getrlimit(RLIMIT_FSIZE, &size);
  fprintf(out, ",\"files\":%lu,\"core\":%lu,\"unlimitedSize\":%s", (unsigned long)files.rlim_max,
          (unsigned long)core.rlim_max, size.rlim_max == RLIM_INFINITY ? "true" : "false");
}

static void print_identity(void) {
  char host[65] = "";
  gethostname(host, sizeof host);
  fprintf(out, "{\"uids\":[%u,%u],\"gids\":[%u,%u],\"pid\":%d,\"parent\":%d,\"host\":\"%s\"",
          getuid(), geteuid(), getgid(), getegid(), getpid(), getppid(), host);
  extern char **environ;
  fputs(",\"environment\":[\"\"", out);
  for (char **v = environ; *v; v++) fprintf(out, ",\"%s\"", *v);
  fputs("]", out);
}

// Signal 0 is sent to none and tells of all.
static void print_processes(void) {
  int count = 0;
  for (int pid = 1; pid < PIDS_END; pid++) count += !syscall(SYS_tgkill, pid, pid, 0);
  fprintf(out, ",\"processes\":%d", count);
}

static void print_interfaces(void) {
  struct if_nameindex *devices = if_nameindex();
  fputs(",\"interfaces\":[\"\"", out);
  for (struct if_nameindex *i = devices; i && i->if_name; i++) {
    struct ifreq request = {0};
    strcpy(request.ifr_name, i->if_name);
    ioctl(socket(AF_INET, SOCK_DGRAM, 0), SIOCGIFFLAGS, &request);
    fprintf(out, ",\"%s %s\"", i->if_name, request.ifr_flags & IFF_UP ? "up" : "down");
  }
  fputs("]", out);
}

static long connect_to(int family, const void *address, size_t size) {
  int fd = socket(family, SOCK_STREAM, 0);
  return fd < 0 ? fd : connect(fd, address, (socklen_t)size);
}

static struct sockaddr_in loopback(void) {
  return (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons((unsigned short)port),
                              .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static socklen_t abstract(struct sockaddr_un *address) {
  *address = (struct sockaddr_un){.sun_family = AF_UNIX};
  strcpy(address->sun_path + 1, name);
  return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + strlen(name));
}

static long open_in(const char *directory, const char *file) {
  char path[512];
  snprintf(path, sizeof path, "%s/%s", directory, file);
  return open(path, O_RDONLY);
}

static void attempt_files(void) {
  char text[64];
  // Before it is open for writing, which hinders this by itself.
  attempt("execute bound data", execl("data", "data", (char *)0));
  attempt("write root", open("file", O_CREAT | O_WRONLY, 0600));
  attempt("write bound file", open("data", O_WRONLY));
  attempt("open a file of the host", open(secret, O_RDONLY));
  attempt("open a disk of another VM", open_in(other, "rw.img"));
  attempt("open the console of another VM", open_in(other, "console.log"));
  snprintf(text, sizeof text, "/proc/%d/mem", victim);
  attempt("open memory of a process", open(text, O_RDONLY));
  attempt("open a device", open("/dev/net/tun", O_RDWR));
  attempt("list processes", open("/proc", O_RDONLY));
  attempt("list devices", open("/sys", O_RDONLY));
  attempt("memory that is a file", syscall(SYS_memfd_create, "x", 0));
}

static void attempt_network(void) {
  struct sockaddr_un address;
  socklen_t size = abstract(&address);
  attempt("connect to an abstract socket", connect_to(AF_UNIX, &address, size));
  struct sockaddr_in here = loopback();
  attempt("connect to a service of the host", connect_to(AF_INET, &here, sizeof here));
  address = (struct sockaddr_un){.sun_family = AF_UNIX};
  snprintf(address.sun_path, sizeof address.sun_path, "%s/door.sock", other);
  attempt("connect to another VM", connect_to(AF_UNIX, &address, sizeof address));
  attempt("raw socket", socket(AF_INET, SOCK_RAW, 1));
  attempt("packet socket", socket(AF_PACKET, SOCK_RAW, 0));
}

static void attempt_processes(void) {
  attempt("signal a process", kill(victim, 0));
  attempt("signal a thread", syscall(SYS_tgkill, victim, victim, 0));
  attempt("shared memory of the host", shmget(SHARED_KEY, 1, 0));
  char queue[64];
  snprintf(queue, sizeof queue, "/%s", name);
  attempt("message queue of the host", mq_open(queue, O_RDONLY));
  attempt("raise a resource limit",
          setrlimit(RLIMIT_CORE, &(struct rlimit){RLIM_INFINITY, RLIM_INFINITY}));
  attempt("raise the priority", setpriority(PRIO_PROCESS, 0, -1));
  attempt("outlive the keeper", prctl(PR_SET_PDEATHSIG, 0));
  pid_t child = fork();
  if (!child) _exit(0);
  attempt("make a process", child);
}

static long in_child(int (*work)(void)) {
  int status = 0;
  pid_t child = fork();
  if (!child) _exit(work() < 0 ? errno : 0);
  if (child < 0 || waitpid(child, &status, 0) != child) return -1;
  errno = WEXITSTATUS(status);
  return errno ? -1 : 0;
}

static int new_namespaces(void) { return unshare(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWPID); }
static int new_user_namespace(void) { return unshare(CLONE_NEWUSER); }
static int become_root(void) { return setresuid(0, 0, 0); }
static int change_root(void) { return chroot("."); }

// The filter would kill for these.
static void attempt_privileges(void) {
  char copy[sizeof memory];
  struct iovec to = {copy, sizeof copy}, from = {memory, sizeof memory};
  attempt("read memory of a process", process_vm_readv(victim, &to, 1, &from, 1, 0));
  attempt("trace a process", ptrace(PTRACE_SEIZE, victim, NULL, NULL));
  attempt("namespaces", in_child(new_namespaces));
  attempt("user namespace", in_child(new_user_namespace));
  attempt("become root", in_child(become_root));
  attempt("change the root", in_child(change_root));
  attempt("make a device", mknod("device", S_IFCHR | 0600, makedev(1, 3)));
  attempt("mount", mount("x", "/dev", "tmpfs", 0, NULL));
}

static void attempt_descriptors(void) {
  char byte = 'x';
  attempt("write read-only disk", pwrite(20, &byte, 1, 0));
  attempt("cut read-only disk", ftruncate(20, 0));
  attempt("punch read-only disk", fallocate(20, 0, 0, 1));
  void *map = mmap(NULL, 1, PROT_READ | PROT_WRITE, MAP_SHARED, 20, 0);
  attempt("map read-only disk to write", map == MAP_FAILED ? -1 : 0);
  attempt("write disk", pwrite(21, &byte, 1, 0));
  attempt("reopen read-only disk", open("/proc/self/fd/20", O_RDWR));
}

static int look(char **arguments) {
  bool is_free = !strcmp(arguments[0], "free");
  victim = atoi(arguments[1]);
  port = atoi(arguments[2]);
  name = arguments[3];
  secret = arguments[4];
  other = arguments[5];
  out = fdopen(dup(13), "w");
  print_identity();
  print_descriptors();
  print_limits();
  print_processes();
  print_interfaces();
  fputs(",\"tree\":[\"\"", out);
  if (getpid() == 1) walk("/", 8);
  fputs("]", out);
  attempt_descriptors();
  attempt_files();
  attempt_network();
  attempt_processes();
  if (is_free) attempt_privileges();
  print_file("/proc/self/status");
  print_file("data");
  fputs("}\n", out);
  fclose(out);
  return 0;
}

// Has what a jail must hide: a name, memory, a queue, sockets that listen.
static int be_host(char **arguments) {
  name = arguments[0];
  struct sockaddr_un address;
  socklen_t size = abstract(&address);
  int door = socket(AF_UNIX, SOCK_STREAM, 0), service = socket(AF_INET, SOCK_STREAM, 0);
  struct sockaddr_in here = loopback();
  socklen_t here_size = sizeof here;
  char queue[64], byte;
  snprintf(queue, sizeof queue, "/%s", name);
  int segment = shmget(SHARED_KEY, 4096, IPC_CREAT | 0666);
  mqd_t messages = mq_open(queue, O_CREAT | O_RDWR, 0666, NULL);
  if (bind(door, (struct sockaddr *)&address, size) || listen(door, 8) || segment < 0 ||
      bind(service, (struct sockaddr *)&here, sizeof here) || listen(service, 8) ||
      getsockname(service, (struct sockaddr *)&here, &here_size) || messages == (mqd_t)-1)
    return 1;
  chmod(queue, 0666);
  printf("%d %d\n", getpid(), ntohs(here.sin_port));
  fflush(stdout);
  // Until whoever started it lets go.
  while (read(0, &byte, 1) > 0) continue;
  mq_unlink(queue);
  shmctl(segment, IPC_RMID, NULL);
  return 0;
}

static void *sleeper(void *unused) {
  while (poll(NULL, 0, -1) >= 0) continue;
  return unused;
}

static int start_threads(void) {
  int count = 0;
  pthread_t thread;
  while (count < 1000 && !pthread_create(&thread, NULL, sleeper, NULL)) count++;
  dprintf(13, "%d", count);
  return 0;
}

static long now_ms(clockid_t clock) {
  struct timespec time;
  clock_gettime(clock, &time);
  return time.tv_sec * 1000 + time.tv_nsec / 1000000;
}

static int burn(long cpu_ms) {
  long start = now_ms(CLOCK_MONOTONIC);
  while (now_ms(CLOCK_PROCESS_CPUTIME_ID) < cpu_ms) continue;
  dprintf(13, "%ld", now_ms(CLOCK_MONOTONIC) - start);
  return 0;
}

// From the disk itself, not from what the host remembers of it.
static int read_disk(void) {
  static char bytes[1 << 16];
  long start = now_ms(CLOCK_MONOTONIC);
  posix_fadvise(20, 0, 0, POSIX_FADV_DONTNEED);
  while (read(20, bytes, sizeof bytes) > 0) continue;
  dprintf(13, "%ld", now_ms(CLOCK_MONOTONIC) - start);
  return 0;
}

static int print_much(void) {
  char line[1024];
  memset(line, 'x', sizeof line);
  line[sizeof line - 1] = '\n';
  for (int i = 0; i < 700; i++) write(13, line, sizeof line);
  dprintf(13, "THE LAST LINE\n");
  for (int i = 0; i < 200; i++) dprintf(2, "%01023d\n", i);
  return 3;
}

static int eat(void) {
  for (size_t size = 0; size < 1ul << 30; size += 1 << 20) memset(malloc(1 << 20), 1, 1 << 20);
  return 0;
}

int main(int count, char **arguments) {
  const char *mode = count > 1 ? arguments[1] : "";
  if (!strcmp(mode, "look") && count == 8) return look(arguments + 2);
  if (!strcmp(mode, "host") && count == 3) return be_host(arguments + 2);
  if (!strcmp(mode, "threads")) return start_threads();
  if (!strcmp(mode, "burn") && count == 3) return burn(atol(arguments[2]));
  if (!strcmp(mode, "read")) return read_disk();
  if (!strcmp(mode, "print")) return print_much();
  if (!strcmp(mode, "eat")) return eat();
  if (!strcmp(mode, "unshare")) return unshare(0);
  if (!strcmp(mode, "wait")) sleeper(NULL);
  return 2;
}
