#include "json.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "limits.h"

struct reader {
  struct json_document *document;
  char *at;
  char *end;
};

static bool fail(struct reader *reader, const char *error) {
  if (!reader->document->error) reader->document->error = error;
  return false;
}

static void skip_space(struct reader *reader) {
  while (reader->at < reader->end &&
         (*reader->at == ' ' || *reader->at == '\n' || *reader->at == '\r' || *reader->at == '\t'))
    reader->at++;
}

static uint32_t new_node(struct reader *reader) {
  struct json_document *document = reader->document;
  if (document->used == document->capacity) {
    uint32_t capacity = document->capacity ? document->capacity * 2 : 64;
    if (capacity > JSON_NODES_MAX) capacity = JSON_NODES_MAX;
    if (document->used == capacity) {
      fail(reader, "too many values");
      return UINT32_MAX;
    }
    struct json *nodes = realloc(document->nodes, capacity * sizeof *nodes);
    if (!nodes) {
      fail(reader, "out of memory");
      return UINT32_MAX;
    }
    document->nodes = nodes;
    document->capacity = capacity;
  }
  memset(&document->nodes[document->used], 0, sizeof *document->nodes);
  return document->used++;
}

static int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

static bool read_hex4(struct reader *reader, uint32_t *code) {
  if (reader->end - reader->at < 4) return fail(reader, "cut off escape");
  *code = 0;
  for (int i = 0; i < 4; i++) {
    int digit = hex_digit(*reader->at++);
    if (digit < 0) return fail(reader, "bad escape");
    *code = *code << 4 | (uint32_t)digit;
  }
  return true;
}

static char *put_utf8(char *out, uint32_t code) {
  if (code < 0x80) {
    *out++ = (char)code;
  } else if (code < 0x800) {
    *out++ = (char)(0xc0 | code >> 6);
    *out++ = (char)(0x80 | (code & 0x3f));
  } else if (code < 0x10000) {
    *out++ = (char)(0xe0 | code >> 12);
    *out++ = (char)(0x80 | (code >> 6 & 0x3f));
    *out++ = (char)(0x80 | (code & 0x3f));
  } else {
    *out++ = (char)(0xf0 | code >> 18);
    *out++ = (char)(0x80 | (code >> 12 & 0x3f));
    *out++ = (char)(0x80 | (code >> 6 & 0x3f));
    *out++ = (char)(0x80 | (code & 0x3f));
  }
  return out;
}

static bool read_escape(struct reader *reader, char **out) {
  static const char from[] = "\"\\/bfnrt";
  static const char to[] = "\"\\/\b\f\n\r\t";
  if (reader->at == reader->end) return fail(reader, "cut off escape");
  char c = *reader->at++;
  if (c != 'u') {
    const char *found = memchr(from, c, sizeof from - 1);
    if (!found) return fail(reader, "bad escape");
    *(*out)++ = to[found - from];
    return true;
  }
  uint32_t code, low;
  if (!read_hex4(reader, &code)) return false;
  if (code == 0) return fail(reader, "zero character");
  if (code >= 0xdc00 && code <= 0xdfff) return fail(reader, "lone surrogate");
  if (code >= 0xd800 && code <= 0xdbff) {
    if (reader->end - reader->at < 2 || reader->at[0] != '\\' || reader->at[1] != 'u')
      return fail(reader, "lone surrogate");
    reader->at += 2;
    if (!read_hex4(reader, &low)) return false;
    if (low < 0xdc00 || low > 0xdfff) return fail(reader, "lone surrogate");
    code = 0x10000 + ((code - 0xd800) << 10 | (low - 0xdc00));
  }
  *out = put_utf8(*out, code);
  return true;
}

/* The decoded form is never longer than the written one, so decoding in place is safe. */
static bool read_string(struct reader *reader, const char **text, uint32_t *length) {
  if (reader->at == reader->end || *reader->at != '"') return fail(reader, "string expected");
  char *start = ++reader->at, *out = start;
  while (reader->at < reader->end && *reader->at != '"') {
    unsigned char c = (unsigned char)*reader->at++;
    if (c < 0x20) return fail(reader, "control character in string");
    if (c != '\\')
      *out++ = (char)c;
    else if (!read_escape(reader, &out))
      return false;
  }
  if (reader->at == reader->end) return fail(reader, "cut off string");
  reader->at++;
  *out = 0;
  *text = start;
  *length = (uint32_t)(out - start);
  return true;
}

