#include "stream.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "limits.h"
#include "session.h"

struct stream_out *stream_outs;

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

/* Splits [offset, offset + length) of a ring into its at most two spans. */
static void ring_spans(uint8_t *ring, uint32_t size, uint64_t offset, size_t length,
                       struct iovec spans[2]) {
  size_t at = offset % size, head = min_size(length, size - at);
  spans[0] = (struct iovec){ring + at, head};
  spans[1] = (struct iovec){ring, length - head};
}

static void out_finish(struct stream_out *stream) {
  stream->eof = true;
  loop_close(&stream->source);
  if (stream->changed) stream->changed(stream->owner);
}

static void out_note_time(struct stream_out *stream) {
  if (!stream->marks) return;
  uint64_t now_ms = clock_ms();
  struct mark *last =
      &stream->marks[(stream->mark_first + stream->mark_count + STREAM_MARKS_MAX - 1) %
                     STREAM_MARKS_MAX];
  bool full = stream->mark_count == STREAM_MARKS_MAX;
  if (stream->mark_count && (full || last->time_ms == now_ms)) {
    last->end = stream->end;
    return;
  }
  stream->marks[(stream->mark_first + stream->mark_count) % STREAM_MARKS_MAX] =
      (struct mark){stream->end, now_ms};
  stream->mark_count++;
}

/* One read; with the writer gone, as many as it takes to see the end or a full ring. */
static void out_ready(struct source *source, uint32_t events) {
  struct stream_out *stream = (struct stream_out *)source;
  (void)events;
  do {
    struct iovec spans[2];
    size_t room = stream->size - (size_t)(stream->end - stream->start);
    if (!room) {
      loop_watch(source, 0);
      return;
    }
    ring_spans(stream->ring, stream->size, stream->end, room, spans);
    ssize_t count = readv(source->fd, spans, spans[1].iov_len ? 2 : 1);
    if (count <= 0) {
      bool again = count < 0 && (errno == EAGAIN || errno == EINTR);
      if (!again || (stream->draining && errno == EAGAIN)) {
        out_finish(stream);
        return;
      }
      continue;
    }
    stream->end += (uint64_t)count;
    out_note_time(stream);
    } while (stream->draining);
}

bool stream_out_open(struct stream_out *stream, uint32_t id, int fd, uint32_t size, bool marked) {
  memset(stream, 0, sizeof *stream);
  stream->source = (struct source){.fd = fd, .ready = out_ready};
  stream->id = id;
  stream->size = size;
  stream->ring = malloc(size);
  if (marked) stream->marks = malloc(STREAM_MARKS_MAX * sizeof *stream->marks);
  stream->eof = fd < 0;
  if (!stream->ring || (marked && !stream->marks) ||
      (fd >= 0 && !loop_watch(&stream->source, EPOLLIN))) {
    loop_close(&stream->source);
    free(stream->ring);
    free(stream->marks);
    memset(stream, 0, sizeof *stream);
    return false;
  }
  stream->next = stream_outs;
  if (stream_outs) stream_outs->previous = stream;
  stream_outs = stream;
  return true;
}

void stream_out_close(struct stream_out *stream) {
  if (!stream->ring) return;
  session_forget(stream);
  if (stream->previous)
    stream->previous->next = stream->next;
  else
    stream_outs = stream->next;
  if (stream->next) stream->next->previous = stream->previous;
  loop_close(&stream->source);
  free(stream->ring);
  free(stream->marks);
  memset(stream, 0, sizeof *stream);
  stream->source.fd = -1;
}

void stream_out_drain(struct stream_out *stream) {
  if (!stream->ring || stream->eof) return;
  stream->draining = true;
  out_ready(&stream->source, EPOLLIN);
}

bool stream_out_done(const struct stream_out *stream) {
  return !stream->ring || (stream->eof && stream->eof_sent);
}

bool stream_out_window(struct stream_out *stream, uint64_t acknowledged, uint64_t limit) {
  if (acknowledged > stream->end || limit < acknowledged) return false;
  if (!stream->limit && acknowledged > stream->sent) stream->sent = acknowledged;
  if (acknowledged > stream->sent || limit < stream->limit) return false;
  if (acknowledged > stream->start) stream->start = acknowledged;
  stream->limit = limit;
  while (stream->mark_count && stream->marks[stream->mark_first].end <= stream->start) {
    stream->mark_first = (stream->mark_first + 1) % STREAM_MARKS_MAX;
    stream->mark_count--;
  }
  if (stream->eof || stream->end - stream->start == stream->size) return true;
  loop_watch(&stream->source, EPOLLIN);
  if (stream->draining) out_ready(&stream->source, EPOLLIN);
  return true;
}

