#include "session.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "limits.h"
#include "loop.h"
#include "stream.h"

#define MAGIC_BYTES 16
#define NONCE_BYTES 16

/* No byte of it is 0 and its first occurs once: PROTOCOL.md says why that matters. */
static const uint8_t MAGIC[MAGIC_BYTES + 1] = "\xffhyperstart/open";

static struct source port = {.fd = -1};
static const struct session_handlers *handlers;
static bool readable, writable;
static uint64_t session_number;

static enum { SCANNING, NONCE, OPEN } state;
static size_t magic_matched;
static uint8_t nonce[NONCE_BYTES];
static size_t nonce_length;

static uint8_t frame[FRAME_HEADER_BYTES + FRAME_PAYLOAD_BYTES_MAX];
static size_t frame_length;

/* The request whose frames are arriving. */
static uint8_t *body;
static size_t body_length, body_capacity;
static uint32_t body_id;

/* Small frames in the order they were made. */
static uint8_t control[CONTROL_QUEUE_BYTES_MAX];
static size_t control_length;
/* What is being written; whole frames, so that streams can take turns between them. */
static uint8_t wire[FRAME_HEADER_BYTES + FRAME_PAYLOAD_BYTES_MAX];
static size_t wire_length, wire_written;
static struct stream_out *turn;

static uint32_t get32(const uint8_t *bytes) {
  return (uint32_t)bytes[0] | (uint32_t)bytes[1] << 8 | (uint32_t)bytes[2] << 16 |
         (uint32_t)bytes[3] << 24;
}

static uint64_t get64(const uint8_t *bytes) {
  return get32(bytes) | (uint64_t)get32(bytes + 4) << 32;
}

static void set32(uint8_t *bytes, uint32_t value) {
  for (int i = 0; i < 4; i++) bytes[i] = (uint8_t)(value >> 8 * i);
}

static void set64(uint8_t *bytes, uint64_t value) {
  set32(bytes, (uint32_t)value);
  set32(bytes + 4, (uint32_t)(value >> 32));
}

static void set_header(uint8_t *bytes, enum frame_type type, uint32_t id, size_t length) {
  memset(bytes, 0, FRAME_HEADER_BYTES);
  bytes[0] = (uint8_t)type;
  set32(bytes + 4, id);
  set32(bytes + 8, (uint32_t)length);
}

static void body_reset(void) {
  free(body);
  body = NULL;
  body_length = body_capacity = 0;
}

static void session_close(void) {
  if (state != OPEN) return;
  state = SCANNING;
  frame_length = 0;
  body_reset();
  handlers->closed();
}

static bool control_put(enum frame_type type, uint32_t id, const void *payload, size_t length) {
  if (state != OPEN) return false;
  if (length + FRAME_HEADER_BYTES > sizeof control - control_length) return false;
  set_header(control + control_length, type, id, length);
  if (length) memcpy(control + control_length + FRAME_HEADER_BYTES, payload, length);
  control_length += FRAME_HEADER_BYTES + length;
  return true;
}

/* Tells the host why, and listens for a new session. */
static bool protocol_error(const char *message) {
  control_put(FRAME_GOODBYE, 0, message, strlen(message));
  session_close();
  return false;
}

static void session_begin(void) {
  session_number++;
  state = OPEN;
  frame_length = 0;
  wire_length = wire_written = 0;
  memcpy(control, MAGIC, MAGIC_BYTES);
  memcpy(control + MAGIC_BYTES, nonce, NONCE_BYTES);
  control_length = MAGIC_BYTES + NONCE_BYTES;
  for (struct stream_out *stream = stream_outs; stream; stream = stream->next)
    stream_out_rewind(stream);
  handlers->opened();
}

static bool deliver_request(void) {
  uint32_t json_length = body_length < 4 ? 0 : get32(body);
  if (body_length < 4 || json_length > body_length - 4)
    return protocol_error("request: JSON longer than its body");
  struct request *request = calloc(1, sizeof *request);
  if (!request) return protocol_error("request: out of memory");
  request->id = body_id;
  request->session = session_number;
  /* The byte after the JSON becomes the terminator, so the attachment moves by one. */
  uint8_t *json = body + 4;
  size_t attachment_length = body_length - 4 - json_length;
  memmove(json + json_length + 1, json + json_length, attachment_length);
  json[json_length] = 0;
  request->body = (char *)body;
  request->text = malloc(json_length + 1);
  request->text_length = json_length;
  request->attachment = json + json_length + 1;
  request->attachment_length = attachment_length;
  body = NULL;
  body_length = body_capacity = 0;
  if (!request->text) {
    request_free(request);
    return protocol_error("request: out of memory");
  }
  memcpy(request->text, json, json_length);
  if (!json_parse(&request->document, (char *)json, json_length)) {
    respond_error(request, "Invalid", 0, "request: %s", request->document.error);
    return true;
  }
  request->json = request->document.nodes;
  handlers->request(request);
  return true;
}

