/*
 * Fuzzes hyperstart: what a host may send, and what it gets back. Guided by coverage; needs gcc
 * and nothing else (`make fuzz`).
 *
 *   hyperstart-fuzz DIRECTORY SEED RUNS SECONDS    until either is reached; 0: no such limit
 *   hyperstart-fuzz DIRECTORY FILE                 one input again
 *
 * An input is a list of steps: frames, requests, greetings, raw bytes, time. Each runs in a
 * process of its own, which is hyperstart as an ordinary process; what it would do to the machine
 * (programs, signals, connections) is replaced. After each input a sound session must work, and
 * all output must be well-formed. An input that fails is left in DIRECTORY/failed.
 */
#define main hyperstart_main
#define exit fuzz_ended
int hyperstart_main(int count, char **arguments);
static _Noreturn void fuzz_ended(int code);
#include "main.c"
#undef main
#undef exit

#include <arpa/inet.h>
#include <poll.h>
#include <sanitizer/lsan_interface.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "fuzz.h"

#define INPUT_SECONDS_MAX 20
#define SETTLE_MS 2000
#define INPUTS_PER_LEAK_CHECK 64
#define ECHOES_MAX 8
#define PORT_BYTES (16 << 20)
#define STREAMS_MAX 64

static _Noreturn void fuzz_ended(int code) { _exit(code); }

/* What the guest would do to the machine. */
int __real_execve(const char *path, char *const *arguments, char *const *environment);
int __real_kill(pid_t pid, int number);
int __real_connect(int fd, const struct sockaddr *address, socklen_t length);
int __wrap_execve(const char *path, char *const *arguments, char *const *environment);
int __wrap_kill(pid_t pid, int number);
int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length);

static int listener = -1;

int __wrap_execve(const char *path, char *const *arguments, char *const *environment) {
  static const char *const SCRIPTS[] = {"exec cat", "exit 3", "echo a; echo b >&2; exec cat",
                                        "head -c 300000 /dev/zero; kill -9 $$"};
  size_t length = strlen(arguments[0]);
  char *const safe[] = {"sh", "-c", (char *)(uintptr_t)SCRIPTS[length % 4], NULL};
  (void)path;
  (void)environment;
  return __real_execve("/bin/sh", safe, (char *[]){"PATH=/usr/bin:/bin", NULL});
}

int __wrap_kill(pid_t pid, int number) {
  if (pid == 0 || pid == 1 || pid == -1 || pid == getpid() || pid == -getpid()) abort();
  return __real_kill(pid, number);
}

int __wrap_connect(int fd, const struct sockaddr *address, socklen_t length) {
  struct sockaddr_in loopback = {.sin_family = AF_INET};
  socklen_t size = sizeof loopback;
  const struct sockaddr_in *wanted = (const struct sockaddr_in *)address;
  (void)length;
  if (wanted->sin_family != AF_INET || ntohs(wanted->sin_port) % 2) {
    errno = ECONNREFUSED;
    return -1;
  }
  getsockname(listener, (struct sockaddr *)&loopback, &size);
  return __real_connect(fd, (struct sockaddr *)&loopback, size);
}

/* Coverage: edges of the guest's code, counted in memory that the parent sees. */
uint8_t *fuzz_edges;
static bool counting;
void __sanitizer_cov_trace_pc(void);

__attribute__((no_sanitize_coverage)) void __sanitizer_cov_trace_pc(void) {
  static uintptr_t previous;
  uintptr_t here = (uintptr_t)__builtin_return_address(0);
  if (counting) fuzz_edges[(here ^ previous) % FUZZ_EDGES]++;
  previous = here >> 1;
}

static int port_host;
static uint8_t pending[FUZZ_INPUT_BYTES_MAX * 2];
static size_t pending_length;
static int echoes[ECHOES_MAX];

static void echo(void) {
  char bytes[4096];
  for (int i = 0; i < ECHOES_MAX; i++) {
    if (echoes[i] < 0) echoes[i] = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (echoes[i] < 0) return;
    ssize_t length = recv(echoes[i], bytes, sizeof bytes, 0);
    if (length > 0 && send(echoes[i], bytes, (size_t)length, MSG_NOSIGNAL) < 0) length = 0;
    if (length == 0) {
      close(echoes[i]);
      echoes[i] = -1;
    }
  }
}

/* What comes from the guest, checked as the host would. */
static struct checked {
  uint32_t id;
  uint64_t next;
  bool ended;
} streams[STREAMS_MAX];
static uint8_t answer[1 << 20];
static size_t answer_length;
static bool greeted_by_guest, removed_answered, hello_answered;

#define REQUIRE(condition, what) \
  do { \
    if (!(condition)) fatal("output: %s", what); \
  } while (0)

static struct checked *checked_stream(uint32_t id, uint64_t offset) {
  for (int i = 0; i < STREAMS_MAX; i++) {
    if (streams[i].id && streams[i].id != id) continue;
    if (!streams[i].id) streams[i] = (struct checked){id, offset, false};
    return &streams[i];
  }
  return NULL;
}

