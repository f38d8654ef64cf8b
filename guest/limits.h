/*
 * Every bound of hyperstart in one place. PROTOCOL.md repeats those that the other side must know;
 * src/hyperd/agent/wire.ts holds the same numbers.
 */
#ifndef HYPERSTART_LIMITS_H
#define HYPERSTART_LIMITS_H

#define PROTOCOL_VERSION 2

/* Wire. */
#define FRAME_HEADER_BYTES 12
#define DATA_PREFIX_BYTES 16
/* Of data, what fits into a power of two: bytes come so, and a rest would be a frame of its own. */
#define FRAME_PAYLOAD_BYTES_MAX (DATA_PREFIX_BYTES + (64u << 10))
#define REQUEST_BYTES_MAX (2u << 20)
#define RESPONSE_BYTES_MAX 32768
/* Responses and small frames that wait for the port; reading stops at half of it. */
#define CONTROL_QUEUE_BYTES_MAX (256u << 10)
/* Reads of the port before writing gets its turn. */
#define PORT_READS_PER_TURN 16

/* JSON. */
#define JSON_DEPTH_MAX 8
#define JSON_NODES_MAX 65536

/* Tables. The host removes containers that it restarts, so these are not reached in use. */
#define CONTAINERS_MAX 64
#define PROCESSES_MAX 128
#define RELAYS_MAX 128
#define VOLUMES_MAX 128
#define MOUNTS_MAX 128

/* A stream's bytes between its reader and its writer: the flow control window. */
#define PROCESS_RING_BYTES (256u << 10)
#define RELAY_RING_BYTES (128u << 10)
/* Of a process' pipes: the process and its reader take turns, and each turn is to move much. */
#define PIPE_BYTES (256 << 10)
/* Times of reading that are kept beside the bytes; more than that share the last one. */
#define STREAM_MARKS_MAX 256

/* Names and paths. */
#define ID_BYTES_MAX 64
#define SERIAL_BYTES_MAX 20
#define VOLUME_NAME_BYTES_MAX 253
#define PATH_BYTES_MAX 1024
#define ARGUMENTS_MAX 8192
#define GROUPS_MAX 64
#define TERMINATION_MESSAGE_BYTES_MAX 4096
#define ACCOUNT_FILE_BYTES_MAX (1u << 20)

/* Time. */
#define DISK_WAIT_MS 10000
#define PORT_WAIT_MS 20000
#define START_WAIT_MS 30000
#define BLANK_WAIT_MS 10000
#define CONNECT_TIMEOUT_MAX_MS 600000
#define CGROUP_EMPTY_POLL_MS 10
#define CGROUP_EMPTY_POLLS 300
#define DISK_POLL_MS 2
#define PREFETCH_BYTES_MAX (4 << 20)
#define UNMOUNT_POLL_MS 2
#define UNMOUNT_POLLS 500
#define SHUTDOWN_GRACE_MS 2000
#define TIMER_TRIALS 100
#define TIMER_TRIAL_NS 1000000ull
#define TIMER_TRIAL_MAX_NS 20000000ull
#define TIMER_LATE_FACTOR 2

/* Memory that containers together may not have, so that PID 1 can always work. */
#define MEMORY_RESERVE_BYTES (12ull << 20)
#define PROCESS_RESERVE 64
#define SHM_BYTES (64u << 20)

#endif
