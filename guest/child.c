#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "account.h"
#include "capability.h"
#include "limits.h"
#include "util.h"

#define PATH_DEFAULT "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
#define ALL_CAPABILITIES UINT64_MAX
/* Places in the environment for what is added to it. */
#define ENVIRONMENT_EXTRA 5

extern char **environ;
static int status_fd = -1;

void child_fail(int exit_code, const char *format, ...) {
  struct status_message message = {.exit_code = exit_code};
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message.text, sizeof message.text, format, arguments);
  va_end(arguments);
  if (write(status_fd, &message, sizeof message) < 0) _exit(EXIT_START_FAILED);
  _exit(exit_code);
}

static void send_terminal(int master) {
  struct status_message message = {.exit_code = 0};
  union {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
  } control = {0};
  struct iovec part = {&message, sizeof message};
  struct msghdr header = {.msg_iov = &part,
                          .msg_iovlen = 1,
                          .msg_control = control.bytes,
                          .msg_controllen = sizeof control.bytes};
  control.header.cmsg_level = SOL_SOCKET;
  control.header.cmsg_type = SCM_RIGHTS;
  control.header.cmsg_len = CMSG_LEN(sizeof(int));
  memcpy(CMSG_DATA(&control.header), &master, sizeof master);
  if (sendmsg(status_fd, &header, 0) < 0)
    child_fail(EXIT_START_FAILED, "cannot hand over the terminal: %s", strerror(errno));
}

/* The terminal is one of the container's own, so that programs in it find its name. */
static void open_terminal(bool console, uid_t uid) {
  int unlock = 0, number = 0;
  char name[64];
  const char *path = test_mode ? "/dev/ptmx" : "/dev/pts/ptmx";
  int master = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
  if (master < 0 || ioctl(master, TIOCSPTLCK, &unlock) < 0 || ioctl(master, TIOCGPTN, &number) < 0)
    child_fail(EXIT_START_FAILED, "cannot open a terminal: %s", strerror(errno));
  int slave = ioctl(master, TIOCGPTPEER, O_RDWR | O_NOCTTY);
  if (slave < 0 || ioctl(slave, TIOCSCTTY, 0) < 0)
    child_fail(EXIT_START_FAILED, "cannot take the terminal: %s", strerror(errno));
  if (!test_mode && fchown(slave, uid, (gid_t)-1) < 0)
    child_fail(EXIT_START_FAILED, "cannot own the terminal: %s", strerror(errno));
  snprintf(name, sizeof name, "/dev/pts/%d", number);
  if (console) rootfs_bind_console(name);
  send_terminal(master);
  for (int fd = 0; fd < 3; fd++) dup2(slave, fd);
}

static uint64_t wanted_capabilities(const struct json *security) {
  uint64_t set = 0;
  if (json_true(security, "privileged")) return ALL_CAPABILITIES;
  const struct json *name = json_first(json_get(security, "capabilities"));
  for (; name; name = json_next(name)) {
    int number = name->text ? capability_number(name->text) : -1;
    if (number < 0)
      child_fail(EXIT_START_FAILED, "unknown capability \"%.100s\"", name->text ? name->text : "");
    set |= 1ull << number;
  }
  return set;
}

static void find_account(const struct json *process, struct account *account) {
  char error[512];
  int root = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
  const struct json *security = json_get(process, "security");
  if (root < 0 || !account_find(root, json_text(process, "user", ""), account, error, sizeof error))
    child_fail(EXIT_START_FAILED, "%s", error);
  close(root);
  account->gid = (gid_t)json_number(process, "gid", account->gid);
  account_add_group(account, account->gid);
  const struct json *group = json_first(json_get(process, "supplementalGroups"));
  for (; group; group = json_next(group))
    if (!account_add_group(account, (gid_t)group->number))
      child_fail(EXIT_START_FAILED, "supplementalGroups: more than %d", GROUPS_MAX);
  if (json_true(security, "runAsNonRoot") && account->uid == 0)
    child_fail(EXIT_START_FAILED, "container has runAsNonRoot and image will run as root");
}

/* Strings of a JSON array as the kernel wants them, with room for `extra` more. */
static char **string_list(const struct json *array, const char *what, int extra) {
  uint32_t count = array ? array->count : 0, at = 0;
  if (count > ARGUMENTS_MAX)
    child_fail(EXIT_START_FAILED, "%s: %u entries, at most %d", what, count, ARGUMENTS_MAX);
  char **list = calloc(count + (uint32_t)extra + 1, sizeof *list);
  if (!list) child_fail(EXIT_START_FAILED, "%s: out of memory", what);
  for (const struct json *item = json_first(array); item; item = json_next(item)) {
    if (item->type != JSON_STRING) child_fail(EXIT_START_FAILED, "%s: not a string", what);
    /* execve does not write to them. */
    list[at++] = (char *)(uintptr_t)item->text;
  }
  return list;
}

