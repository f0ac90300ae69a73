// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Counts the polls of every NAPI instance by packets found and by who polled, and the time CPUs spend in interrupts.
 *
 * All counters are one global variable: the kernel maps it into napctl, which reads it without a system call
 * (napi.py mirrors struct counters). Compiled by scripts/build-bpf; users get the object, relocated by libbpf.
 */
#include "common.bpf.h"

#define SLOTS 1024	/* NAPI instances; a power of two */
#define POLLERS 1024	/* pairs of NAPI instance and busy-polling process; a power of two */
#define HASH_SHIFT 22	/* 32 bits less the 10 of SLOTS and POLLERS */
#define PROBES 8	/* neighbouring entries tried before giving up: bounds both time and the verifier's work */
#define TOP 64		/* NAPI_POLL_WEIGHT of include/linux/netdevice.h */
#define NAME 16		/* IFNAMSIZ of include/uapi/linux/if.h, TASK_COMM_LEN of include/linux/sched.h */

struct net_device {
	int ifindex;
	possible_net_t nd_net;
	char name[NAME];
} RELOCATED;

struct task_struct {
	int tgid;
	struct task_struct *group_leader;
	char comm[NAME];
} RELOCATED;

struct napi_struct {
	struct net_device *dev;
	struct task_struct *thread;
	__u32 napi_id;
} RELOCATED;

enum who { SOFTIRQ, THREAD, BUSY_POLL, NETPOLL, WHO };

struct histogram {
	__u64 counts[TOP + 2];
	__u64 packets_above;
};

/*
 * What one NAPI instance is recognised by. Addresses are reused after free; napi_id is not (napi_hash_add() in net/core/dev.c
 * counts up). An instance that only transmits has no id: then the namespace's cookie, never reused either, and the ifindex
 * within it tell. They are not read otherwise, as that costs.
 */
struct identity {
	__u64 napi;
	__u64 dev;
	__u64 net;		/* of an instance with an id its address, which changes when the device is moved; else its cookie */
	__u32 napi_id;
	__u32 index;		/* of an instance with an id 0, else its device's ifindex */
};

/* What a slot says of its instance, as the slow way carries it. */
struct newcomer {
	struct identity id;
	__u32 ifindex;
	__u32 netns;
	char name[NAME];
};

/*
 * An instance's identity lies beside its counts and on cache lines of its own: an event that finds the caches cold misses once
 * or twice, as the processor fetches pairs of lines.
 */
struct slot {
	struct identity id;
	__u32 ifindex;
	__u32 netns;
	char name[NAME];
	struct histogram polls[WHO];
} __attribute__((aligned(128)));

struct cpu {
	__u64 interrupts;
	__u64 interrupt_ns;
	__u64 net_rx_softirqs;
	__u64 net_rx_softirq_ns;
	__u64 interrupt_since;
	__u64 interrupt_depth;
	__u64 net_rx_since;
	__u64 net_rx_task;	/* the task on whose stack this CPU runs a NET_RX softirq; 0 outside of one */
};

struct poller {
	__u64 empty;
	__u64 fruitful;
	__u64 packets;
	char name[NAME];
} __attribute__((aligned(64)));

struct counters {
	struct cpu cpus[CPUS];
	struct slot slots[SLOTS];
	struct poller pollers[POLLERS];
	__u64 poller_keys[POLLERS];	/* tgid << 32 | slot << 1 | 1; 0: free */
	__u32 published[SLOTS];		/* 1, 2, 3 … in the order in which slots became valid; 0: not valid */
	__u32 publications;
	__u64 lost_polls;		/* of instances that found no slot */
	__u64 lost_pollers;		/* busy polls by processes that found no entry in `pollers` */
} counters __attribute__((aligned(64)));

/* NET_RX_SOFTIRQ stands in an anonymous enum, which CO-RE cannot relocate: the loader reads its value from the kernel's BTF. */
const volatile __u32 net_rx_softirq = 3;

/*
 * Per-CPU counters. Exits are attached before entries (in the order of this file), so that an entry seen has its exit seen;
 * an exit whose entry went unseen is ignored. Nothing else writes a CPU's fields, so nothing here is atomic.
 */
