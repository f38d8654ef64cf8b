#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "limits.h"
#include "session.h"

/*
 * An input: steps of u8 kind, u16 length, bytes. Whatever does not fit is cut, so any bytes are
 * an input and a change of a few bytes is a similar one.
 */
enum step { STEP_REQUEST, STEP_FRAME, STEP_RAW, STEP_GREET, STEP_TURNS, STEP_KINDS };
#define STEP_HEADER_BYTES 3
#define FRAME_STEP_BYTES 6
#define KEPT_MAX 4096
#define STEPS_MAX 24
#define CHANGES_MAX 8

static uint64_t random_state;

static uint32_t draw(uint32_t count) {
  random_state = random_state * 6364136223846793005u + 1442695040888963407u;
  uint32_t mixed = (uint32_t)((random_state ^ random_state >> 18) >> 27);
  return count ? mixed % count : 0;
}

static bool chance(uint32_t percent) { return draw(100) < percent; }

/* A program's length decides what it is: see `__wrap_execve`. */
#define PROCESS(argv0, more) \
  "{\"argv\":[\"" argv0 "\"],\"env\":[\"A=b\"],\"workingDir\":\"/\"" more "}"
#define CONTAINER(id, stream, argv0, more) \
  "{\"op\":\"startContainer\",\"id\":\"" id "\",\"stream\":" stream ",\"window\":200000," \
  "\"imageSerial\":\"i\",\"process\":" PROCESS(argv0, "") more "}"

static const char *const REQUESTS[] = {
    "{\"op\":\"hello\",\"versions\":[2]}",
    "{\"op\":\"ping\"}",
    "{\"op\":\"stats\"}",
    "{\"op\":\"shutdown\"}",
    "{\"op\":\"setClock\",\"epochMs\":1}",
    "{\"op\":\"endRehearsal\"}",
    "{\"op\":\"prefetch\",\"imageSerial\":\"i\",\"program\":\"sh\","
    "\"mountPaths\":[\"/v\"]}",
    "{\"op\":\"setupPod\",\"rehearsal\":true,\"epochMs\":1767225600000,\"hostname\":\"r\"}",
    "{\"op\":\"setupPod\",\"epochMs\":1767225600000,\"hostname\":\"a\",\"volumes\":"
    "[{\"name\":\"v\",\"type\":\"files\"},{\"name\":\"w\",\"type\":\"memory\"}]}",
    "{\"op\":\"volumeBegin\",\"volume\":\"v\",\"version\":1}",
    "{\"op\":\"volumeFile\",\"volume\":\"v\",\"version\":1,\"path\":\"a/b\",\"mode\":420,"
    "\"offset\":0}",
    "{\"op\":\"volumeFile\",\"volume\":\"v\",\"version\":1,\"path\":\"../../x\",\"offset\":5}",
    "{\"op\":\"volumeCommit\",\"volume\":\"v\",\"version\":1}",
    CONTAINER("a", "4", "/bin", ",\"stdin\":true"),
    CONTAINER("b", "8", "/bin/", ""),
    CONTAINER("c", "16", "/bin/sh", ",\"stdin\":true"),
    CONTAINER("d", "20", "/none/x", ""),
    "{\"op\":\"removeContainer\",\"id\":\"a\"}",
    "{\"op\":\"setResources\",\"id\":\"a\",\"resources\":{\"cpuMillis\":500,"
    "\"cpuWeightMillis\":100,\"memoryBytes\":67108864}}",
    "{\"op\":\"removeContainer\",\"id\":\"b\"}",
    "{\"op\":\"exec\",\"id\":\"a\",\"stream\":12,\"window\":9,\"process\":"
    PROCESS("/bin/cat", "") "}",
    "{\"op\":\"exec\",\"id\":\"a\",\"stream\":24,\"window\":90000,\"process\":"
    PROCESS("/bin/dash", ",\"tty\":true") "}",
    "{\"op\":\"signal\",\"stream\":4,\"signal\":15}",
    "{\"op\":\"resize\",\"stream\":24,\"width\":80,\"height\":25}",
    "{\"op\":\"connect\",\"host\":\"\",\"port\":80,\"timeoutMs\":1000,\"stream\":28,"
    "\"window\":100000}",
    "{\"op\":\"connect\",\"host\":\"::1\",\"port\":81,\"timeoutMs\":1,\"stream\":32}",
};
static const char *const WORDS[] = {"\"a\"", "[1]", "{\"a\":{}}", "-1", "0", "9223372036854775807",
                                    "4294967300", "null", "true", "\"\\ud83d\\ude00\"", "\"..\"",
                                    "\"../x\"", "\"\"", "[[[[[[[[[[", "\"\\u0000\"", "1e5",
                                    "65536"};
static const uint32_t STREAMS[] = {0, 1, 4, 5, 6, 8, 9, 10, 12, 13, 16, 17, 24, 28, 29, 0xffffffff};
static const uint64_t OFFSETS[] = {0, 1, 2, 100, 65535, 131072, 300000, 1ull << 32, UINT64_MAX};
#define COUNT(list) (uint32_t)(sizeof list / sizeof *list)