static void add_default(char **list, const char *name, const char *value) {
  size_t length = strlen(name);
  int count = 0;
  for (; list[count]; count++)
    if (!strncmp(list[count], name, length) && list[count][length] == '=') return;
  char *entry = malloc(length + strlen(value) + 2);
  if (!entry) return;
  sprintf(entry, "%s=%s", name, value);
  list[count] = entry;
}

static const char *value_of(char **list, const char *name) {
  size_t length = strlen(name);
  for (; *list; list++)
    if (!strncmp(*list, name, length) && (*list)[length] == '=') return *list + length + 1;
  return "";
}

static int executable_error(const char *path) {
  struct stat status;
  if (stat(path, &status) < 0) return errno;
  if (S_ISDIR(status.st_mode)) return EISDIR;
  return faccessat(AT_FDCWD, path, X_OK, AT_EACCESS) < 0 ? errno : 0;
}

/* Go prints these without a capital letter. */
static const char *lower_error(int error) {
  switch (error) {
    case ENOENT:
      return "no such file or directory";
    case EACCES:
      return "permission denied";
    case ENOEXEC:
      return "exec format error";
    case E2BIG:
      return "argument list too long";
    case ENOTDIR:
      return "not a directory";
    default:
      return strerror(error);
  }
}

/* Finds the program as Go's `exec.LookPath` does, and says what it would say. */
static void find_program(const char *name, const char *search, char path[PATH_BYTES_MAX]) {
  if (strchr(name, '/')) {
    int error = executable_error(name);
    if (!error && format_path(path, PATH_BYTES_MAX, "%s", name)) return;
    bool missing = error == ENOENT || error == ENOTDIR;
    if (missing)
      child_fail(EXIT_NOT_FOUND, "exec: \"%.400s\": stat %.400s: %s", name, name,
                 lower_error(error));
    child_fail(EXIT_NOT_EXECUTABLE, "exec: \"%.400s\": %s", name,
               error == EISDIR ? "is a directory"
               : error == EACCES ? "permission denied"
                                 : strerror(error ? error : ENAMETOOLONG));
  }
  while (*name) {
    size_t length = strcspn(search, ":");
    bool fits = format_path(path, PATH_BYTES_MAX, "%.*s/%s", length ? (int)length : 1,
                            length ? search : ".", name);
    if (fits && !executable_error(path)) return;
    if (!search[length]) break;
    search += length + 1;
  }
  child_fail(EXIT_NOT_FOUND, "exec: \"%.400s\": executable file not found in $PATH", name);
}

_Noreturn static void execute(const struct json *process, const struct account *account) {
  char path[PATH_BYTES_MAX], hostname[80] = "";
  char **arguments = string_list(json_get(process, "argv"), "argv", 0);
  char **environment = string_list(json_get(process, "env"), "env", ENVIRONMENT_EXTRA);
  gethostname(hostname, sizeof hostname - 1);
  add_default(environment, "PATH", PATH_DEFAULT);
  add_default(environment, "HOSTNAME", hostname);
  add_default(environment, "HOME", account->home);
  if (json_true(process, "tty")) add_default(environment, "TERM", "xterm");
  if (!arguments[0]) child_fail(EXIT_START_FAILED, "no command specified");
  find_program(arguments[0], value_of(environment, "PATH"), path);
  execve(path, arguments, environment);
  int error = errno;
  child_fail(error == ENOENT ? EXIT_NOT_FOUND : EXIT_NOT_EXECUTABLE, "exec %.400s: %s", path,
             lower_error(error));
}

static void reset_signals(void) {
  sigset_t none;
  struct sigaction action = {.sa_handler = SIG_DFL};
  for (int signal = 1; signal < NSIG; signal++) sigaction(signal, &action, NULL);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
}

static void enter_directory(const struct json *process) {
  const char *path = json_text(process, "workingDir", "");
  if (!*path) path = "/";
  if (chdir(path) < 0)
    child_fail(EXIT_START_FAILED, "chdir to cwd (\"%.400s\") set in config.json failed: %s", path,
               lower_error(errno));
}