static __always_inline struct cpu *this_cpu(void)
{
	return &counters.cpus[bpf_get_smp_processor_id() & (CPUS - 1)];
}

SEC("tp_btf/irq_handler_exit")
int on_interrupt_exit(void *ctx)
{
	struct cpu *cpu = this_cpu();

	if (cpu->interrupt_depth && !--cpu->interrupt_depth)
		cpu->interrupt_ns += bpf_ktime_get_ns() - cpu->interrupt_since;
	return 0;
}

SEC("tp_btf/irq_handler_entry")
int on_interrupt_entry(void *ctx)
{
	struct cpu *cpu = this_cpu();

	cpu->interrupts++;
	/* The handler of an interrupt multiplexer (GPIO, PMIC) runs the handlers behind it within itself: time the outermost. */
	if (!cpu->interrupt_depth++)
		cpu->interrupt_since = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/softirq_exit")
int BPF_PROG(on_softirq_exit, unsigned int vector)
{
	struct cpu *cpu = this_cpu();

	if (vector != net_rx_softirq || !cpu->net_rx_task)
		return 0;
	cpu->net_rx_softirq_ns += bpf_ktime_get_ns() - cpu->net_rx_since;
	cpu->net_rx_task = 0;
	return 0;
}

SEC("tp_btf/softirq_entry")
int BPF_PROG(on_softirq_entry, unsigned int vector)
{
	struct cpu *cpu = this_cpu();

	if (vector != net_rx_softirq)
		return 0;
	cpu->net_rx_softirqs++;
	cpu->net_rx_since = bpf_ktime_get_ns();
	cpu->net_rx_task = (__u64)bpf_get_current_task_btf();
	return 0;
}

/*
 * NAPI instances. The tracepoint fires after napi_complete_done(), when another CPU may already be polling the same
 * instance: hence atomic additions (without using the result, which makes them one locked instruction) and claims.
 */
static __always_inline void add(__u64 *counter, __u64 value)
{
	__sync_fetch_and_add(counter, value);
}

static __always_inline int same(const struct identity *a, const struct identity *b)
{
	return a->napi == b->napi && a->dev == b->dev && a->net == b->net && a->napi_id == b->napi_id &&
	       a->index == b->index;
}

static __always_inline struct identity identity_of(struct napi_struct *napi)
{
	struct identity id = { .napi = (__u64)napi, .napi_id = napi->napi_id };
	struct net_device *dev = napi->dev;
	struct net *net;

	if (!dev)
		return id;
	net = dev->nd_net.net;
	id.dev = (__u64)dev;
	if (id.napi_id) {
		id.net = (__u64)net;
	} else {
		id.net = net->net_cookie;
		id.index = dev->ifindex;
	}
	return id;
}

static __always_inline __u32 hash(__u32 key)
{
	return key * 0x9e3779b1u >> HASH_SHIFT;	/* Fibonacci hashing */
}

/*
 * The first slot to try; with the napi_id, so that instances which follow each other at one address do not crowd.
 * A copy of its lower half is the one operation by which the verifier lets a pointer become a number.
 */
static __always_inline __u32 home_of(struct napi_struct *napi)
{
	__u32 lower = (__u32)(__u64)napi;

	asm volatile("" : "+w"(lower));	/* without it clang calculates with the pointer and truncates later */
	return hash(lower ^ napi->napi_id);
}

/*
 * The slow way: look further than the first slot, and claim one for an instance that has none yet. Returns SLOTS if there is
 * none. A global function, which the verifier checks once and on its own: inlined, its loops take it ten times as long.
 */
__attribute__((noinline)) __u32 find_or_claim(__u32 home, const struct newcomer *new)
{
	if (!new)
		return SLOTS;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < PROBES; i++) {
		__u32 n = (home + i) & (SLOTS - 1);
		struct slot *slot = &counters.slots[n];
		__u64 owner = __sync_val_compare_and_swap(&slot->id.napi, 0, new->id.napi);

		if (!owner) {
			slot->id = new->id;
			slot->ifindex = new->ifindex;
			slot->netns = new->netns;
			__builtin_memcpy(slot->name, new->name, NAME);
			/* Operations that use the old value are full barriers: whoever sees `published` sees the rest. */
			__sync_lock_test_and_set(&counters.published[n],
						 1 + __sync_fetch_and_add(&counters.publications, 1));
			return n;
		}
		if (owner != new->id.napi)
			continue;
		/* Same pointer: another CPU is filling the slot just now (lose this poll), or has filled it meanwhile … */
		if (!__sync_fetch_and_add(&counters.published[n], 0))
			break;
		if (same(&slot->id, &new->id))
			return n;
		/* … or it belongs to an instance that was freed. */
	}
	return SLOTS;
}

