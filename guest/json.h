/* A strict, bounded JSON reader that works in place, and a bounded writer. */
#ifndef HYPERSTART_JSON_H
#define HYPERSTART_JSON_H

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_type {
  JSON_NULL,
  JSON_FALSE,
  JSON_TRUE,
  JSON_NUMBER,
  JSON_STRING,
  JSON_ARRAY,
  JSON_OBJECT,
};

/* Nodes lie in one array in document order. `next`: distance to the following sibling, 0: none.
   `count`: members, or bytes of a string. */
struct json {
  uint8_t type;
  uint32_t next;
  uint32_t count;
  int64_t number;
  const char *key;
  const char *text;
};

struct json_document {
  struct json *nodes;
  uint32_t used;
  uint32_t capacity;
  const char *error;
};

/*
 * Parses `length` bytes, which are overwritten by the decoded strings and must outlive the
 * document; `text[length]` must be writable. Only integers of 64 bits are numbers. False, with
 * `error` set and nothing to free, on anything that is not exactly one JSON value.
 */
bool json_parse(struct json_document *document, char *text, size_t length);
void json_free(struct json_document *document);

/* All of these accept a null node, and answer as if the value were absent. */
const struct json *json_get(const struct json *object, const char *key);
const struct json *json_first(const struct json *node);
const struct json *json_next(const struct json *node);
/* The string, or `fallback` where there is none. */
const char *json_text(const struct json *object, const char *key, const char *fallback);
int64_t json_number(const struct json *object, const char *key, int64_t fallback);
bool json_true(const struct json *object, const char *key);

struct json_writer {
  char *bytes;
  size_t length;
  size_t capacity;
  bool overflow;
  bool comma;
};

void json_open(struct json_writer *writer, const char *key, char bracket);
void json_close(struct json_writer *writer, char bracket);
void json_put_text(struct json_writer *writer, const char *key, const char *text, size_t length);
void json_put_number(struct json_writer *writer, const char *key, int64_t number);
void json_put_true(struct json_writer *writer, const char *key, bool value);

#endif