/* From root to the process's own user and rights. The order matters: each step needs the last. */
static void drop_privileges(const struct json *process, const struct account *account) {
  const struct json *security = json_get(process, "security");
  uint64_t set = wanted_capabilities(security);
  const char *what = "capabilities";
  bool filtered = json_true(security, "seccompDefault") && !json_true(security, "privileged");
  if (json_true(security, "noNewPrivileges") && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
    goto failed;
  if (!capability_bound(set)) goto failed;
  what = "system call filter";
  if (filtered && !seccomp_install(set)) goto failed;
  what = "groups";
  if (setgroups((size_t)account->group_count, account->groups) < 0) goto failed;
  if (setresgid(account->gid, account->gid, account->gid) < 0) goto failed;
  what = "user";
  if (account->uid && setresuid(account->uid, account->uid, account->uid) < 0) goto failed;
  what = "capabilities";
  if (!account->uid && set != ALL_CAPABILITIES && !capability_set(set)) goto failed;
  return;
failed:
  child_fail(EXIT_START_FAILED, "cannot set %s: %s", what, strerror(errno));
}

static void take_stdio(const struct spawn *spawn, uid_t uid, gid_t gid) {
  for (int fd = 0; fd < 3; fd++) {
    int end = spawn->stdio[fd];
    /* So that a process that is not root can open /dev/stdout anew, as under container runtimes. */
    if (!test_mode && fchown(end, uid, gid) < 0 && fd > 0)
      child_fail(EXIT_START_FAILED, "cannot own standard streams: %s", strerror(errno));
  }
  for (int fd = 0; fd < 3; fd++)
    if (dup2(spawn->stdio[fd], fd) < 0)
      child_fail(EXIT_START_FAILED, "cannot set standard streams: %s", strerror(errno));
}

/* Nothing of PID 1's is left that a program would inherit, but its descriptors. */
static void begin(const struct spawn *spawn) {
  status_fd = spawn->status_fd;
  reset_signals();
  umask(022);
  setsid();
  /* No VM ends with the test. */
  if (test_mode) prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (spawn->cgroup_fd >= 0 && write(spawn->cgroup_fd, "0", 1) < 0)
    child_fail(EXIT_START_FAILED, "cannot join the control group: %s", strerror(errno));
}

/*
 * Before any path of the tenant is followed: no descriptor of PID 1 can be reached through
 * /proc/self/fd, as a working directory for example.
 */
static void keep_only_status(void) {
  if (status_fd != 3 && dup3(status_fd, 3, O_CLOEXEC) < 0) _exit(EXIT_START_FAILED);
  status_fd = 3;
  syscall(SYS_close_range, 4u, ~0u, 0u);
}

_Noreturn static void become(const struct spawn *spawn, const struct json *process) {
  struct account account = {.home = "/"};
  if (!test_mode) find_account(process, &account);
  if (json_true(process, "tty"))
    open_terminal(!spawn->process && !test_mode, account.uid);
  else
    take_stdio(spawn, account.uid, account.gid);
  keep_only_status();
  enter_directory(process);
  if (!test_mode) drop_privileges(process, &account);
  execute(process, &account);
}

/* Waits for PID 1's word, unless it is there, and says before that there is nothing else to do. */
static const struct json *await_spec(int spec_fd) {
  static struct json_document document;
  const struct status_message whole = {.exit_code = EXIT_NOT_YET};
  struct stat status;
  char word;
  ssize_t count = recv(status_fd, &word, 1, MSG_DONTWAIT);
  if (count < 0 && send(status_fd, &whole, sizeof whole, MSG_NOSIGNAL) > 0)
    count = recv(status_fd, &word, 1, 0);
  /* Nobody needs it. */
  if (count != 1) _exit(EXIT_START_FAILED);
  char *text = fstat(spec_fd, &status) < 0 ? NULL : malloc((size_t)status.st_size + 1);
  if (!text || pread(spec_fd, text, (size_t)status.st_size, 0) != status.st_size)
    child_fail(EXIT_START_FAILED, "cannot read what to start: %s", strerror(errno));
  text[status.st_size] = 0;
  if (!json_parse(&document, text, (size_t)status.st_size))
    child_fail(EXIT_START_FAILED, "cannot read what to start: %s", document.error);
  return document.nodes;
}

_Noreturn static void run_container(const struct spawn *spawn) {
  struct rootfs rootfs;
  if (!test_mode) {
    if (unshare(CLONE_NEWCGROUP) < 0)
      child_fail(EXIT_START_FAILED, "cannot make a namespace: %s", strerror(errno));
    rootfs_prepare(spawn, &rootfs);
  }
  const struct json *spec = await_spec(spawn->spec_fd);
  if (!test_mode) rootfs_finish(&rootfs, spec);
  become(spawn, json_get(spec, "process"));
}

void child_run(const struct spawn *spawn) {
  begin(spawn);
  if (!spawn->process) run_container(spawn);
  if (!test_mode && setns(spawn->mount_namespace, CLONE_NEWNS) < 0)
    child_fail(EXIT_START_FAILED, "cannot enter the container: %s", strerror(errno));
  become(spawn, spawn->process);
}
