/*
 * The session with the host over the one byte stream of the control port: PROTOCOL.md. At most
 * one session is open; a new one ends the old one wherever it stood.
 */
#ifndef HYPERSTART_SESSION_H
#define HYPERSTART_SESSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "json.h"

struct stream_out;

/* A request with its parsed body; freed by `request_free` once its answer was sent. */
struct request {
  uint32_t id;
  /* Of the session it came in: an answer for an older one is dropped. */
  uint64_t session;
  char *body;
  /* The JSON as it came: parsing decodes it in place. */
  char *text;
  size_t text_length;
  struct json_document document;
  const struct json *json;
  const uint8_t *attachment;
  size_t attachment_length;
};

/* What the session tells its owner. All may be called from within `session_turn`. */
struct session_handlers {
  void (*opened)(void);
  void (*closed)(void);
  /* Takes over the request. */
  void (*request)(struct request *request);
  /* False: the peer broke the protocol. Unknown stream ids are no offence. */
  bool (*data)(uint32_t id, uint64_t offset, const uint8_t *bytes, size_t length);
  bool (*end)(uint32_t id, uint64_t offset);
  bool (*window)(uint32_t id, uint64_t acknowledged, uint64_t limit);
  void (*reset)(uint32_t id);
  void (*exit_acknowledged)(uint32_t id);
};

enum frame_type {
  FRAME_REQUEST = 1,
  FRAME_RESPONSE = 2,
  FRAME_DATA = 3,
  FRAME_WINDOW = 4,
  FRAME_END = 5,
  FRAME_RESET = 6,
  FRAME_EXIT = 7,
  FRAME_EXIT_ACKNOWLEDGED = 8,
  FRAME_GOODBYE = 9,
};
#define FRAME_FLAG_MORE 1

/* `fd` does not block. It is read and written until the end of the program. */
void session_init(int fd, const struct session_handlers *handlers);
/* Reads and writes what is possible. True: there is more to do at once. */
bool session_turn(void);
void session_forget(const struct stream_out *stream);
bool session_is_open(void);
/* For tests and fuzzing: bytes as if they had come from the port. */
void session_feed(const uint8_t *bytes, size_t length);

void request_free(struct request *request);
/* Each answers and frees the request. `ok` may be NULL for an empty answer. */
void respond_ok(struct request *request, const struct json_writer *ok);
void respond_error(struct request *request, const char *reason, int exit_code, const char *format,
                   ...) __attribute__((format(printf, 4, 5)));
void session_send_window(uint32_t id, uint64_t acknowledged, uint64_t limit);
void session_send_reset(uint32_t id, const char *message);
/* False: no session is open, or its queue is full. */
bool session_send_exit(uint32_t id, const struct json_writer *exit);

#endif
