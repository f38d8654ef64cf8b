#define _GNU_SOURCE
#include "hyperjail.h"

#include <fcntl.h>
#include <net/if.h>
#include <linux/if_tun.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

// One monitor client and one control session at a time; the rest is for a restarted daemon.
#define LISTEN_BACKLOG 4

// Above every target, so that placing one never overwrites another that is yet to be placed.
static int lift(int fd, const char *what) {
  int lifted = fcntl(fd, F_DUPFD_CLOEXEC, DESCRIPTOR_END);
  if (lifted < 0) fail("move descriptor of %s", what);
  close(fd);
  return lifted;
}

int disk_open(const struct descriptor *d) {
  int flags = d->kind == DISK_WRITABLE ? O_RDWR : O_RDONLY;
  int fd = open(d->path, flags | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
  if (fd < 0) fail("open disk \"%s\"", d->path);
  struct stat status;
  if (fstat(fd, &status)) fail("examine disk \"%s\"", d->path);
  if (!S_ISREG(status.st_mode) && !S_ISBLK(status.st_mode))
    refuse("disk \"%s\" is neither a regular file nor a block device", d->path);
  if (fcntl(fd, F_SETFL, 0)) fail("set flags of disk \"%s\"", d->path);
  return fd;
}

// Bound by a relative name (the caller has changed into the directory), because an address holds
// only 107 bytes and the directory may be deep.
static int open_socket(const struct descriptor *d) {
  struct sockaddr_un address = {.sun_family = AF_UNIX};
  strcpy(address.sun_path, d->path);
  int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) fail("make socket \"%s\"", d->path);
  unlink(d->path);
  if (bind(fd, (struct sockaddr *)&address, sizeof address)) fail("bind socket \"%s\"", d->path);
  if (chmod(d->path, 0600)) fail("set mode of socket \"%s\"", d->path);
  if (listen(fd, LISTEN_BACKLOG)) fail("listen on socket \"%s\"", d->path);
  return fd;
}

// One that leads nowhere has a namespace of its own, which lives as long as the descriptor.
static void enter_network(const struct descriptor *d) {
  if (!d->netns) {
    if (unshare(CLONE_NEWNET)) fail("make a network namespace");
    return;
  }
  int there = open(d->netns, O_RDONLY | O_CLOEXEC);
  if (there < 0) fail("open network namespace \"%s\"", d->netns);
  if (setns(there, CLONE_NEWNET)) fail("enter network namespace \"%s\"", d->netns);
  close(there);
  // Without this test the kernel would make a new device of that name, attached to nothing.
  if (if_nametoindex(d->path) == 0) fail("find tap \"%s\" in \"%s\"", d->path, d->netns);
}

static int open_tap(const struct descriptor *d) {
  struct ifreq request = {.ifr_flags = IFF_TAP | IFF_NO_PI};
  if (strlen(d->path) >= sizeof request.ifr_name) refuse("name of tap \"%s\" is too long", d->path);
  strcpy(request.ifr_name, d->path);
  int here = open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC);
  if (here < 0) fail("open the own network namespace");
  enter_network(d);
  int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
  if (fd < 0) fail("open \"/dev/net/tun\"");
  if (ioctl(fd, TUNSETIFF, &request)) fail("open tap \"%s\"", d->path);
  if (setns(here, CLONE_NEWNET)) fail("return to the own network namespace");
  close(here);
  return fd;
}

// What a descriptor of the monitor is can be told later by this, whatever number it has by then.
static void inventory_write(const struct options *o) {
  FILE *file = fopen(o->inventory, "we");
  if (!file) fail("write \"%s\"", o->inventory);
  for (size_t i = 0; i < o->descriptor_count; i++) {
    struct stat status;
    if (fstat(o->descriptors[i].fd, &status)) fail("examine descriptor %d", o->descriptors[i].target);
    fprintf(file, "%d %lu %lu\n", o->descriptors[i].target, (unsigned long)status.st_dev,
            (unsigned long)status.st_ino);
  }
  if (fclose(file)) fail("write \"%s\"", o->inventory);
}

void descriptors_open(struct options *o, int console) {
  for (size_t i = 0; i < o->descriptor_count; i++) {
    struct descriptor *d = &o->descriptors[i];
    int fd = d->kind == LISTENING_SOCKET ? open_socket(d)
             : d->kind == TAP            ? open_tap(d)
             : d->kind == CONSOLE        ? fcntl(console, F_DUPFD_CLOEXEC, DESCRIPTOR_END)
                                         : disk_open(d);
    d->fd = lift(fd, d->path ? d->path : "console");
  }
  if (o->inventory) inventory_write(o);
}

// Afterwards exactly 0, 1, 2 and the targets survive exec.
void descriptors_place(const struct options *o) {
  if (syscall(SYS_close_range, 3u, (unsigned)DESCRIPTOR_END - 1, 0u)) fail("close descriptors");
  for (size_t i = 0; i < o->descriptor_count; i++)
    if (dup2(o->descriptors[i].fd, o->descriptors[i].target) < 0)
      fail("place descriptor %d", o->descriptors[i].target);
  if (syscall(SYS_close_range, (unsigned)DESCRIPTOR_END, ~0u, 0u)) fail("close descriptors");
}
