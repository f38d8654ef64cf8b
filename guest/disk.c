#include "disk.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/netlink.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "limits.h"
#include "loop.h"
#include "util.h"

static struct source uevents = {.fd = -1};
static void (*device_changed)(void);

/* SCSI vital product data, page 0x80: the unit's serial number after a header of four bytes. */
static bool scsi_serial(const char *disk, char *serial, size_t size) {
  char path[300], page[128];
  if (!format_path(path, sizeof path, "/sys/block/%s/device/vpd_pg80", disk)) return false;
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return false;
  ssize_t count = read(fd, page, sizeof page);
  close(fd);
  if (count < 4 || (unsigned char)page[1] != 0x80) return false;
  size_t length = (unsigned char)page[3];
  if (length > (size_t)count - 4) length = (size_t)count - 4;
  const char *text = page + 4;
  while (length && *text == ' ') text++, length--;
  while (length && (text[length - 1] == ' ' || !text[length - 1])) length--;
  if (length >= size) return false;
  memcpy(serial, text, length);
  serial[length] = 0;
  return true;
}

static bool disk_serial(const char *disk, char *serial, size_t size) {
  char path[300];
  if (!format_path(path, sizeof path, "/sys/block/%s/serial", disk)) return false;
  return read_file(path, serial, size) > 0 || scsi_serial(disk, serial, size);
}

/* A disk shows in sysfs before the kernel lets it be opened; the uevent comes after. */
static bool disk_opens(const char *path) {
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd >= 0) close(fd);
  return fd >= 0;
}

bool disk_find(const char *serial, char *path, size_t size) {
  DIR *list = opendir("/sys/block");
  if (!list) return false;
  bool found = false;
  for (struct dirent *entry; !found && (entry = readdir(list));) {
    char seen[64];
    if (entry->d_name[0] == '.' || !disk_serial(entry->d_name, seen, sizeof seen)) continue;
    if (strcmp(seen, serial)) continue;
    found = format_path(path, size, "/dev/%s", entry->d_name) && disk_opens(path);
  }
  closedir(list);
  return found;
}

static void uevent_ready(struct source *source, uint32_t events) {
  char message[8192];
  bool any = false;
  (void)events;
  /* What they say does not matter: whoever waits looks again. A lost one shows as ENOBUFS. */
  for (ssize_t count; (count = recv(source->fd, message, sizeof message, 0)) > 0 ||
                      (count < 0 && errno == ENOBUFS);)
    any = true;
  if (any && device_changed) device_changed();
}

void uevent_init(void (*changed)(void)) {
  struct sockaddr_nl address = {.nl_family = AF_NETLINK, .nl_groups = 1};
  device_changed = changed;
  int type = SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK;
  uevents = (struct source){.fd = socket(AF_NETLINK, type, NETLINK_KOBJECT_UEVENT),
                            .ready = uevent_ready};
  if (uevents.fd < 0) fatal("uevents: %s", strerror(errno));
  if (bind(uevents.fd, (struct sockaddr *)&address, sizeof address) < 0 ||
      !loop_watch(&uevents, EPOLLIN))
    fatal("uevents: %s", strerror(errno));
}

static int port_look(const char *name) {
  DIR *list = opendir("/sys/class/virtio-ports");
  if (!list) return -1;
  int fd = -1;
  for (struct dirent *entry; fd < 0 && (entry = readdir(list));) {
    char path[300], seen[128];
    if (entry->d_name[0] == '.') continue;
    if (!format_path(path, sizeof path, "/sys/class/virtio-ports/%s/name", entry->d_name)) continue;
    if (read_file(path, seen, sizeof seen) < 0 || strcmp(seen, name)) continue;
    if (!format_path(path, sizeof path, "/dev/%s", entry->d_name)) continue;
    fd = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
  }
  closedir(list);
  return fd;
}

int port_open(const char *name) {
  uint64_t deadline_ms = uptime_ms() + PORT_WAIT_MS;
  for (;;) {
    int fd = port_look(name);
    uint64_t now_ms = uptime_ms();
    if (fd >= 0 || now_ms >= deadline_ms) return fd;
    struct pollfd wait = {.fd = uevents.fd, .events = POLLIN};
    if (poll(&wait, 1, (int)(deadline_ms - now_ms)) > 0) uevent_ready(&uevents, EPOLLIN);
  }
}
