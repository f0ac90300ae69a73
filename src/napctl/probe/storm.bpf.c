// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Storm control: an XDP program that lets broadcasts, multicasts and packets to ports where nobody listens through up to a
 * rate, and drops the rest before the stack has worked on them. Everything else passes, and so does what it cannot judge.
 *
 * Each reason has a rate of its own on each CPU, so that a storm of one takes nothing from the others; what a host needs to
 * stay reachable (ARP and neighbour discovery for its own addresses, DHCP, the protocols of switches and routers) counts as
 * reasons apart. Nothing but its own CPU writes an entry: XDP runs in softirqs, or with these disabled.
 *
 * probe/storm.py mirrors the structures; napctl writes the limits and the addresses while the program runs.
 */
#include "common.bpf.h"

enum { XDP_DROP = 1, XDP_PASS };
enum { BPF_MAP_TYPE_HASH = 1, BPF_MAP_TYPE_ARRAY = 2, BPF_MAP_TYPE_PERCPU_ARRAY = 6 };
#define BPF_F_NO_PREALLOC 1
#define BPF_F_CURRENT_NETNS (-1)	/* of the device that the packet came in by */
#define SECOND_NS 1000000000ULL

/* include/uapi/linux/bpf.h */
struct xdp_md {
	__u32 data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex;
};

struct bpf_sock_tuple {
	union {
		struct {
			__be32 saddr, daddr;
			__be16 sport, dport;
		} ipv4;
		struct {
			__be32 saddr[4], daddr[4];
			__be16 sport, dport;
		} ipv6;
	};
};

#define BE16(number) ((__be16)__builtin_bswap16(number))
#define BE32(number) ((__be32)__builtin_bswap32(number))

/* include/uapi/linux/if_ether.h */
enum {
	ARP = BE16(0x0806), IPV4 = BE16(0x0800), IPV6 = BE16(0x86dd), VLAN = BE16(0x8100), QINQ = BE16(0x88a8),
	SLOW = BE16(0x8809), LLDP = BE16(0x88cc), EAPOL = BE16(0x888e), PTP = BE16(0x88f7), CFM = BE16(0x8902),
};
/* include/uapi/linux/in.h */
enum { HOPOPTS = 0, IGMP = 2, TCP = 6, UDP = 17, ICMPV6 = 58, EIGRP = 88, OSPF = 89, PIM = 103, VRRP = 112 };
enum { ROUTER_SOLICITATION = 133, ROUTER_ADVERTISEMENT, NEIGHBOUR_SOLICITATION, NEIGHBOUR_ADVERTISEMENT };

struct ethernet {
	__u8 to[6], from[6];
	__be16 type;
} __attribute__((packed));

struct vlan_tag {
	__be16 tci, type;
};

struct arp {
	__be16 hardware, protocol;
	__u8 hardware_length, protocol_length;
	__be16 operation;
	__u8 from_mac[6];
	__be32 from;
	__u8 to_mac[6];
	__be32 to;
} __attribute__((packed));

struct ipv4 {
	__u8 version_and_words, tos;
	__be16 length, id, fragment;
	__u8 ttl, protocol;
	__be16 check;
	__be32 from, to;
};

struct ipv6 {
	__be32 flow;
	__be16 length;
	__u8 protocol, hop_limit;
	__be32 from[4], to[4];
};

struct ports {
	__be16 from, to;
};

struct icmpv6 {
	__u8 type, code;
	__be16 check;
	__be32 reserved, target[4];
};

/* Why a packet may be dropped. */
enum reason { BROADCAST, MULTICAST, NO_LISTENER, NEIGHBOURS, DHCP, CONTROL, REASONS, NONE = REASONS };

struct limits {
	__u32 reasons;	/* bits: BROADCAST, MULTICAST, NO_LISTENER; 0: everything passes, nothing is counted */
	__u32 burst;
	__u64 rate;	/* packets per second, of each reason on each CPU */
};

struct tally {
	__u64 passed_packets, passed_bytes, dropped_packets, dropped_bytes;
};

struct bucket {
	__u64 tokens, filled_ns;
};

