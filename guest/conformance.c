// The guest that the hypervisor's conformance suite talks to, as PID 1. Loads the modules of the
// initial file system and answers lines on the control port: see src/hyperd/vmm/conformance-cases.ts.
#include <dirent.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static void load_modules(void) {
  FILE *list = fopen("/modules/list", "r");
  char name[128], path[160];
  while (list && fgets(name, sizeof name, list)) {
    name[strcspn(name, " \n")] = 0;  // without parameters: the kernel searches all targets by itself
    snprintf(path, sizeof path, "/modules/%s", name);
    int fd = open(path, O_RDONLY);
    syscall(SYS_finit_module, fd, "", 0);
    close(fd);
  }
}

static int open_port(void) {
  char path[64];
  for (int device = 0;; device = (device + 1) % 8) {
    snprintf(path, sizeof path, "/dev/vport%dp1", device);
    int fd = open(path, O_RDWR);
    if (fd >= 0) return fd;
    usleep(1000);
  }
}

// virtio-blk tells its serial as it is, SCSI in page 0x80 after four bytes.
static bool has_serial(const char *disk, const char *serial) {
  static const struct { const char *file; int skip; } PLACES[] = {{"serial", 0}, {"device/vpd_pg80", 4}};
  for (int i = 0; i < 2; i++) {
    char path[320], text[128] = "";
    snprintf(path, sizeof path, "/sys/block/%s/%s", disk, PLACES[i].file);
    int fd = open(path, O_RDONLY);
    if (fd < 0) continue;
    ssize_t size = read(fd, text, sizeof text - 1);
    close(fd);
    if (size > PLACES[i].skip && !strncmp(text + PLACES[i].skip, serial, strlen(serial))) return true;
  }
  return false;
}

static bool read_disk(const char *serial, char *content) {
  bool found = false;
  DIR *disks = opendir("/sys/block");
  for (struct dirent *e; disks && !found && (e = readdir(disks));) {
    if (e->d_name[0] == '.' || !has_serial(e->d_name, serial)) continue;
    char path[320];
    snprintf(path, sizeof path, "/dev/%s", e->d_name);
    int fd = open(path, O_RDONLY);
    found = fd >= 0 && read(fd, content, 16) == 16;
    if (fd >= 0) close(fd);
  }
  if (disks) closedir(disks);
  return found;
}

// Disks come some milliseconds after they were attached.
static void answer_disk(int port, const char *serial) {
  char content[17] = "";
  while (!read_disk(serial, content)) usleep(2000);
  dprintf(port, "DISK %s\n", content);
}

// What a clone of this guest finds in its memory.
static char kept[64];

static void answer(int port, char *line) {
  if (!strncmp(line, "ECHO ", 5)) dprintf(port, "%s\n", line);
  if (!strncmp(line, "DISK ", 5)) answer_disk(port, line + 5);
  if (!strncmp(line, "KEEP ", 5)) {
    snprintf(kept, sizeof kept, "%.63s", line + 5);
    dprintf(port, "KEEP %s\n", kept);
  }
  if (!strcmp(line, "KEPT")) dprintf(port, "KEPT %s\n", kept);
  if (!strcmp(line, "OFF")) reboot(RB_POWER_OFF);
  if (!strcmp(line, "PANIC")) {
    int fd = open("/proc/sysrq-trigger", O_WRONLY);
    write(fd, "c", 1);
  }
}

int main(void) {
  mkdir("/proc", 0755);
  mkdir("/sys", 0755);
  mount("proc", "/proc", "proc", 0, NULL);
  mount("sysfs", "/sys", "sysfs", 0, NULL);
  mount("devtmpfs", "/dev", "devtmpfs", 0, NULL);
  load_modules();
  int port = open_port();
  char buffer[4096];
  size_t size = 0;
  for (;;) {
    ssize_t n = read(port, buffer + size, sizeof buffer - 1 - size);
    if (n <= 0) {
      usleep(5000);  // no host on the other end
      continue;
    }
    size += (size_t)n;
    for (char *end; (end = memchr(buffer, '\n', size));) {
      *end = 0;
      answer(port, buffer);
      size -= (size_t)(end + 1 - buffer);
      memmove(buffer, end + 1, size);
    }
  }
}