static uint64_t little_endian(const uint8_t *bytes, int count) {
  uint64_t value = 0;
  for (int i = count - 1; i >= 0; i--) value = value << 8 | bytes[i];
  return value;
}

static void check_frame(const uint8_t *frame, size_t length) {
  const uint8_t *payload = frame + FRAME_HEADER_BYTES;
  uint32_t id = (uint32_t)little_endian(frame + 4, 4);
  uint64_t offset = length >= 8 ? little_endian(payload, 8) : 0;
  struct checked *stream;
  switch (frame[0]) {
    case FRAME_RESPONSE:
      REQUIRE(length > 2 && length <= RESPONSE_BYTES_MAX, "length of a response");
      REQUIRE(!memcmp(payload, "{\"ok\":{", 7) || !memcmp(payload, "{\"error\":{", 10), "response");
      REQUIRE(payload[length - 1] == '}', "end of a response");
      if (id == FUZZ_HELLO_ID) hello_answered = payload[2] == 'o';
      if (id == FUZZ_LAST_ID) removed_answered = true;
      return;
    case FRAME_DATA:
      REQUIRE(length > DATA_PREFIX_BYTES, "length of data");
      if (!(stream = checked_stream(id, offset))) return;
      /* A number that the host used again, which it must not, starts at 0. */
      REQUIRE(offset == 0 || (offset == stream->next && !stream->ended), "offset of data");
      *stream = (struct checked){id, offset + length - DATA_PREFIX_BYTES, false};
      return;
    case FRAME_END:
      REQUIRE(length == 8, "length of an end");
      if (!(stream = checked_stream(id, offset))) return;
      REQUIRE(offset == stream->next || offset == 0, "offset of an end");
      stream->ended = true;
      return;
    case FRAME_WINDOW:
      REQUIRE(length == 16 && little_endian(payload + 8, 8) >= offset, "window");
      return;
    case FRAME_EXIT:
      REQUIRE(length > 2 && payload[0] == '{' && payload[length - 1] == '}', "exit");
      return;
    default:
      REQUIRE(frame[0] == FRAME_RESET || frame[0] == FRAME_GOODBYE, "type of a frame");
  }
}

/* The answer to the last greeting: what was before, even half a frame, is of another session. */
static uint8_t *last_greeting(void) {
  uint8_t *found = NULL, *at = answer;
  while ((at = memmem(at, (size_t)(answer + answer_length - at), FUZZ_MAGIC, FUZZ_MAGIC_BYTES)))
    found = at++;
  return found;
}

static void check_output(void) {
  ssize_t count;
  while ((count = read(port_host, answer + answer_length, sizeof answer - answer_length)) > 0) {
    answer_length += (size_t)count;
    uint8_t *at = last_greeting(), *end = answer + answer_length;
    if (at && end - at < GREETING_BYTES) continue;
    if (at) {
      greeted_by_guest = true;
      memset(streams, 0, sizeof streams);
    }
    at = at ? at + GREETING_BYTES : answer;
    while (greeted_by_guest && end - at >= FRAME_HEADER_BYTES) {
      size_t length = (size_t)little_endian(at + 8, 4);
      REQUIRE(!at[1] && !at[2] && !at[3] && length <= FRAME_PAYLOAD_BYTES_MAX, "header");
      if ((size_t)(end - at) < FRAME_HEADER_BYTES + length) break;
      check_frame(at, length);
      greeted_by_guest = at[0] != FRAME_GOODBYE;
      at += FRAME_HEADER_BYTES + length;
    }
    /* What follows a goodbye belongs to no session; the beginning of a greeting may be in it. */
    if (!greeted_by_guest && end - at > GREETING_BYTES) at = end - GREETING_BYTES;
    memmove(answer, at, (size_t)(end - at));
    answer_length = (size_t)(end - at);
  }
}

static void turns(int count) {
  for (int i = 0; i < count; i++) {
    ssize_t written = 0;
    if (pending_length) written = write(port_host, pending, pending_length);
    if (written > 0) {
      pending_length -= (size_t)written;
      memmove(pending, pending + written, pending_length);
    }
    bool busy = session_turn();
    loop_turn(true);
    check_output();
    echo();
    if (!busy && !pending_length && i % 8 == 7) poll(NULL, 0, 1);
  }
}

void fuzz_send(const uint8_t *bytes, size_t length) {
  while (length > sizeof pending - pending_length) turns(1);
  if (length) memcpy(pending + pending_length, bytes, length);
  pending_length += length;
}

void fuzz_greet(void) {
  static uint8_t greeting[GREETING_BYTES] = FUZZ_MAGIC;
  greeting[GREETING_BYTES - 1]++;
  fuzz_send(greeting, sizeof greeting);
}

void fuzz_turns(int count) { turns(count); }