struct cpu {
	struct tally tallies[REASONS];
	struct bucket buckets[REASONS];
};

/* An IPv4 address as ::ffff:a.b.c.d. */
struct address {
	__be32 words[4];
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct limits);
} storm_limits SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu);
} storm_cpus SEC(".maps");

/*
 * The namespace's own addresses, kept by napctl. bpf_fib_lookup() does not tell them: on a host that forwards nothing it looks
 * nothing up, and elsewhere a local address is to it as good as a broadcast one. What is missing here passes.
 */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, struct address);
	__type(value, __u8);
} storm_addresses SEC(".maps");

/* The device's, set by the loader: what is sent to another one is not for this host, whatever address it bears. */
const volatile __u8 mac[8];

/* Where a packet is parsed to. */
struct place {
	void *at, *end;
	__be16 type;
	int tagged;
};

static __always_inline int is_ours(const struct address *address)
{
	return bpf_map_lookup_elem(&storm_addresses, address) != 0;
}

static __always_inline int is_our_ipv4(__be32 address)
{
	struct address mapped = {{0, 0, BE32(0xffff), address}};

	return is_ours(&mapped);
}

static __always_inline int is_our_ipv6(const __be32 *words)
{
	struct address address = {{words[0], words[1], words[2], words[3]}};

	return is_ours(&address);
}

static __always_inline int is_whole(const struct ipv4 *ip)
{
	return !(ip->fragment & BE16(0x3fff));	/* more of it follows, or came before */
}

/* Behind the IPv4 header; 0 if that makes no sense. */
static __always_inline void *behind(const struct ipv4 *ip)
{
	__u32 words = ip->version_and_words & 15;

	return words < 5 ? 0 : (void *)ip + words * 4;
}

static __always_inline int is_dhcp(const struct ports *ports)
{
	return ports->to == BE16(67) || ports->to == BE16(68) || ports->to == BE16(546) || ports->to == BE16(547);
}

static __always_inline int is_of_routers(__u8 protocol)
{
	return protocol == IGMP || protocol == EIGRP || protocol == OSPF || protocol == PIM || protocol == VRRP;
}

/* RIP, RIPng, LDP, HSRP, that for IPv6, GLBP. */
static __always_inline int is_to_routers(const struct ports *ports)
{
	return ports->to == BE16(520) || ports->to == BE16(521) || ports->to == BE16(646) || ports->to == BE16(1985) ||
	       ports->to == BE16(2029) || ports->to == BE16(3222);
}

static __always_inline enum reason of_group_port(const struct ports *ports, enum reason group)
{
	if (is_dhcp(ports))
		return DHCP;
	return is_to_routers(ports) ? CONTROL : group;
}

/*
 * 01:80:c2:00:00:00 to 2f: what no bridge hands on (STP, LACP, LLDP, 802.1X), registrations (GARP), and IS-IS.
 * 01:00:0c:cc:cc:c0 to cf: the same of Cisco (CDP, VTP, PVST+).
 */
static __always_inline int is_of_switches(const __u8 *to)
{
	if (to[0] == 0x01 && to[1] == 0x80 && to[2] == 0xc2)
		return !to[3] && !to[4] && to[5] < 0x30;
	return to[0] == 0x01 && !to[1] && to[2] == 0x0c && to[3] == 0xcc && to[4] == 0xcc && (to[5] & 0xf0) == 0xc0;
}

static __always_inline enum reason of_group_ipv4(const struct place *place, enum reason group)
{
	const struct ipv4 *ip = place->at;
	const struct ports *ports;

	if ((void *)(ip + 1) > place->end)
		return group;
	if (is_of_routers(ip->protocol))
		return CONTROL;
	ports = behind(ip);
	if (ip->protocol != UDP || !is_whole(ip) || !ports || (void *)(ports + 1) > place->end)
		return group;
	return of_group_port(ports, group);
}

