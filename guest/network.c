#include "network.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "util.h"

struct message {
  struct nlmsghdr header;
  union {
    struct ifinfomsg link;
    struct ifaddrmsg address;
    struct rtmsg route;
  } body;
  char attributes[256];
};

struct inet {
  uint8_t family;
  uint8_t prefix;
  uint8_t length;
  uint8_t bytes[16];
};

static bool complain(char *error, size_t size, const char *what, const char *value) {
  snprintf(error, size, "network: %s \"%.100s\": %s", what, value, strerror(errno));
  return false;
}

static void add_attribute(struct message *message, uint16_t type, const void *bytes,
                          size_t length) {
  size_t at = NLMSG_ALIGN(message->header.nlmsg_len);
  struct rtattr *attribute = (struct rtattr *)((char *)message + at);
  attribute->rta_type = type;
  attribute->rta_len = (uint16_t)RTA_LENGTH(length);
  memcpy(RTA_DATA(attribute), bytes, length);
  message->header.nlmsg_len = (uint32_t)(at + RTA_LENGTH(length));
}

/* Sends one message and waits for the kernel's word on it. 0 or a negative errno. */
static int transact(struct message *message) {
  int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
  if (fd < 0) return -errno;
  message->header.nlmsg_flags |= NLM_F_REQUEST | NLM_F_ACK;
  char answer[4096];
  int result = -EIO;
  if (send(fd, message, message->header.nlmsg_len, 0) < 0) {
    result = -errno;
  } else {
    ssize_t count = recv(fd, answer, sizeof answer, 0);
    struct nlmsghdr *header = (struct nlmsghdr *)answer;
    if (count >= (ssize_t)NLMSG_LENGTH(sizeof(struct nlmsgerr)) &&
        header->nlmsg_type == NLMSG_ERROR)
      result = ((struct nlmsgerr *)NLMSG_DATA(header))->error;
  }
  close(fd);
  return result;
}

/* What was configured last: an interface and its address, for taking it back. */
static int configured_index;
static struct inet configured_address;

static int set_link(int index, bool up, uint32_t mtu) {
  struct message message = {
      .header = {.nlmsg_type = RTM_NEWLINK, .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg))},
      .body.link = {.ifi_index = index, .ifi_flags = up ? IFF_UP : 0, .ifi_change = IFF_UP}};
  if (mtu) add_attribute(&message, IFLA_MTU, &mtu, sizeof mtu);
  return transact(&message);
}

static bool parse_inet(const char *text, struct inet *inet) {
  char copy[64];
  if (!format_path(copy, sizeof copy, "%s", text)) return false;
  char *slash = strchr(copy, '/');
  if (slash) *slash = 0;
  inet->family = strchr(copy, ':') ? AF_INET6 : AF_INET;
  inet->length = inet->family == AF_INET ? 4 : 16;
  if (inet_pton(inet->family, copy, inet->bytes) != 1) return false;
  unsigned long prefix = inet->length * 8;
  if (slash) {
    char *end;
    prefix = strtoul(slash + 1, &end, 10);
    if (*end || end == slash + 1 || prefix > inet->length * 8ul) return false;
  }
  inet->prefix = (uint8_t)prefix;
  return true;
}

static int change_address(int index, const struct inet *inet, bool is_there) {
  struct message message = {
      .header = {.nlmsg_type = is_there ? RTM_NEWADDR : RTM_DELADDR,
                 .nlmsg_flags = is_there ? NLM_F_CREATE | NLM_F_REPLACE : 0,
                 .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifaddrmsg))},
      .body.address = {.ifa_family = inet->family,
                       .ifa_prefixlen = inet->prefix,
                       .ifa_flags = inet->family == AF_INET6 ? IFA_F_NODAD : 0,
                       .ifa_index = (uint32_t)index}};
  add_attribute(&message, IFA_LOCAL, inet->bytes, inet->length);
  add_attribute(&message, IFA_ADDRESS, inet->bytes, inet->length);
  return transact(&message);
}

static int add_default_route(int index, const struct inet *gateway) {
  uint32_t device = (uint32_t)index;
  struct message message = {
      .header = {.nlmsg_type = RTM_NEWROUTE,
                 .nlmsg_flags = NLM_F_CREATE | NLM_F_REPLACE,
                 .nlmsg_len = NLMSG_LENGTH(sizeof(struct rtmsg))},
      .body.route = {.rtm_family = gateway->family,
                     .rtm_table = RT_TABLE_MAIN,
                     .rtm_protocol = RTPROT_STATIC,
                     .rtm_scope = RT_SCOPE_UNIVERSE,
                     .rtm_type = RTN_UNICAST,
                     .rtm_flags = RTNH_F_ONLINK}};
  add_attribute(&message, RTA_GATEWAY, gateway->bytes, gateway->length);
  add_attribute(&message, RTA_OIF, &device, sizeof device);
  return transact(&message);
}

