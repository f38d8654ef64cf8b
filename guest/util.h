/* Small helpers over system calls, shared by all parts. */
#ifndef HYPERSTART_UTIL_H
#define HYPERSTART_UTIL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

/* The whole agent runs as an ordinary process, without VM, namespaces or disks, for tests. */
extern bool test_mode;
/* Where images, scratch space and volumes lie: "" in a VM, a directory of the test otherwise. */
extern const char *state_root;

/* To the console, for the log of the VM. */
void note(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The machine cannot work: says why on the console and panics. */
_Noreturn void fatal(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* snprintf that tells whether all of it fitted. */
bool format_path(char *path, size_t size, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* 0 or -1 with errno. */
int write_file(const char *path, const char *text);
int write_file_mode(const char *path, const void *bytes, size_t length, mode_t mode);
/* Bytes read, without the trailing newline, terminated; -1 with errno. */
ssize_t read_file(const char *path, char *bytes, size_t size);
/* A malloc'ed, terminated copy of a file below `directory`, or NULL with errno. */
char *read_file_at(int directory, const char *path, size_t limit, size_t *length);
/* With missing parents. 0 or -1 with errno. */
int make_directories(const char *path, mode_t mode);
/* Removes what is below and at `path`, never crossing to another file system. */
void remove_tree(const char *path);

/* 1 to `limit` bytes of [A-Za-z0-9._-], not starting with a dot. */
bool name_is_valid(const char *name, size_t limit);

int open_in_root(int root, const char *path, int flags);
int open_beneath(int root, const char *path, int flags);

#endif