static __always_inline enum reason of_group_ipv6(const struct place *place, enum reason group)
{
	const struct ipv6 *ip = place->at;
	const struct icmpv6 *icmp;
	const struct ports *ports;

	if ((void *)(ip + 1) > place->end)
		return group;
	/* Hop-by-hop options come first with MLD's router alert. */
	if (ip->protocol == HOPOPTS || is_of_routers(ip->protocol))
		return CONTROL;
	ports = (void *)(ip + 1);
	if (ip->protocol == UDP && (void *)(ports + 1) <= place->end)
		return of_group_port(ports, group);
	icmp = (void *)(ip + 1);
	if (ip->protocol != ICMPV6 || (void *)(icmp + 1) > place->end)
		return group;
	if (icmp->type == NEIGHBOUR_SOLICITATION)
		return is_our_ipv6(icmp->target) ? NEIGHBOURS : group;
	if (icmp->type == ROUTER_ADVERTISEMENT || icmp->type == ROUTER_SOLICITATION || icmp->type == NEIGHBOUR_ADVERTISEMENT)
		return CONTROL;
	return group;
}

/* What is sent to a group: the reason by which it is limited. */
static __always_inline enum reason of_group(const struct ethernet *head, const struct place *place, enum reason group)
{
	const struct arp *arp = place->at;

	if (is_of_switches(head->to))
		return CONTROL;
	switch (place->type) {
	case ARP:
		if ((void *)(arp + 1) > place->end)
			return group;
		if (is_our_ipv4(arp->to))
			return NEIGHBOURS;
		return arp->from == arp->to ? CONTROL : group;	/* an address has moved, as after a failover */
	case IPV4:
		return of_group_ipv4(place, group);
	case IPV6:
		return of_group_ipv6(place, group);
	case SLOW:
	case LLDP:
	case EAPOL:
	case PTP:
	case CFM:
		return CONTROL;
	}
	return group;
}

/* Of a listener, a connection or a bound socket; also of one that a BPF program of kind sk_lookup would choose. */
static __always_inline int has_socket(struct xdp_md *ctx, __u8 protocol, struct bpf_sock_tuple *tuple, __u32 size)
{
	struct bpf_sock *sock;

	if (protocol == UDP)
		sock = bpf_sk_lookup_udp(ctx, tuple, size, BPF_F_CURRENT_NETNS, 0);
	else
		sock = bpf_skc_lookup_tcp(ctx, tuple, size, BPF_F_CURRENT_NETNS, 0);
	if (!sock)
		return 0;
	bpf_sk_release(sock);
	return 1;
}

static __always_inline enum reason to_ipv4_port(struct xdp_md *ctx, const struct place *place)
{
	const struct ipv4 *ip = place->at;
	struct bpf_sock_tuple tuple = {};
	const struct ports *ports;

	if ((void *)(ip + 1) > place->end || !is_whole(ip) || (ip->protocol != TCP && ip->protocol != UDP))
		return NONE;
	ports = behind(ip);
	if (!ports || (void *)(ports + 1) > place->end || (ip->protocol == UDP && is_dhcp(ports)) || !is_our_ipv4(ip->to))
		return NONE;
	tuple.ipv4.saddr = ip->from;
	tuple.ipv4.daddr = ip->to;
	tuple.ipv4.sport = ports->from;
	tuple.ipv4.dport = ports->to;
	return has_socket(ctx, ip->protocol, &tuple, sizeof(tuple.ipv4)) ? NONE : NO_LISTENER;
}

/* Without extension headers: a fragment has one. */
static __always_inline enum reason to_ipv6_port(struct xdp_md *ctx, const struct place *place)
{
	const struct ipv6 *ip = place->at;
	struct bpf_sock_tuple tuple = {};
	const struct ports *ports;

	if ((void *)(ip + 1) > place->end || (ip->protocol != TCP && ip->protocol != UDP))
		return NONE;
	ports = (void *)(ip + 1);
	if ((void *)(ports + 1) > place->end || (ip->protocol == UDP && is_dhcp(ports)) || !is_our_ipv6(ip->to))
		return NONE;
	__builtin_memcpy(tuple.ipv6.saddr, ip->from, sizeof(ip->from));
	__builtin_memcpy(tuple.ipv6.daddr, ip->to, sizeof(ip->to));
	tuple.ipv6.sport = ports->from;
	tuple.ipv6.dport = ports->to;
	return has_socket(ctx, ip->protocol, &tuple, sizeof(tuple.ipv6)) ? NONE : NO_LISTENER;
}

