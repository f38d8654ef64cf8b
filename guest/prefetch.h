/* Reads what a container will begin with before there is one: see PROTOCOL.md, prefetch. */
#ifndef HYPERSTART_PREFETCH_H
#define HYPERSTART_PREFETCH_H

/* `root` is a directory; `program` a path in it or a name that is looked for. Never fails. */
void prefetch_files(int root, const char *program);

#endif