static struct kept {
  uint8_t *bytes;
  size_t length;
} kept[KEPT_MAX];
static size_t kept_count;
static uint8_t seen[FUZZ_EDGES];
static uint8_t current[FUZZ_INPUT_BYTES_MAX];
static size_t current_length;

static void put(const void *bytes, size_t length) {
  if (length > sizeof current - current_length) length = sizeof current - current_length;
  if (length) memcpy(current + current_length, bytes, length);
  current_length += length;
}

static void put_step(enum step kind, const uint8_t *bytes, size_t length) {
  uint8_t header[STEP_HEADER_BYTES] = {(uint8_t)kind, (uint8_t)length, (uint8_t)(length >> 8)};
  put(header, sizeof header);
  put(bytes, length);
}

static size_t copy_request(uint8_t *out, size_t size) {
  const char *text = REQUESTS[draw(COUNT(REQUESTS))];
  size_t length = strlen(text);
  memcpy(out, text, length);
  if (chance(25)) {
    /* A value in place of another. */
    const char *word = WORDS[draw(COUNT(WORDS))];
    const char *colon = strchr(text + draw((uint32_t)length), ':');
    size_t at = colon ? (size_t)(colon - text) + 1 : 1, old = strcspn(text + at, ",}");
    length = at;
    memcpy(out + length, word, strlen(word));
    length += strlen(word);
    memcpy(out + length, text + at + old, strlen(text + at + old));
    length += strlen(text + at + old);
  }
  out[length++] = 0;
  for (uint32_t i = chance(30) ? 64 + draw(400) : 0; i > 0 && length < size; i--)
    out[length++] = (uint8_t)draw(256);
  return length;
}

static void put_number(uint8_t *out, uint64_t value, int count) {
  for (int i = 0; i < count; i++) out[i] = (uint8_t)(value >> 8 * i);
}

static size_t make_frame_step(uint8_t *out) {
  static const uint8_t TYPES[] = {FRAME_DATA, FRAME_WINDOW, FRAME_END, FRAME_RESET,
                                  FRAME_EXIT_ACKNOWLEDGED};
  size_t length = FRAME_STEP_BYTES;
  out[0] = chance(95) ? TYPES[draw(COUNT(TYPES))] : (uint8_t)draw(12);
  out[1] = chance(97) ? 0 : (uint8_t)draw(4);
  put_number(out + 2, STREAMS[draw(COUNT(STREAMS))], 4);
  put_number(out + length, OFFSETS[chance(40) ? 0 : draw(COUNT(OFFSETS))], 8);
  put_number(out + length + 8, OFFSETS[draw(COUNT(OFFSETS))], 8);
  if (out[0] == FRAME_END) return length + 8;
  length += 16;
  if (out[0] == FRAME_DATA) length += 1 + draw(chance(10) ? 60000 : 200);
  return length;
}

static void put_random_step(void) {
  static uint8_t bytes[66000];
  uint32_t kind = draw(100);
  if (kind < 45) {
    put_step(STEP_REQUEST, bytes, copy_request(bytes, sizeof bytes));
  } else if (kind < 75) {
    put_step(STEP_FRAME, bytes, make_frame_step(bytes));
  } else if (kind < 90) {
    bytes[0] = (uint8_t)draw(24);
    put_step(STEP_TURNS, bytes, 1);
  } else if (kind < 95) {
    put_step(STEP_GREET, bytes, 0);
  } else {
    uint32_t length = 1 + draw(40);
    for (uint32_t i = 0; i < length; i++) bytes[i] = (uint8_t)draw(256);
    if (chance(30)) memcpy(bytes, FUZZ_MAGIC, FUZZ_MAGIC_BYTES);
    put_step(STEP_RAW, bytes, length);
  }
}

/* A session that comes as far as most of what can go wrong. */
static void put_opening(void) {
  static const uint8_t work[] = {16};
  static const int ORDER[] = {0, 5, 6, 7, 10, 12};
  put_step(STEP_GREET, NULL, 0);
  for (uint32_t i = 0; i < COUNT(ORDER); i++) {
    uint8_t bytes[512] = {0};
    const char *text = REQUESTS[ORDER[i]];
    memcpy(bytes, text, strlen(text));
    put_step(STEP_REQUEST, bytes, strlen(text) + 1 + 64);
    if (i > 2) put_step(STEP_TURNS, work, 1);
    if (chance(10)) return;
  }
}

static size_t step_length(const uint8_t *input, size_t length) {
  if (length < STEP_HEADER_BYTES) return length;
  size_t wanted = STEP_HEADER_BYTES + (size_t)(input[1] | input[2] << 8);
  return wanted < length ? wanted : length;
}

/* Where the step after a place in the middle begins. */
static size_t random_boundary(void) {
  size_t wanted = draw((uint32_t)current_length + 1), at = 0;
  while (at < wanted) at += step_length(current + at, current_length - at);
  return at;
}