void stream_out_rewind(struct stream_out *stream) {
  stream->sent = stream->start;
  stream->limit = 0;
  stream->eof_sent = false;
}

static const struct mark *out_mark(const struct stream_out *stream) {
  for (uint32_t i = 0; i < stream->mark_count; i++) {
    const struct mark *mark = &stream->marks[(stream->mark_first + i) % STREAM_MARKS_MAX];
    if (mark->end > stream->sent) return mark;
  }
  return NULL;
}

size_t stream_out_peek(struct stream_out *stream, size_t length_max, const uint8_t *spans[2],
                       size_t lengths[2], uint64_t *time_ms) {
  uint64_t end = stream->end < stream->limit ? stream->end : stream->limit;
  const struct mark *mark = stream->marks ? out_mark(stream) : NULL;
  if (mark && mark->end < end) end = mark->end;
  if (end <= stream->sent) return 0;
  struct iovec parts[2];
  size_t length = min_size((size_t)(end - stream->sent), length_max);
  ring_spans(stream->ring, stream->size, stream->sent, length, parts);
  for (int i = 0; i < 2; i++) {
    spans[i] = parts[i].iov_base;
    lengths[i] = parts[i].iov_len;
  }
  *time_ms = mark ? mark->time_ms : 0;
  return length;
}

void stream_out_sent(struct stream_out *stream, size_t length) { stream->sent += length; }

/* Announces room when a good part of the ring is free again, not for every byte. */
static void in_announce(struct stream_in *stream) {
  uint64_t limit = stream->consumed + stream->size;
  if (limit - stream->limit < stream->size / 4 && stream->limit != stream->received) return;
  if (limit == stream->limit) return;
  stream->limit = limit;
  session_send_window(stream->id, stream->consumed, limit);
}

static void in_break(struct stream_in *stream) {
  stream->broken = true;
  stream->consumed = stream->received;
  loop_close(&stream->source);
  session_send_reset(stream->id, "the reader is gone");
  if (stream->changed) stream->changed(stream->owner);
}

static void in_finish(struct stream_in *stream) {
  if (stream->is_socket) shutdown(stream->source.fd, SHUT_WR);
  loop_close(&stream->source);
  if (stream->changed) stream->changed(stream->owner);
}

static void in_ready(struct source *source, uint32_t events) {
  struct stream_in *stream = (struct stream_in *)source;
  (void)events;
  size_t length = (size_t)(stream->received - stream->consumed);
  if (length) {
    struct iovec spans[2];
    ring_spans(stream->ring, stream->size, stream->consumed, length, spans);
    ssize_t count = writev(source->fd, spans, spans[1].iov_len ? 2 : 1);
    if (count < 0) {
      if (errno != EAGAIN && errno != EINTR) in_break(stream);
      return;
    }
    stream->consumed += (uint64_t)count;
    in_announce(stream);
  }
  if (stream->consumed < stream->received) return;
  loop_watch(source, 0);
  if (stream->ended) in_finish(stream);
}

bool stream_in_open(struct stream_in *stream, uint32_t id, int fd, uint32_t size) {
  memset(stream, 0, sizeof *stream);
  stream->source = (struct source){.fd = fd, .ready = in_ready};
  stream->id = id;
  stream->size = size;
  stream->limit = size;
  stream->ring = malloc(size);
  if (stream->ring) return true;
  loop_close(&stream->source);
  return false;
}

void stream_in_close(struct stream_in *stream) {
  if (!stream->ring) return;
  loop_close(&stream->source);
  free(stream->ring);
  memset(stream, 0, sizeof *stream);
  stream->source.fd = -1;
}

void stream_in_announce(const struct stream_in *stream) {
  session_send_window(stream->id, stream->consumed, stream->limit);
}

bool stream_in_data(struct stream_in *stream, uint64_t offset, const uint8_t *bytes,
                    size_t length) {
  if (offset != stream->received || stream->ended) return false;
  if (length > stream->limit - stream->received) return false;
  if (stream->broken) {
    stream->received += length;
    stream->consumed = stream->received;
    in_announce(stream);
    return true;
  }
  struct iovec spans[2];
  ring_spans(stream->ring, stream->size, stream->received, length, spans);
  memcpy(spans[0].iov_base, bytes, spans[0].iov_len);
  memcpy(spans[1].iov_base, bytes + spans[0].iov_len, spans[1].iov_len);
  stream->received += length;
  if (!loop_watch(&stream->source, EPOLLOUT)) in_break(stream);
  return true;
}

bool stream_in_end(struct stream_in *stream, uint64_t offset) {
  if (offset != stream->received || stream->ended) return false;
  stream->ended = true;
  if (!stream->broken && stream->consumed == stream->received) in_finish(stream);
  return true;
}