static __always_inline __u32 find(struct napi_struct *napi)
{
	struct newcomer new = { .id = identity_of(napi) };
	__u32 home = home_of(napi);
	struct net_device *dev = napi->dev;

	if (same(&counters.slots[home & (SLOTS - 1)].id, &new.id))
		return home & (SLOTS - 1);
	if (dev) {
		new.ifindex = dev->ifindex;
		new.netns = dev->nd_net.net->ns.inum;
		bpf_probe_read_kernel(new.name, NAME, dev->name);
	}
	return find_or_claim(home, &new);
}

/*
 * Who called the poll function. trace_napi_poll() is called by __napi_poll(), for a NAPI thread or for net_rx_action(); by
 * netpoll's poll_one_napi(), always with budget 0; and by __napi_busy_loop() and its busy_poll_stop().
 *
 * The bit NAPI_STATE_IN_BUSY_POLL does not tell a softirq from a busy poller: busy_poll_stop() clears it before its last poll,
 * and once a softirq has completed its poll a busy poller on another CPU may set it before the softirq comes to this tracepoint
 * (measured: 2.7 % of the softirqs' polls beside a spinning poller). Where the CPU is does tell: busy polling runs with softirqs
 * disabled. The task is compared because with PREEMPT_RT a task may run amid another task's softirq.
 */
static __always_inline enum who who_polls(struct napi_struct *napi, int budget, struct task_struct *task)
{
	if (napi->thread == task)
		return THREAD;
	if (!budget)
		return NETPOLL;
	return this_cpu()->net_rx_task == (__u64)task ? SOFTIRQ : BUSY_POLL;
}

/*
 * When no entry is free the poll is missing here only: the instance's own histogram has it; that is counted. Global for the
 * verifier's sake.
 */
__attribute__((noinline)) int count_poller(__u32 slot, __u64 packets)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 tgid = task->tgid;
	__u64 key = (__u64)tgid << 32 | slot << 1 | 1;
	__u32 home = hash(tgid ^ slot << 22);

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < PROBES; i++) {
		__u32 n = (home + i) & (POLLERS - 1);
		struct poller *poller = &counters.pollers[n];
		__u64 owner = counters.poller_keys[n];

		if (!owner) {
			owner = __sync_val_compare_and_swap(&counters.poller_keys[n], 0, key);
			if (!owner) {
				bpf_probe_read_kernel(poller->name, NAME, task->group_leader->comm);
				owner = key;
			}
		}
		if (owner != key)
			continue;
		if (!packets) {
			add(&poller->empty, 1);	/* all that a spinning poller costs */
			return 1;
		}
		add(&poller->fruitful, 1);
		add(&poller->packets, packets);
		return 1;
	}
	add(&counters.lost_pollers, 1);
	return 0;
}

/* Last in the file, hence attached last: when it starts to count, the softirqs then running have been seen to begin. */
SEC("tp_btf/napi_poll")
int BPF_PROG(on_napi_poll, struct napi_struct *napi, int work, int budget)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u32 slot = find(napi);
	__u64 packets = (__u32)work;

	if (slot >= SLOTS) {
		add(&counters.lost_polls, 1);
		return 0;
	}

	enum who who = who_polls(napi, budget, task);
	struct histogram *histogram = &counters.slots[slot].polls[who];

	barrier_var(packets);	/* without it clang checks one copy and indexes with another, which the verifier refuses */
	if (packets > TOP) {
		add(&histogram->packets_above, packets);
		add(&histogram->counts[TOP + 1], 1);
	} else {
		add(&histogram->counts[packets], 1);
	}
	if (who == BUSY_POLL)
		count_poller(slot, packets);
	return 0;
}
