/* Inputs of the fuzzer: how they are made, kept and played. */
#ifndef HYPERSTART_FUZZ_H
#define HYPERSTART_FUZZ_H

#include <stddef.h>
#include <stdint.h>

#define FUZZ_INPUT_BYTES_MAX (1u << 18)
#define FUZZ_EDGES 65536u
#define FUZZ_MAGIC "\xffhyperstart/open"
#define FUZZ_MAGIC_BYTES 16
/* Magic and nonce. */
#define GREETING_BYTES 32
/* Requests of the sound session; inputs use other numbers. */
#define FUZZ_HELLO_ID 0xfffffffeu
#define FUZZ_LAST_ID 0xffffffffu

/* Edges that the last input has passed. */
extern uint8_t *fuzz_edges;

void fuzz_begin(uint64_t seed);
/* The next input: a new one, or one that was kept, changed. */
const uint8_t *fuzz_next(size_t *length);
/* Keeps the last input if it came where none was before. */
void fuzz_judge(void);
size_t fuzz_edge_count(void);
size_t fuzz_kept_count(void);

/* Plays the steps of an input through the functions below. */
void fuzz_play(const uint8_t *input, size_t length);
void fuzz_request(uint32_t id, const char *json, const uint8_t *attachment, size_t length);

void fuzz_send(const uint8_t *bytes, size_t length);
void fuzz_greet(void);
/* Lets the guest work. */
void fuzz_turns(int count);

#endif