/* The interface with that address; NULL: the first that is no loopback. 0: there is none. */
static int find_interface(const char *mac) {
  DIR *list = opendir("/sys/class/net");
  int index = 0;
  if (!list) return 0;
  for (struct dirent *entry; !index && (entry = readdir(list));) {
    char path[300], seen[64];
    if (entry->d_name[0] == '.' || !strcmp(entry->d_name, "lo")) continue;
    if (!format_path(path, sizeof path, "/sys/class/net/%s/address", entry->d_name)) continue;
    if (read_file(path, seen, sizeof seen) < 0 || (mac && strcasecmp(seen, mac))) continue;
    index = (int)if_nametoindex(entry->d_name);
  }
  closedir(list);
  return index;
}

static int set_mac(int index, const char *mac) {
  unsigned parts[6];
  uint8_t bytes[6];
  char rest;
  if (sscanf(mac, "%2x:%2x:%2x:%2x:%2x:%2x%c", &parts[0], &parts[1], &parts[2], &parts[3],
             &parts[4], &parts[5], &rest) != 6)
    return -EINVAL;
  for (int i = 0; i < 6; i++) bytes[i] = (uint8_t)parts[i];
  struct message message = {
      .header = {.nlmsg_type = RTM_NEWLINK, .nlmsg_len = NLMSG_LENGTH(sizeof(struct ifinfomsg))},
      .body.link = {.ifi_index = index}};
  add_attribute(&message, IFLA_ADDRESS, bytes, sizeof bytes);
  return transact(&message);
}

/*
 * An interface without an IPv6 address of the pod's has none at all, as container networks have it:
 * the kernel would make one up, and look for neighbours and routers at each start.
 */
static void limit_families(int index, const struct inet *address) {
  char name[IF_NAMESIZE], path[96];
  if (!if_indextoname((unsigned)index, name)) return;
  if (format_path(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/disable_ipv6", name))
    write_file(path, address->family == AF_INET6 ? "0" : "1");
}

/* What was asked for last and is so now, as one text. */
static char present[256];

void network_forget(void) {
  *present = 0;
  if (!configured_index) return;
  change_address(configured_index, &configured_address, false);
  set_link(configured_index, false, 0);
  configured_index = 0;
}

bool network_loopback_up(char *error, size_t size) {
  static bool is_up;
  if (is_up) return true;
  errno = -set_link((int)if_nametoindex("lo"), true, 0);
  is_up = !errno;
  return is_up ? true : complain(error, size, "cannot bring up interface", "lo");
}

static bool configure(const struct network *network, char *error, size_t size) {
  struct inet address, gateway;
  errno = EINVAL;
  if (!parse_inet(network->address, &address))
    return complain(error, size, "bad address", network->address);
  bool routed = *network->gateway;
  if (routed && !parse_inet(network->gateway, &gateway))
    return complain(error, size, "bad gateway", network->gateway);
  errno = ENODEV;
  int index = find_interface(network->mac);
  if (!index) {
    /* A VM that started from a template has the address that all of them have at first. */
    index = find_interface(NULL);
    if (!index) return complain(error, size, "no interface for address", network->mac);
    if ((errno = -set_mac(index, network->mac)))
      return complain(error, size, "cannot set address of the interface", network->mac);
  }
  limit_families(index, &address);
  configured_index = index;
  configured_address = address;
  if ((errno = -set_link(index, true, network->mtu)))
    return complain(error, size, "cannot bring up interface", network->mac);
  if ((errno = -change_address(index, &address, true)))
    return complain(error, size, "cannot set address", network->address);
  if (routed && (errno = -add_default_route(index, &gateway)))
    return complain(error, size, "cannot set gateway", network->gateway);
  return true;
}

/* A VM that has rehearsed is set up with what it has: nobody but this changes it before the pod runs. */
bool network_configure(const struct network *network, char *error, size_t size) {
  char wanted[sizeof present];
  bool fits = format_path(wanted, sizeof wanted, "%s %s %s %u", network->mac, network->address,
                          network->gateway, network->mtu);
  if (fits && !strcmp(wanted, present)) return true;
  *present = 0;
  if (!configure(network, error, size)) return false;
  if (fits) strcpy(present, wanted);
  return true;
}
