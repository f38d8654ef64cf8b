#include "relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "limits.h"
#include "loop.h"
#include "stream.h"

/* `in` and `out` are streams base and base + 1, each with its own descriptor of the socket. */
struct relay {
  bool used;
  uint32_t stream;
  struct source connecting;
  struct timer timer;
  struct request *request;
  /* Which of the loopback addresses is tried; -1: the one that was asked for. */
  int attempt;
  struct stream_in in;
  struct stream_out out;
};

static const char *const LOOPBACK[] = {"127.0.0.1", "::1"};
#define LOOPBACK_COUNT (int)(sizeof LOOPBACK / sizeof *LOOPBACK)

static struct relay relays[RELAYS_MAX];

static struct relay *find_relay(uint32_t id) {
  for (int i = 0; id > 3 && i < RELAYS_MAX; i++)
    if (relays[i].used && relays[i].stream == (id & ~3u)) return &relays[i];
  return NULL;
}

static void relay_free(struct relay *relay) {
  timer_cancel(&relay->timer);
  loop_close(&relay->connecting);
  stream_in_close(&relay->in);
  stream_out_close(&relay->out);
  if (relay->request) request_free(relay->request);
  memset(relay, 0, sizeof *relay);
}

/* Both directions are finished: nothing of it is needed any more. */
static void changed(void *owner) {
  struct relay *relay = owner;
  bool in_done = relay->in.source.fd < 0, out_done = stream_out_done(&relay->out);
  if (relay->in.ring && relay->out.ring && in_done && out_done) relay_free(relay);
}

static void connected(struct relay *relay) {
  char bytes[64];
  struct request *request = relay->request;
  int fd = relay->connecting.fd, copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
  relay->request = NULL;
  timer_cancel(&relay->timer);
  loop_watch(&relay->connecting, 0);
  relay->connecting.fd = -1;
  bool ok = stream_in_open(&relay->in, relay->stream, fd, RELAY_RING_BYTES);
  uint32_t out = relay->stream + 1;
  ok = copy >= 0 && stream_out_open(&relay->out, out, copy, RELAY_RING_BYTES, false) && ok;
  if (!ok) {
    respond_error(request, "Invalid", 0, "connect: out of memory");
    relay_free(relay);
    return;
  }
  relay->in.is_socket = true;
  relay->in.changed = relay->out.changed = changed;
  relay->in.owner = relay->out.owner = relay;
  relay->out.limit = (uint64_t)json_number(request->json, "window", 0);
  struct json_writer writer = {.bytes = bytes, .capacity = sizeof bytes};
  json_open(&writer, NULL, '{');
  json_put_number(&writer, "stream", relay->stream);
  json_close(&writer, '}');
  respond_ok(request, &writer);
}

static void fail(struct relay *relay, const char *what) {
  struct request *request = relay->request;
  const char *host = json_text(request->json, "host", "");
  relay->request = NULL;
  respond_error(request, "Refused", 0, "dial tcp %.64s:%d: %s", *host ? host : LOOPBACK[0],
                (int)json_number(request->json, "port", 0), what);
  relay_free(relay);
}

static bool start_connect(struct relay *relay, const char *host);

static void try_next(struct relay *relay, int error) {
  loop_close(&relay->connecting);
  while (relay->attempt >= 0 && ++relay->attempt < LOOPBACK_COUNT)
    if (start_connect(relay, LOOPBACK[relay->attempt])) return;
  fail(relay, error == ECONNREFUSED ? "connect: connection refused" : strerror(error));
}

static void connect_ready(struct source *source, uint32_t events) {
  struct relay *relay = (struct relay *)((char *)source - offsetof(struct relay, connecting));
  int error = 0;
  socklen_t length = sizeof error;
  (void)events;
  if (getsockopt(source->fd, SOL_SOCKET, SO_ERROR, &error, &length) < 0) error = errno;
  if (error)
    try_next(relay, error);
  else
    connected(relay);
}

