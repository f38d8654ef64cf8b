/* Interfaces, addresses and routes, set by rtnetlink. */
#ifndef HYPERSTART_NETWORK_H
#define HYPERSTART_NETWORK_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct network {
  const char *mac;
  /* With prefix length; IPv4 or IPv6. */
  const char *address;
  /* May be empty: no default route. */
  const char *gateway;
  uint32_t mtu;
};

bool network_loopback_up(char *error, size_t size);
/* Idempotent. False: `error` says what was wrong. The interface is found by its MAC
 * address; where none has it, the first one gets it. */
bool network_configure(const struct network *network, char *error, size_t size);
/* Takes back what was configured last. */
void network_forget(void);

#endif