static void change(void) {
  uint32_t kind = draw(5);
  size_t at = random_boundary();
  if (kind == 0 && at < current_length) {
    size_t gone = step_length(current + at, current_length - at);
    memmove(current + at, current + at + gone, current_length - at - gone);
    current_length -= gone;
  } else if (kind == 1) {
    static uint8_t rest[FUZZ_INPUT_BYTES_MAX];
    size_t length = current_length - at;
    memcpy(rest, current + at, length);
    current_length = at;
    put_random_step();
    put(rest, length);
  } else if (kind == 2 && kept_count) {
    const struct kept *other = &kept[draw((uint32_t)kept_count)];
    current_length = at;
    put(other->bytes, other->length);
  } else if (current_length) {
    for (uint32_t i = 1 + draw(3); i > 0; i--)
      current[draw((uint32_t)current_length)] =
          (uint8_t)(chance(50) ? draw(256) : '0' + draw(10));
  }
}

void fuzz_begin(uint64_t seed) {
  random_state = seed * 2862933555777941757u + 3037000493u;
  for (int i = 0; i < 8; i++) draw(1);
}

const uint8_t *fuzz_next(size_t *length) {
  current_length = 0;
  if (kept_count && chance(70)) {
    const struct kept *base = &kept[draw((uint32_t)kept_count)];
    put(base->bytes, base->length);
    for (uint32_t i = 1 + draw(CHANGES_MAX); i > 0; i--) change();
  } else {
    if (chance(90)) put_opening();
    for (uint32_t i = draw(STEPS_MAX); i > 0; i--) put_random_step();
  }
  *length = current_length;
  return current;
}

/* How often an edge was passed matters by order of magnitude. */
static uint8_t magnitude(uint8_t count) {
  uint8_t bit = 0;
  for (; count; count >>= 1) bit = bit ? (uint8_t)(bit << 1) : 1;
  return bit;
}

void fuzz_judge(void) {
  bool fresh = false;
  for (uint32_t i = 0; i < FUZZ_EDGES; i++) {
    uint8_t bit = magnitude(fuzz_edges[i]);
    if (!(bit & ~seen[i])) continue;
    seen[i] |= bit;
    fresh = true;
  }
  if (!fresh || kept_count == KEPT_MAX || !current_length) return;
  uint8_t *bytes = malloc(current_length);
  if (!bytes) return;
  memcpy(bytes, current, current_length);
  kept[kept_count++] = (struct kept){bytes, current_length};
}

size_t fuzz_edge_count(void) {
  size_t count = 0;
  for (uint32_t i = 0; i < FUZZ_EDGES; i++) count += seen[i] != 0;
  return count;
}

size_t fuzz_kept_count(void) { return kept_count; }

static void send_frame(uint8_t type, uint8_t flags, uint32_t id, const uint8_t *payload,
                       size_t length) {
  uint8_t header[FRAME_HEADER_BYTES] = {type, flags};
  put_number(header + 4, id, 4);
  put_number(header + 8, length, 4);
  fuzz_send(header, sizeof header);
  fuzz_send(payload, length);
}

void fuzz_request(uint32_t id, const char *json, const uint8_t *attachment, size_t length) {
  static uint8_t body[FRAME_PAYLOAD_BYTES_MAX];
  size_t json_length = strlen(json);
  put_number(body, json_length, 4);
  memcpy(body + 4, json, json_length);
  if (length > sizeof body - 4 - json_length) length = sizeof body - 4 - json_length;
  if (length) memcpy(body + 4 + json_length, attachment, length);
  send_frame(FRAME_REQUEST, 0, id, body, 4 + json_length + length);
}

static void play_step(uint8_t kind, const uint8_t *bytes, size_t length) {
  static char json[FRAME_PAYLOAD_BYTES_MAX - 4];
  static uint32_t request_id;
  size_t json_length;
  switch (kind % STEP_KINDS) {
    case STEP_REQUEST:
      json_length = strnlen((const char *)bytes, length);
      if (json_length >= sizeof json) return;
      memcpy(json, bytes, json_length);
      json[json_length] = 0;
      if (json_length < length) json_length++;
      fuzz_request(++request_id, json, bytes + json_length, length - json_length);
      return;
    case STEP_FRAME:
      if (length < FRAME_STEP_BYTES) return;
      send_frame(bytes[0], bytes[1],
                 (uint32_t)(bytes[2] | bytes[3] << 8 | bytes[4] << 16) | (uint32_t)bytes[5] << 24,
                 bytes + FRAME_STEP_BYTES, length - FRAME_STEP_BYTES);
      return;
    case STEP_RAW:
      fuzz_send(bytes, length);
      return;
    case STEP_GREET:
      fuzz_greet();
      return;
    default:
      fuzz_turns(length ? bytes[0] : 1);
  }
}

void fuzz_play(const uint8_t *input, size_t length) {
  while (length >= STEP_HEADER_BYTES) {
    size_t whole = step_length(input, length);
    play_step(input[0], input + STEP_HEADER_BYTES, whole - STEP_HEADER_BYTES);
    input += whole;
    length -= whole;
  }
  fuzz_turns(8);
}
