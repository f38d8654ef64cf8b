/* What a VM runs before it is anybody's, so that a pod is not the first to run it. */
#ifndef HYPERSTART_REHEARSE_H
#define HYPERSTART_REHEARSE_H

/* Returns the program's exit code. */
int rehearse(void);

#endif