static void timed_out(struct timer *timer) {
  fail((struct relay *)((char *)timer - offsetof(struct relay, timer)), "i/o timeout");
}

static bool parse_address(const char *host, int port, struct sockaddr_storage *address,
                          socklen_t *length) {
  struct sockaddr_in *v4 = (struct sockaddr_in *)address;
  struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
  memset(address, 0, sizeof *address);
  if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
    v4->sin_family = AF_INET;
    v4->sin_port = htons((uint16_t)port);
    *length = sizeof *v4;
    return true;
  }
  if (inet_pton(AF_INET6, host, &v6->sin6_addr) != 1) return false;
  v6->sin6_family = AF_INET6;
  v6->sin6_port = htons((uint16_t)port);
  *length = sizeof *v6;
  return true;
}

static bool start_connect(struct relay *relay, const char *host) {
  struct sockaddr_storage address;
  socklen_t length;
  int port = (int)json_number(relay->request->json, "port", 0);
  if (!parse_address(host, port, &address, &length)) return false;
  int type = SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC;
  int fd = socket(address.ss_family, type, 0);
  if (fd < 0) return false;
  relay->connecting = (struct source){.fd = fd, .ready = connect_ready};
  bool under_way = connect(fd, (struct sockaddr *)&address, length) == 0 || errno == EINPROGRESS;
  if (under_way && loop_watch(&relay->connecting, EPOLLOUT)) return true;
  loop_close(&relay->connecting);
  return false;
}

static struct relay *new_relay(uint32_t stream) {
  if (!stream || stream & 3 || find_relay(stream)) return NULL;
  for (int i = 0; i < RELAYS_MAX; i++) {
    struct relay *relay = &relays[i];
    if (relay->used) continue;
    memset(relay, 0, sizeof *relay);
    relay->used = true;
    relay->stream = stream;
    relay->connecting.fd = relay->in.source.fd = relay->out.source.fd = -1;
    return relay;
  }
  return NULL;
}

void relay_connect(struct request *request) {
  const struct json *json = request->json;
  const char *host = json_text(json, "host", "");
  int64_t port = json_number(json, "port", 0), timeout_ms = json_number(json, "timeoutMs", 0);
  if (port < 1 || port > 65535 || timeout_ms < 1 || timeout_ms > CONNECT_TIMEOUT_MAX_MS) {
    respond_error(request, "Invalid", 0, "connect: port or timeoutMs out of range");
    return;
  }
  struct relay *relay = new_relay((uint32_t)json_number(json, "stream", 0));
  if (!relay) {
    respond_error(request, "Invalid", 0, "connect: stream taken, or more than %d connections",
                  RELAYS_MAX);
    return;
  }
  relay->request = request;
  relay->attempt = *host ? -1 : 0;
  timer_set(&relay->timer, (uint64_t)timeout_ms, timed_out);
  if (!start_connect(relay, *host ? host : LOOPBACK[0]))
    try_next(relay, errno ? errno : EINVAL);
}

bool relays_data(uint32_t id, uint64_t offset, const uint8_t *bytes, size_t length, bool *known) {
  struct relay *relay = find_relay(id);
  *known = relay && id == relay->stream && relay->in.ring;
  return !*known || stream_in_data(&relay->in, offset, bytes, length);
}

bool relays_end(uint32_t id, uint64_t offset, bool *known) {
  struct relay *relay = find_relay(id);
  *known = relay && id == relay->stream && relay->in.ring;
  return !*known || stream_in_end(&relay->in, offset);
}

bool relays_window(uint32_t id, uint64_t acknowledged, uint64_t limit, bool *known) {
  struct relay *relay = find_relay(id);
  *known = relay && id == relay->stream + 1 && relay->out.ring;
  return !*known || stream_out_window(&relay->out, acknowledged, limit);
}

void relays_reset(uint32_t id) {
  struct relay *relay = find_relay(id);
  if (relay) relay_free(relay);
}

void relays_session_closed(void) {
  for (int i = 0; i < RELAYS_MAX; i++)
    if (relays[i].used) relay_free(&relays[i]);
}
