// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Counts how one device hands packets to the network stack: packets, and runs of packets without a pause between them.
 *
 * For devices without NAPI instances (tun and tap, written to by a process): there is no interrupt and no poll to count, but a
 * driver that gathers packets hands them over in one loop (tun_rx_batched() in drivers/net/tun.c), one that does not with a
 * system call between each two. Counters are a global variable, mapped into napctl (deliveries.py mirrors them).
 */
#include "common.bpf.h"

struct net_device {
	int ifindex;
	possible_net_t nd_net;
} RELOCATED;

struct sk_buff {
	struct net_device *dev;
} RELOCATED;

/* Nothing but its own CPU writes an entry: the stack takes packets with softirqs disabled. */
struct cpu {
	__u64 packets;
	__u64 runs;
	__u64 depth;	/* a packet handed to a bridge is handed on from within */
	__u64 ours;	/* the outermost packet is the device's */
	__u64 idle_since;	/* end of the last packet, if that was the device's; else 0 */
	__u64 padding[3];
};

struct cpu cpus[CPUS] __attribute__((aligned(64)));

/* Set by the loader. */
const volatile __u32 ifindex;
const volatile __u32 netns;
const volatile __u64 pause_ns;

static __always_inline struct cpu *this_cpu(void)
{
	return &cpus[bpf_get_smp_processor_id() & (CPUS - 1)];
}

/* Attached before the entry, so that an entry seen has its exit seen; an exit whose entry went unseen is ignored. */
SEC("tp_btf/netif_receive_skb_exit")
int BPF_PROG(on_exit, int ret)
{
	struct cpu *cpu = this_cpu();

	if (cpu->depth && !--cpu->depth)
		cpu->idle_since = cpu->ours ? bpf_ktime_get_ns() : 0;
	return 0;
}

SEC("tp_btf/netif_receive_skb_entry")
int BPF_PROG(on_entry, struct sk_buff *skb)
{
	struct net_device *dev = skb->dev;
	struct cpu *cpu = this_cpu();
	int ours = dev && (__u32)dev->ifindex == ifindex && dev->nd_net.net->ns.inum == netns;

	if (ours) {
		cpu->packets++;
		if (cpu->depth || !cpu->idle_since || bpf_ktime_get_ns() - cpu->idle_since >= pause_ns)
			cpu->runs++;
	}
	if (!cpu->depth++)
		cpu->ours = ours;
	return 0;
}