static bool take_request(uint32_t id, uint8_t flags, const uint8_t *payload, size_t length) {
  if (body_length && id != body_id) return protocol_error("request: parts of two are mixed");
  if (body_length + length > REQUEST_BYTES_MAX) return protocol_error("request: too long");
  if (body_length + length + 1 > body_capacity) {
    size_t capacity = body_length + length + 1;
    if (flags & FRAME_FLAG_MORE) capacity += capacity;
    uint8_t *grown = realloc(body, capacity);
    if (!grown) return protocol_error("request: out of memory");
    body = grown;
    body_capacity = capacity;
  }
  memcpy(body + body_length, payload, length);
  body_length += length;
  body_id = id;
  return flags & FRAME_FLAG_MORE ? true : deliver_request();
}

static bool take_frame(void) {
  uint32_t id = get32(frame + 4);
  const uint8_t *payload = frame + FRAME_HEADER_BYTES;
  size_t length = get32(frame + 8);
  switch (frame[0]) {
    case FRAME_REQUEST:
      if (!length) return protocol_error("request: empty frame");
      return take_request(id, frame[1], payload, length);
    case FRAME_DATA:
      if (length <= DATA_PREFIX_BYTES) return protocol_error("data: too short");
      if (handlers->data(id, get64(payload), payload + DATA_PREFIX_BYTES,
                         length - DATA_PREFIX_BYTES))
        return true;
      return protocol_error("data: wrong offset or beyond the window");
    case FRAME_WINDOW:
      if (length != 16) return protocol_error("window: wrong length");
      if (handlers->window(id, get64(payload), get64(payload + 8))) return true;
      return protocol_error("window: impossible offsets");
    case FRAME_END:
      if (length != 8) return protocol_error("end: wrong length");
      if (handlers->end(id, get64(payload))) return true;
      return protocol_error("end: wrong offset");
    case FRAME_RESET:
      handlers->reset(id);
      return true;
    case FRAME_EXIT_ACKNOWLEDGED:
      handlers->exit_acknowledged(id);
      return true;
    default:
      return protocol_error("frame of unknown type");
  }
}

/* A header that makes no sense is found before its payload is awaited. */
static bool check_header(void) {
  if (frame[1] & ~FRAME_FLAG_MORE || frame[2] || frame[3])
    return protocol_error("frame with unknown flags");
  if (get32(frame + 8) > FRAME_PAYLOAD_BYTES_MAX) return protocol_error("frame too long");
  return true;
}

static void parse(const uint8_t *bytes, size_t length) {
  while (length && state == OPEN) {
    size_t want = FRAME_HEADER_BYTES;
    if (frame_length >= FRAME_HEADER_BYTES) want += get32(frame + 8);
    size_t count = want - frame_length < length ? want - frame_length : length;
    memcpy(frame + frame_length, bytes, count);
    frame_length += count;
    bytes += count;
    length -= count;
    if (frame_length < want) return;
    if (want == FRAME_HEADER_BYTES && !check_header()) return;
    if (frame_length < FRAME_HEADER_BYTES + get32(frame + 8)) continue;
    frame_length = 0;
    take_frame();
  }
}

/* Bytes up to and with the last one of the magic; all of them when it does not end here. */
static size_t scan(const uint8_t *bytes, size_t length) {
  for (size_t i = 0; i < length; i++) {
    if (!magic_matched) {
      const uint8_t *first = memchr(bytes + i, MAGIC[0], length - i);
      if (!first) return length;
      i = (size_t)(first - bytes);
      magic_matched = 1;
    } else if (bytes[i] == MAGIC[magic_matched]) {
      if (++magic_matched == MAGIC_BYTES) return i + 1;
    } else {
      magic_matched = bytes[i] == MAGIC[0];
    }
  }
  return length;
}

/* A host may vanish within its greeting, so the magic is looked for in the nonce as well. */
void session_feed(const uint8_t *bytes, size_t length) {
  while (length) {
    size_t left = NONCE_BYTES - nonce_length;
    size_t count = scan(bytes, state == NONCE && left < length ? left : length);
    if (magic_matched == MAGIC_BYTES) {
      if (state == OPEN) parse(bytes, count);
      session_close();
      state = NONCE;
      magic_matched = nonce_length = 0;
    } else if (state == NONCE) {
      memcpy(nonce + nonce_length, bytes, count);
      nonce_length += count;
      if (nonce_length == NONCE_BYTES) session_begin();
    } else if (state == OPEN) {
      parse(bytes, count);
    }
    bytes += count;
    length -= count;
  }
}

static void port_ready(struct source *source, uint32_t events) {
  (void)source;
  (void)events;
  readable = writable = true;
}

void session_init(int fd, const struct session_handlers *new_handlers) {
  handlers = new_handlers;
  port = (struct source){.fd = fd, .ready = port_ready};
  readable = writable = true;
  /* Edge triggered: the port reports a hang-up for as long as the host is away. */
  if (fd >= 0) loop_watch(&port, EPOLLIN | EPOLLOUT | EPOLLET);
}

bool session_is_open(void) { return state == OPEN; }

void session_forget(const struct stream_out *stream) {
  if (turn == stream) turn = stream->next;
}