static bool read_number(struct reader *reader, int64_t *number) {
  bool negative = *reader->at == '-';
  if (negative) reader->at++;
  char *start = reader->at;
  uint64_t value = 0;
  while (reader->at < reader->end && *reader->at >= '0' && *reader->at <= '9') {
    uint64_t digit = (uint64_t)(*reader->at++ - '0');
    if (value > (INT64_MAX - digit) / 10) return fail(reader, "number out of range");
    value = value * 10 + digit;
  }
  if (reader->at == start || (*start == '0' && reader->at != start + 1))
    return fail(reader, "bad number");
  if (reader->at < reader->end && memchr(".eE", *reader->at, 3))
    return fail(reader, "number is not an integer");
  *number = negative ? -(int64_t)value : (int64_t)value;
  return true;
}

static bool read_word(struct reader *reader, const char *word) {
  size_t length = strlen(word);
  if ((size_t)(reader->end - reader->at) < length || memcmp(reader->at, word, length))
    return fail(reader, "bad value");
  reader->at += length;
  return true;
}

static bool read_value(struct reader *reader, uint32_t index, int depth);

static bool read_members(struct reader *reader, uint32_t index, int depth, bool object) {
  char closing = object ? '}' : ']';
  uint32_t count = 0, previous = 0;
  if (depth == JSON_DEPTH_MAX) return fail(reader, "nested too deep");
  reader->at++;
  skip_space(reader);
  if (reader->at < reader->end && *reader->at == closing) {
    reader->at++;
    return true;
  }
  for (;;) {
    const char *key = NULL;
    uint32_t length, child;
    skip_space(reader);
    if (object) {
      if (!read_string(reader, &key, &length)) return false;
      skip_space(reader);
      if (reader->at == reader->end || *reader->at++ != ':') return fail(reader, "colon expected");
      skip_space(reader);
    }
    if ((child = new_node(reader)) == UINT32_MAX) return false;
    reader->document->nodes[child].key = key;
    if (previous) reader->document->nodes[previous].next = child - previous;
    previous = child;
    count++;
    if (!read_value(reader, child, depth + 1)) return false;
    skip_space(reader);
    if (reader->at == reader->end) return fail(reader, "cut off");
    char c = *reader->at++;
    if (c == closing) break;
    if (c != ',') return fail(reader, "comma expected");
  }
  reader->document->nodes[index].count = count;
  return true;
}

static bool read_value(struct reader *reader, uint32_t index, int depth) {
  if (reader->at == reader->end) return fail(reader, "cut off");
  struct json *node = &reader->document->nodes[index];
  switch (*reader->at) {
    case '{':
      node->type = JSON_OBJECT;
      return read_members(reader, index, depth, true);
    case '[':
      node->type = JSON_ARRAY;
      return read_members(reader, index, depth, false);
    case '"':
      node->type = JSON_STRING;
      return read_string(reader, &node->text, &node->count);
    case 't':
      node->type = JSON_TRUE;
      return read_word(reader, "true");
    case 'f':
      node->type = JSON_FALSE;
      return read_word(reader, "false");
    case 'n':
      node->type = JSON_NULL;
      return read_word(reader, "null");
    default:
      node->type = JSON_NUMBER;
      return read_number(reader, &node->number);
  }
}

bool json_parse(struct json_document *document, char *text, size_t length) {
  struct reader reader = {document, text, text + length};
  memset(document, 0, sizeof *document);
  skip_space(&reader);
  uint32_t root = new_node(&reader);
  bool ok = root != UINT32_MAX && read_value(&reader, root, 0);
  skip_space(&reader);
  if (ok && reader.at != reader.end) ok = fail(&reader, "trailing bytes");
  if (!ok) json_free(document);
  return ok;
}

void json_free(struct json_document *document) {
  free(document->nodes);
  document->nodes = NULL;
  document->used = document->capacity = 0;
}

