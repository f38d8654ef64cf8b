/* What the containers of the pod share: names, clock, network, disks and volumes. */
#ifndef HYPERSTART_POD_H
#define HYPERSTART_POD_H

#include <stdbool.h>

#include "session.h"

/* Answers the request, at once or when its disk has appeared. */
void pod_setup(struct request *request);
bool pod_is_ready(void);
/* Set up for a pod, or for a rehearsal of one. */
bool pod_takes_containers(void);
/* Puts `bootId`, empty for as long as the pod is not ready. */
void pod_put_boot_id(struct json_writer *writer);
/* Lets go of a rehearsal's disks, on which nothing runs any more; of the writable one if asked. */
void pod_end_rehearsal(struct request *request);
/* A device appeared. */
void pod_device_changed(void);
/* The process whose PID namespace all containers share; 0: each has its own. */
int pod_pause_pid(void);

void pod_set_clock(struct request *request);
void pod_session_closed(void);

#endif
