#define _GNU_SOURCE
#include "hyperjail.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

// Hands a disk to a monitor that cannot open it: the open descriptor goes over a monitor socket.
// The daemon cannot do that itself, for want of SCM_RIGHTS in its runtime.
#define REPLY_MAX 65536
#define TIMEOUT_SECONDS 10

static int monitor_connect(const char *path) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  // The directory is entered, because an address holds only 107 bytes.
  char directory[TEXT_MAX];
  snprintf(directory, sizeof directory, "%s", path);
  char *slash = strrchr(directory, '/');
  if (!slash || strlen(slash + 1) >= sizeof address.sun_path)
    refuse("--socket \"%s\" is not an absolute path", path);
  strcpy(address.sun_path, slash + 1);
  *slash = 0;
  if (chdir(directory)) fail("enter \"%s\"", directory);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  struct timeval timeout = {TIMEOUT_SECONDS, 0};
  if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof timeout) ||
      setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof timeout))
    fail("make a socket");
  if (connect(fd, (struct sockaddr *)&address, sizeof address)) fail("connect to \"%s\"", path);
  return fd;
}

// One message a line. Events may come between; a reply has "return" or "error" as its first key.
static bool monitor_reply(int fd, const char *wanted) {
  static char text[REPLY_MAX];
  size_t size = 0;
  for (;;) {
    ssize_t n = read(fd, text + size, 1);
    if (n <= 0) fail("read from the monitor");
    if (text[size] != '\n') {
      if (++size == sizeof text) refuse("a line of the monitor is longer than %d", REPLY_MAX);
      continue;
    }
    text[size] = 0;
    size = 0;
    if (!strncmp(text, "{\"error\"", 8)) refuse("the monitor answered %s", text);
    if (!strncmp(text, wanted, strlen(wanted))) return true;
  }
}

static void monitor_send(int fd, const char *text, int passed) {
  struct iovec part = {(void *)text, strlen(text)};
  union {
    char bytes[CMSG_SPACE(sizeof(int))];
    struct cmsghdr align;
  } control = {{0}};
  struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
  if (passed >= 0) {
    message.msg_control = control.bytes;
    message.msg_controllen = sizeof control.bytes;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof(int));
    memcpy(CMSG_DATA(header), &passed, sizeof passed);
  }
  if (sendmsg(fd, &message, MSG_NOSIGNAL) != (ssize_t)part.iov_len) fail("send to the monitor");
}

// The file that a template's state is written to goes the same way. Its name is known to this
// connection alone, so the saving is asked for here too; how it goes is told to the other monitor.
static void save_start(int monitor, int fd) {
  monitor_send(monitor, "{\"execute\":\"getfd\",\"arguments\":{\"fdname\":\"state\"}}\n", fd);
  monitor_reply(monitor, "{\"return\"");
  monitor_send(monitor, "{\"execute\":\"migrate\",\"arguments\":{\"uri\":\"fd:state\"}}\n", -1);
  monitor_reply(monitor, "{\"return\"");
}

int attach_run(int count, char **arguments) {
  const char *socket_path = NULL, *disk = NULL;
  unsigned long fdset = 0;
  bool state = false;
  bool writable = false;
  for (int i = 0; i < count; i += 2) {
    const char *name = arguments[i];
    if (i + 1 >= count) refuse("option \"%s\" has no value", name);
    char *value = arguments[i + 1];
    if (!strcmp(name, "--socket")) socket_path = value;
    else if (!strcmp(name, "--fdset")) fdset = parse_number(name, value, 1, 1000000000);
    else if (!strcmp(name, "--disk-ro")) disk = value;
    else if (!strcmp(name, "--disk-rw")) disk = value, writable = true;
    else if (!strcmp(name, "--state")) disk = value, writable = state = true;
    else refuse("unknown option \"%s\"", name);
  }
  if (!socket_path || !disk || !fdset == !state)
    refuse("--socket is needed, and --fdset with --disk-ro or --disk-rw, or --state");
  struct descriptor d = {.kind = writable ? DISK_WRITABLE : DISK_READ_ONLY, .path = disk};
  int fd = disk_open(&d);
  int monitor = monitor_connect(socket_path);
  monitor_reply(monitor, "{\"QMP\"");
  monitor_send(monitor, "{\"execute\":\"qmp_capabilities\"}\n", -1);
  monitor_reply(monitor, "{\"return\"");
  if (state) {
    save_start(monitor, fd);
    return 0;
  }
  char command[128];
  snprintf(command, sizeof command,
           "{\"execute\":\"add-fd\",\"arguments\":{\"fdset-id\":%lu}}\n", fdset);
  monitor_send(monitor, command, fd);
  monitor_reply(monitor, "{\"return\"");
  return 0;
}
