/*
 * The two directions of a byte stream between a descriptor of the guest and the host. Each stream
 * owns one descriptor, a ring of bytes and its offsets; the ring is the window of flow control.
 */
#ifndef HYPERSTART_STREAM_H
#define HYPERSTART_STREAM_H

#include <stddef.h>

#include "loop.h"

struct mark {
  uint64_t end;
  uint64_t time_ms;
};

/* Guest to host. start <= sent <= end <= start + size. */
struct stream_out {
  struct source source;
  struct stream_out *next, *previous;
  uint32_t id;
  uint32_t size;
  uint8_t *ring;
  /* First byte kept: all before it were acknowledged. */
  uint64_t start;
  uint64_t sent;
  uint64_t end;
  /* The host takes bytes below this offset; 0 in a session that has not granted anything. */
  uint64_t limit;
  struct mark *marks;
  uint32_t mark_first, mark_count;
  /* The writer is gone: what is in the descriptor now is all there will be. */
  bool draining;
  bool eof;
  bool eof_sent;
  /* Called once, when `eof` is set, and each time that everything was sent. */
  void (*changed)(void *owner);
  void *owner;
};

/* Host to guest. consumed <= received <= limit = consumed + size, as announced. */
struct stream_in {
  struct source source;
  uint32_t id;
  uint32_t size;
  uint8_t *ring;
  uint64_t consumed;
  uint64_t received;
  uint64_t limit;
  bool ended;
  /* Nobody reads any more: bytes are counted and dropped. */
  bool broken;
  bool is_socket;
  void (*changed)(void *owner);
  void *owner;
};

/*
 * Both take over `fd`, which must not block, also when they fail. False: no memory. An output
 * without a descriptor (-1) is one that ends at once.
 */
bool stream_out_open(struct stream_out *stream, uint32_t id, int fd, uint32_t size, bool marked);
bool stream_in_open(struct stream_in *stream, uint32_t id, int fd, uint32_t size);
void stream_out_close(struct stream_out *stream);
void stream_in_close(struct stream_in *stream);

/* From the session. False: the host broke the protocol. */
bool stream_out_window(struct stream_out *stream, uint64_t acknowledged, uint64_t limit);
bool stream_in_data(struct stream_in *stream, uint64_t offset, const uint8_t *bytes, size_t length);
bool stream_in_end(struct stream_in *stream, uint64_t offset);
/* Tells a new session how much the host may send. */
void stream_in_announce(const struct stream_in *stream);
/* A new session begins: nothing is granted, everything that was not acknowledged is unsent. */
void stream_out_rewind(struct stream_out *stream);
/* The writer of this stream has ended. */
void stream_out_drain(struct stream_out *stream);
/* Everything up to the end was handed to the port. */
bool stream_out_done(const struct stream_out *stream);

/* All open outputs, for the session that sends them in turn. */
extern struct stream_out *stream_outs;
/* The next piece to send: sets its bytes (at most two spans), returns its length; 0: none. */
size_t stream_out_peek(struct stream_out *stream, size_t length_max, const uint8_t *spans[2],
                       size_t lengths[2], uint64_t *time_ms);
void stream_out_sent(struct stream_out *stream, size_t length);

#endif