static void settle(const bool *done, const char *what) {
  uint64_t deadline_ms = uptime_ms() + SETTLE_MS;
  while (!*done) {
    REQUIRE(uptime_ms() < deadline_ms, what);
    turns(8);
  }
}

/* After whatever it was told: a host that keeps to the protocol can work with it. */
static void sound_session(void) {
  char json[256];
  fuzz_greet();
  hello_answered = removed_answered = false;
  fuzz_request(FUZZ_HELLO_ID, "{\"op\":\"hello\",\"versions\":[2]}", NULL, 0);
  settle(&hello_answered, "no answer to hello");
  while (container_at(0)) {
    char id[ID_BYTES_MAX + 1];
    snprintf(id, sizeof id, "%s", container_at(0)->id);
    snprintf(json, sizeof json, "{\"op\":\"removeContainer\",\"id\":\"%s\"}", id);
    removed_answered = false;
    fuzz_request(FUZZ_LAST_ID, json, NULL, 0);
    settle(&removed_answered, "a container stays");
  }
}

static void open_listener(void) {
  struct sockaddr_in loopback = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (bind(listener, (struct sockaddr *)&loopback, sizeof loopback) < 0 || listen(listener, 64) < 0)
    fatal("listen: %s", strerror(errno));
  memset(echoes, 0xff, sizeof echoes);
}

static void prepare_state(const char *directory) {
  char path[PATH_BYTES_MAX];
  static const char *const PARTS[] = {"scratch/containers", "volume"};
  for (size_t i = 0; i < 2; i++) {
    format_path(path, sizeof path, "%s/%s", directory, PARTS[i]);
    remove_tree(path);
    make_directories(path, 0755);
  }
}

static _Noreturn void run_input(const uint8_t *input, size_t length, bool leaks) {
  int ends[2];
  alarm(INPUT_SECONDS_MAX);
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, ends) < 0) _exit(2);
  port_host = ends[0];
  /* So that a frame is written whole, and a greeting that cuts one off is, too. */
  setsockopt(ends[1], SOL_SOCKET, SO_SNDBUFFORCE, &(int){PORT_BYTES}, sizeof(int));
  open_listener();
  test_mode = true;
  loop_init();
  signals_init();
  session_init(ends[1], &HANDLERS);
  counting = true;
  fuzz_play(input, length);
  counting = false;
  sound_session();
  if (leaks && __lsan_do_recoverable_leak_check()) _exit(3);
  _exit(0);
}

/* False: it crashed, hung, leaked or said something wrong. */
static bool try_input(const char *directory, const uint8_t *input, size_t length, bool leaks) {
  int status;
  state_root = directory;
  prepare_state(directory);
  memset(fuzz_edges, 0, FUZZ_EDGES);
  pid_t pid = fork();
  if (pid == 0) run_input(input, length, leaks);
  if (pid < 0) fatal("fork: %s", strerror(errno));
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return true;
  if (WIFSIGNALED(status)) note("the guest was ended by signal %d", WTERMSIG(status));
  return false;
}

static void save(const char *directory, const uint8_t *input, size_t length) {
  char path[PATH_BYTES_MAX];
  format_path(path, sizeof path, "%s/failed", directory);
  write_file_mode(path, input, length, 0644);
  note("the input is in %s", path);
}

static int repeat(const char *directory, const char *file) {
  static uint8_t input[FUZZ_INPUT_BYTES_MAX];
  int fd = open(file, O_RDONLY | O_CLOEXEC);
  ssize_t length = read(fd, input, sizeof input);
  if (length < 0) fatal("%s: %s", file, strerror(errno));
  return try_input(directory, input, (size_t)length, true) ? 0 : 1;
}

int main(int count, char **arguments) {
  const char *directory = count > 1 ? arguments[1] : NULL;
  int flags = MAP_SHARED | MAP_ANONYMOUS;
  fuzz_edges = mmap(NULL, FUZZ_EDGES, PROT_READ | PROT_WRITE, flags, -1, 0);
  signal(SIGPIPE, SIG_IGN);
  if (count == 3) return repeat(directory, arguments[2]);
  if (count != 5) fatal("usage: hyperstart-fuzz DIRECTORY FILE | DIRECTORY SEED RUNS SECONDS");
  unsigned long runs = strtoul(arguments[3], NULL, 10), done = 0;
  uint64_t seconds = strtoull(arguments[4], NULL, 10);
  uint64_t end_ms = seconds ? uptime_ms() + seconds * 1000 : UINT64_MAX;
  fuzz_begin(strtoull(arguments[2], NULL, 10));
  for (; (!runs || done < runs) && uptime_ms() < end_ms; done++) {
    size_t length;
    const uint8_t *input = fuzz_next(&length);
    if (!try_input(directory, input, length, done % INPUTS_PER_LEAK_CHECK == 0)) {
      save(directory, input, length);
      return 1;
    }
    fuzz_judge();
  }
  printf("%lu inputs, %zu edges, %zu kept\n", done, fuzz_edge_count(), fuzz_kept_count());
  return 0;
}
