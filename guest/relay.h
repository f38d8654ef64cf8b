/* TCP connections made inside the guest, with their bytes relayed to the host. */
#ifndef HYPERSTART_RELAY_H
#define HYPERSTART_RELAY_H

#include "session.h"

/* {stream, window, port, timeoutMs, host}: host is an IP address; "" tries the loopback ones. */
void relay_connect(struct request *request);
bool relays_data(uint32_t id, uint64_t offset, const uint8_t *bytes, size_t length, bool *known);
bool relays_end(uint32_t id, uint64_t offset, bool *known);
bool relays_window(uint32_t id, uint64_t acknowledged, uint64_t limit, bool *known);
void relays_reset(uint32_t id);
void relays_session_closed(void);

#endif