/* A container's first member follows it directly: nodes are in document order. */
const struct json *json_first(const struct json *node) {
  if (!node || (node->type != JSON_ARRAY && node->type != JSON_OBJECT) || !node->count) return NULL;
  return node + 1;
}

const struct json *json_next(const struct json *node) {
  return node && node->next ? node + node->next : NULL;
}

const struct json *json_get(const struct json *object, const char *key) {
  if (!object || object->type != JSON_OBJECT) return NULL;
  for (const struct json *member = json_first(object); member; member = json_next(member))
    if (!strcmp(member->key, key)) return member;
  return NULL;
}

const char *json_text(const struct json *object, const char *key, const char *fallback) {
  const struct json *member = json_get(object, key);
  return member && member->type == JSON_STRING ? member->text : fallback;
}

int64_t json_number(const struct json *object, const char *key, int64_t fallback) {
  const struct json *member = json_get(object, key);
  return member && member->type == JSON_NUMBER ? member->number : fallback;
}

bool json_true(const struct json *object, const char *key) {
  const struct json *member = json_get(object, key);
  return member && member->type == JSON_TRUE;
}

static void put(struct json_writer *writer, const char *bytes, size_t length) {
  if (writer->overflow || length > writer->capacity - writer->length) {
    writer->overflow = true;
    return;
  }
  memcpy(writer->bytes + writer->length, bytes, length);
  writer->length += length;
}

/* A byte that is no part of well-formed UTF-8 becomes U+FFFD: the message stays JSON. */
static size_t utf8_length(const unsigned char *text, size_t left) {
  size_t length = 4;
  if (text[0] < 0x80)
    length = 1;
  else if (text[0] < 0xe0)
    length = 2;
  else if (text[0] < 0xf0)
    length = 3;
  if (length > left || (text[0] >= 0x80 && text[0] < 0xc2) || text[0] >= 0xf5) return 0;
  for (size_t i = 1; i < length; i++)
    if ((text[i] & 0xc0) != 0x80) return 0;
  if (text[0] == 0xe0 && text[1] < 0xa0) return 0;
  if (text[0] == 0xed && text[1] > 0x9f) return 0;
  if (text[0] == 0xf0 && text[1] < 0x90) return 0;
  if (text[0] == 0xf4 && text[1] > 0x8f) return 0;
  return length;
}

static void put_string(struct json_writer *writer, const char *text, size_t length) {
  put(writer, "\"", 1);
  for (size_t i = 0; i < length;) {
    unsigned char c = (unsigned char)text[i];
    char escape[8];
    if (c == '"' || c == '\\') {
      escape[0] = '\\';
      escape[1] = (char)c;
      put(writer, escape, 2);
      i++;
    } else if (c < 0x20) {
      put(writer, escape, (size_t)snprintf(escape, sizeof escape, "\\u%04x", c));
      i++;
    } else {
      size_t run = utf8_length((const unsigned char *)text + i, length - i);
      if (run)
        put(writer, text + i, run);
      else
        put(writer, "\xef\xbf\xbd", 3);
      i += run ? run : 1;
    }
  }
  put(writer, "\"", 1);
}

static void put_key(struct json_writer *writer, const char *key) {
  if (writer->comma) put(writer, ",", 1);
  writer->comma = true;
  if (!key) return;
  put_string(writer, key, strlen(key));
  put(writer, ":", 1);
}

void json_open(struct json_writer *writer, const char *key, char bracket) {
  put_key(writer, key);
  put(writer, &bracket, 1);
  writer->comma = false;
}

void json_close(struct json_writer *writer, char bracket) {
  put(writer, &bracket, 1);
  writer->comma = true;
}

void json_put_text(struct json_writer *writer, const char *key, const char *text, size_t length) {
  put_key(writer, key);
  put_string(writer, text, length);
}

void json_put_number(struct json_writer *writer, const char *key, int64_t number) {
  char digits[24];
  put_key(writer, key);
  put(writer, digits, (size_t)snprintf(digits, sizeof digits, "%lld", (long long)number));
}

void json_put_true(struct json_writer *writer, const char *key, bool value) {
  put_key(writer, key);
  put(writer, value ? "true" : "false", value ? 4 : 5);
}
