// Stands in the place of the VMM and tells, as JSON on descriptor 13, what it can see and do.
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static FILE *out;

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

static void attempt(const char *name, long result) {
  fprintf(out, ",\"%s\":%d", name, result < 0 ? errno : 0);
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
  uid_t r, e, s;
  gid_t rg, eg, sg;
  getresuid(&r, &e, &s);
  getresgid(&rg, &eg, &sg);
  char host[65] = "";
  gethostname(host, sizeof host);
  fprintf(out, "{\"uids\":[%u,%u,%u],\"gids\":[%u,%u,%u],\"groups\":%d,\"pid\":%d,\"host\":\"%s\"", r, e,
          s, rg, eg, sg, getgroups(0, NULL), getpid(), host);
  extern char **environ;
  fputs(",\"environment\":[\"\"", out);
  for (char **v = environ; *v; v++) fprintf(out, ",\"%s\"", *v);
  fputs("]", out);
}

static void print_attempts(void) {
  char byte = 'x';
  attempt("write /", open("/file", O_CREAT | O_WRONLY, 0600));
  attempt("write /dev", open("/dev/file", O_CREAT | O_WRONLY, 0600));
  attempt("write bound file", open("/data", O_WRONLY));
  attempt("write read-only disk", pwrite(20, &byte, 1, 0));
  attempt("write disk", pwrite(21, &byte, 1, 0));
  attempt("reopen read-only disk", open("/proc/self/fd/20", O_RDWR));
  attempt("execute bound data", execl("/data", "data", (char *)0));
  attempt("read /dev/null", open("/dev/null", O_RDWR));
  attempt("become root", setresuid(0, 0, 0));
  attempt("mount", mount("x", "/dev", "tmpfs", 0, NULL));
  attempt("unshare", unshare(CLONE_NEWUSER));
  attempt("chroot", chroot("/"));
  attempt("ptrace", ptrace(PTRACE_TRACEME, 0, NULL, NULL));
  attempt("bpf", syscall(SYS_bpf, 0, NULL, 0));
  attempt("io_uring", syscall(SYS_io_uring_setup, 1, NULL));
  attempt("raw socket", socket(AF_INET, SOCK_RAW, 1));
  attempt("mknod", mknod("/dev/sda", S_IFBLK | 0600, 0x800));
  attempt("signal the keeper", kill(getppid() ? getppid() : 2, 0));
  struct if_nameindex *devices = if_nameindex();
  fputs(",\"interfaces\":[\"\"", out);
  for (struct if_nameindex *i = devices; i && i->if_name; i++) fprintf(out, ",\"%s\"", i->if_name);
  fputs("]", out);
}

int main(int count, char **arguments) {
  if (count > 1 && !strcmp(arguments[1], "wait")) {
    for (;;) pause();
  }
  if (count > 1 && !strcmp(arguments[1], "fork")) {
    int children = 0;
    while (children < 1000 && fork() > 0) children++;
    if (getpid() != 1) for (;;) pause();
    dprintf(13, "%d", children);
    return 0;
  }
  if (count > 1 && !strcmp(arguments[1], "eat")) {
    for (size_t size = 0; size < 1ul << 30; size += 1 << 20) memset(malloc(1 << 20), 1, 1 << 20);
    return 0;
  }
  if (count > 1 && !strcmp(arguments[1], "print")) {
    char line[1024];
    memset(line, 'x', sizeof line);
    line[sizeof line - 1] = '\n';
    for (int i = 0; i < 700; i++) write(13, line, sizeof line);
    dprintf(13, "THE LAST LINE\n");
    for (int i = 0; i < 200; i++) dprintf(2, "%01023d\n", i);
    return 3;
  }
  out = fdopen(dup(13), "w");
  print_identity();
  print_descriptors();
  print_limits();
  fputs(",\"tree\":[\"\"", out);
  walk("/", 3);
  fputs("]", out);
  print_attempts();
  print_file("/proc/self/status");
  print_file("/data");
  fputs("}\n", out);
  fclose(out);
  return 0;
}
