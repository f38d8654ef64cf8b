/* Volumes: directories of the scratch disk, in memory, or files given by content. */
#ifndef HYPERSTART_VOLUME_H
#define HYPERSTART_VOLUME_H

#include "session.h"

/* Makes /volume/<name>. Idempotent. False: `error` says why. */
bool volume_create(const struct json *volume, char *error, size_t size);

/* Removes those that consist of files: no container has them. */
void volumes_remove(void);

/*
 * The content of a `files` volume is replaced as a whole, as Kubernetes does it: each version is a
 * directory, `..data` is a symbolic link to the newest, and the visible names lead through it.
 * begin {volume, version}, file {volume, version, path, mode, offset} + bytes …,
 * commit {volume, version}.
 */
void volume_begin(struct request *request);
void volume_file(struct request *request);
void volume_commit(struct request *request);

#endif