static bool fill_from_stream(struct stream_out *stream) {
  const uint8_t *spans[2];
  size_t lengths[2];
  uint64_t time_ms;
  uint8_t *payload = wire + FRAME_HEADER_BYTES;
  if (stream->eof_sent) return false;
  size_t length = stream_out_peek(stream, FRAME_PAYLOAD_BYTES_MAX - DATA_PREFIX_BYTES, spans,
                                  lengths, &time_ms);
  if (length) {
    set_header(wire, FRAME_DATA, stream->id, DATA_PREFIX_BYTES + length);
    set64(payload, stream->sent);
    set64(payload + 8, time_ms);
    memcpy(payload + DATA_PREFIX_BYTES, spans[0], lengths[0]);
    memcpy(payload + DATA_PREFIX_BYTES + lengths[0], spans[1], lengths[1]);
    wire_length = FRAME_HEADER_BYTES + DATA_PREFIX_BYTES + length;
    stream_out_sent(stream, length);
    return true;
  }
  if (!stream->eof || !stream->limit || stream->sent != stream->end) return false;
  set_header(wire, FRAME_END, stream->id, 8);
  set64(payload, stream->end);
  wire_length = FRAME_HEADER_BYTES + 8;
  stream->eof_sent = true;
  if (stream->changed) stream->changed(stream->owner);
  return true;
}

/* Small frames first; then one frame of the next stream that has something. */
static bool fill_wire(void) {
  if (control_length) {
    size_t count = control_length < sizeof wire ? control_length : sizeof wire;
    memcpy(wire, control, count);
    memmove(control, control + count, control_length - count);
    control_length -= count;
    wire_length = count;
    return true;
  }
  if (state != OPEN || !stream_outs) return false;
  if (!turn) turn = stream_outs;
  struct stream_out *first = turn;
  do {
    struct stream_out *stream = turn;
    turn = turn->next ? turn->next : stream_outs;
    if (fill_from_stream(stream)) return true;
  } while (turn != first);
  return false;
}

static void write_port(void) {
  while (writable) {
    if (wire_written == wire_length) {
      wire_length = wire_written = 0;
      if (!fill_wire()) return;
    }
    ssize_t count = write(port.fd, wire + wire_written, wire_length - wire_written);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0)
      writable = false;
    else
      wire_written += (size_t)count;
  }
}

static void read_port(void) {
  uint8_t bytes[4096];
  for (int i = 0; readable && i < PORT_READS_PER_TURN; i++) {
    if (control_length > CONTROL_QUEUE_BYTES_MAX / 2) return;
    ssize_t count = read(port.fd, bytes, sizeof bytes);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0) {
      /* A hang-up too: the port tells of it late, when another host may have opened a session. */
      readable = false;
      return;
    }
    session_feed(bytes, (size_t)count);
  }
}

bool session_turn(void) {
  read_port();
  write_port();
  return readable && control_length <= CONTROL_QUEUE_BYTES_MAX / 2;
}

void request_free(struct request *request) {
  if (!request) return;
  json_free(&request->document);
  free(request->body);
  free(request->text);
  free(request);
}

static void respond(struct request *request, const char *bytes, size_t length) {
  if (request->session == session_number && state == OPEN &&
      !control_put(FRAME_RESPONSE, request->id, bytes, length)) {
    control_length = 0;
    protocol_error("the host does not read");
  }
  request_free(request);
}

void respond_ok(struct request *request, const struct json_writer *ok) {
  char bytes[RESPONSE_BYTES_MAX];
  if (ok && ok->overflow) {
    respond_error(request, "Invalid", 0, "The answer is longer than %d bytes", RESPONSE_BYTES_MAX);
    return;
  }
  int length = ok ? snprintf(bytes, sizeof bytes, "{\"ok\":%.*s}", (int)ok->length, ok->bytes)
                  : snprintf(bytes, sizeof bytes, "{\"ok\":{}}");
  respond(request, bytes, (size_t)length);
}

void respond_error(struct request *request, const char *reason, int exit_code, const char *format,
                   ...) {
  char message[1024], bytes[RESPONSE_BYTES_MAX];
  va_list arguments;
  va_start(arguments, format);
  vsnprintf(message, sizeof message, format, arguments);
  va_end(arguments);
  struct json_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
  json_open(&writer, NULL, '{');
  json_open(&writer, "error", '{');
  json_put_text(&writer, "reason", reason, strlen(reason));
  json_put_text(&writer, "message", message, strlen(message));
  json_put_number(&writer, "exitCode", exit_code);
  json_close(&writer, '}');
  json_close(&writer, '}');
  respond(request, bytes, writer.length);
}

void session_send_window(uint32_t id, uint64_t acknowledged, uint64_t limit) {
  uint8_t payload[16];
  set64(payload, acknowledged);
  set64(payload + 8, limit);
  control_put(FRAME_WINDOW, id, payload, sizeof payload);
}

void session_send_reset(uint32_t id, const char *message) {
  control_put(FRAME_RESET, id, message, strlen(message));
}

bool session_send_exit(uint32_t id, const struct json_writer *exit) {
  return control_put(FRAME_EXIT, id, exit->bytes, exit->length);
}