static __always_inline int is_to_this_device(const struct ethernet *head)
{
	return head->to[0] == mac[0] && head->to[1] == mac[1] && head->to[2] == mac[2] && head->to[3] == mac[3] &&
		head->to[4] == mac[4] && head->to[5] == mac[5];
}

/* Up to two VLAN tags, as switches make them. */
static __always_inline void skip_tags(struct place *place)
{
	struct vlan_tag *tag;

#pragma unroll
	for (int depth = 0; depth < 2; depth++) {
		tag = place->at;
		if ((place->type != VLAN && place->type != QINQ) || (void *)(tag + 1) > place->end)
			return;
		place->tagged = 1;
		place->type = tag->type;
		place->at = tag + 1;
	}
}

/* The reason by which a packet is limited; NONE: it passes. */
static __always_inline enum reason reason_of(struct xdp_md *ctx, __u32 reasons)
{
	struct place place = {.end = (void *)(long)ctx->data_end};
	const struct ethernet *head = (void *)(long)ctx->data;
	enum reason group;

	if ((void *)(head + 1) > place.end)
		return NONE;
	place.at = (void *)(head + 1);
	place.type = head->type;
	skip_tags(&place);
	if (head->to[0] & 1) {
		group = (head->to[0] & head->to[1] & head->to[2] & head->to[3] & head->to[4] & head->to[5]) == 0xff ? BROADCAST
			: MULTICAST;
		return reasons & 1 << group ? of_group(head, &place, group) : NONE;
	}
	/* A tagged packet is a VLAN device's, to which sockets may be bound. */
	if (!(reasons & 1 << NO_LISTENER) || place.tagged || !is_to_this_device(head))
		return NONE;
	return place.type == IPV4 ? to_ipv4_port(ctx, &place) : place.type == IPV6 ? to_ipv6_port(ctx, &place) : NONE;
}

/* The clock is read only when the bucket is empty, and then the cheap one, which goes on with each tick. */
static __always_inline int within_rate(const struct limits *limits, struct bucket *bucket)
{
	__u64 now, elapsed_ns, earned;

	if (bucket->tokens) {
		if (bucket->tokens > limits->burst)	/* of another rate, before */
			bucket->tokens = limits->burst;
		bucket->tokens--;
		return 1;
	}
	now = bpf_ktime_get_coarse_ns();
	if (now - bucket->filled_ns > SECOND_NS)
		bucket->filled_ns = now - SECOND_NS;
	elapsed_ns = now - bucket->filled_ns;
	if (elapsed_ns * limits->rate < SECOND_NS)
		return 0;
	earned = elapsed_ns * limits->rate / SECOND_NS;
	bucket->filled_ns += earned * SECOND_NS / limits->rate;	/* the rest of a token is not lost */
	bucket->tokens = (earned < limits->burst ? earned : limits->burst) - 1;
	return 1;
}

SEC("xdp.frags")
int storm_control(struct xdp_md *ctx)
{
	__u32 zero = 0;
	struct limits *limits = bpf_map_lookup_elem(&storm_limits, &zero);
	struct cpu *cpu = bpf_map_lookup_elem(&storm_cpus, &zero);
	struct tally *tally;
	enum reason reason;

	if (!limits || !cpu || !limits->reasons)
		return XDP_PASS;
	reason = reason_of(ctx, limits->reasons);
	if (reason >= REASONS)
		return XDP_PASS;
	tally = &cpu->tallies[reason];
	if (within_rate(limits, &cpu->buckets[reason])) {
		tally->passed_packets++;
		tally->passed_bytes += bpf_xdp_get_buff_len(ctx);
		return XDP_PASS;
	}
	tally->dropped_packets++;
	tally->dropped_bytes += bpf_xdp_get_buff_len(ctx);
	return XDP_DROP;
}
