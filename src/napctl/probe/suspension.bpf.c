// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Counts, for each NAPI instance, how often its interrupts were suspended and resumed, how often the suspend timer had to resume
 * them, and how long packets may have waited for their poll.
 *
 * No tracepoint tells of suspension. It is inferred from the instance's one timer, which serves deferral and suspension:
 *
 *   - epoll_wait returns events: napi_suspend_irqs() starts it with irq_suspend_timeout;
 *   - a poll ends: napi_complete_done() starts it with gro_flush_timeout, as does busy_poll_stop() before its last poll,
 *     or after one that left packets (from commit 58e2330bd455, Linux 7.1, on);
 *   - a busy poll finds nothing: napi_resume_irqs() schedules the instance, a softirq or the NAPI thread polls it;
 *   - nobody comes back: the timer fires, napi_watchdog() schedules the instance, a softirq or the NAPI thread polls it.
 *
 * (net/core/dev.c and fs/eventpoll.c since commit 5dc51ec86df6, Linux 6.13.) So: an instance is suspended from a start with
 * irq_suspend_timeout to the first poll that is not the application's own.
 *
 * Counters are one global variable, mapped into napctl (suspension.py mirrors struct counters). Compiled by scripts/build-bpf.
 */
#include "common.bpf.h"
#include <bpf/bpf_core_read.h>

#define SLOTS 1024	/* NAPI instances; a power of two */
#define HASH_SHIFT 22	/* 32 bits less the 10 of SLOTS */
#define PROBES 8	/* neighbouring entries tried before giving up */
#define MOVED 1		/* instead of an address: its device is in another namespace now, where it has another slot */

/*
 * Buckets of waits, mirrored by model/suspension_counts.py: 0 for packets whose interrupt was enabled, 1 for less than 2^10 ns, then
 * 4 for each power of two up to 2^26 ns (67 ms), of equal width within it, and the last for all above.
 */
#define FIRST_POWER 10
#define LAST_POWER 26
#define BUCKETS (2 + 4 * (LAST_POWER - FIRST_POWER) + 1)

struct net_device {
	possible_net_t nd_net;
} RELOCATED;

struct task_struct {
	int tgid;
	unsigned int __state;
	int on_cpu;
} RELOCATED;

/* Started with a range of 0, so that _softexpires is the expiry; unlike `node` it has kept its place through the kernels. */
struct hrtimer {
	long long _softexpires;
	void *function;
} RELOCATED;

struct napi_struct {
	struct net_device *dev;
	struct hrtimer timer;
	struct task_struct *thread;
	unsigned long gro_flush_timeout;
	unsigned long irq_suspend_timeout;
	__u32 defer_hard_irqs;
	__u32 napi_id;
} RELOCATED;

enum timer { IDLE, DEFERRAL, SUSPENSION };
enum expiry { NONE, LATE, WITHOUT_CPU };

struct slot {
	/* Addresses are reused after free, napi_id is not: both, and the namespace's, for the device may be moved. */
	__u64 napi;
	__u64 net;
	__u32 napi_id;
	__u32 netns;

	/* State. Events of one instance rarely run at once, but an epoll_wait and a NAPI thread may: hence the exchanges. */
	__u64 suspended_since;	/* ns of CLOCK_MONOTONIC; 0: not suspended */
	__u64 armed_until;	/* when the timer was last to fire, ns of CLOCK_MONOTONIC */
	__u64 polled_at;	/* end of the last poll, ns; 0: none was seen */
	__u32 timer;		/* enum timer: what it runs for */
	__u32 masked;		/* the last poll left the interrupt masked */
	__u32 expired;		/* enum expiry: of a timer that suspension has started, while nobody has polled since */
	__u32 completed;	/* the poll that is about to end is not the application's and has started the timer */
	__u64 armed_by;		/* the task whose epoll_wait has started it for suspension */

	__u64 arms;
	__u64 suspensions;
	__u64 resumes;
	__u64 timeouts;
	__u64 without_cpu;
	__u64 suspended_ns;
	__u64 waits[BUCKETS];
} __attribute__((aligned(128)));

struct cpu {
	__u64 net_rx_task;	/* the task on whose stack this CPU runs a NET_RX softirq; 0 outside of one */
} __attribute__((aligned(64)));

struct counters {
	struct cpu cpus[CPUS];
	struct slot slots[SLOTS];
	__u32 published[SLOTS];	/* 1, 2, 3 … in the order in which slots became valid; 0: not valid */
	__u32 publications;
	__u32 padding;
	__u64 watchdog;		/* address of napi_watchdog(), learned from the first instance polled */
	__u64 lost_polls;
} counters __attribute__((aligned(128)));

/* As in napi.bpf.c: CO-RE cannot relocate an anonymous enum, the loader reads it from the kernel's BTF. */
const volatile __u32 net_rx_softirq = 3;

/* Exits before entries, as in napi.bpf.c: an exit whose entry went unseen is harmless. */
static __always_inline struct cpu *this_cpu(void)
{
	return &counters.cpus[bpf_get_smp_processor_id() & (CPUS - 1)];
}

SEC("tp_btf/softirq_exit")
int BPF_PROG(on_softirq_exit, unsigned int vector)
{
	if (vector == net_rx_softirq)
		this_cpu()->net_rx_task = 0;
	return 0;
}

SEC("tp_btf/softirq_entry")
int BPF_PROG(on_softirq_entry, unsigned int vector)
{
	if (vector == net_rx_softirq)
		this_cpu()->net_rx_task = (__u64)bpf_get_current_task_btf();
	return 0;
}

static __always_inline void add(__u64 *counter, __u64 value)
{
	__sync_fetch_and_add(counter, value);
}

/* As the slow ways carry it: in memory, where the verifier takes a pointer for a number. */
struct identity {
	__u64 napi;
	__u64 net;
	__u32 napi_id;
	__u32 netns;
};

/* A copy of the lower half is the one operation by which the verifier lets a pointer become a number (napi.bpf.c). */
static __always_inline __u32 home_of(struct napi_struct *napi, __u32 napi_id)
{
	__u32 lower;

	asm volatile("%0 = %1" : "=w"(lower) : "w"((__u32)(__u64)napi));
	return (lower ^ napi_id) * 0x9e3779b1u >> HASH_SHIFT;
}

/* Look further than the first slot; SLOTS if there is none. Global functions: the verifier checks each once and on its own. */
__attribute__((noinline)) __u32 find_further(__u32 home, const struct identity *id)
{
	if (!id)
		return SLOTS;

#pragma clang loop unroll(disable)
	for (__u32 i = 1; i < PROBES; i++) {
		__u32 n = (home + i) & (SLOTS - 1);
		struct slot *slot = &counters.slots[n];

		if (slot->napi == id->napi && slot->napi_id == id->napi_id)
			return n;
		if (!slot->napi)
			break;
	}
	return SLOTS;
}

/* One instance is polled by one CPU at a time, so no two claim a slot for the same. */
__attribute__((noinline)) __u32 claim(__u32 home, const struct identity *id)
{
	if (!id)
		return SLOTS;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < PROBES; i++) {
		__u32 n = (home + i) & (SLOTS - 1);
		struct slot *slot = &counters.slots[n];

		if (__sync_val_compare_and_swap(&slot->napi, 0, id->napi))
			continue;
		slot->net = id->net;
		slot->netns = id->netns;
		slot->napi_id = id->napi_id;	/* from now on it is found */
		/* Operations that use the old value are full barriers: whoever sees `published` sees the rest. */
		__sync_lock_test_and_set(&counters.published[n], 1 + __sync_fetch_and_add(&counters.publications, 1));
		return n;
	}
	return SLOTS;
}

static __always_inline __u32 find(struct napi_struct *napi, __u32 napi_id)
{
	struct identity id = { .napi = (__u64)napi, .napi_id = napi_id };
	__u32 home = home_of(napi, napi_id);
	struct slot *slot = &counters.slots[home & (SLOTS - 1)];

	if (slot->napi == id.napi && slot->napi_id == napi_id)
		return home & (SLOTS - 1);
	return slot->napi ? find_further(home, &id) : SLOTS;
}

/* Linux 6.2: lets the program look into a structure at any address, at the price of a load instead of a call. */
extern void *bpf_rdonly_cast(const void *address, __u32 btf_id) __ksym;

/* The instance that a timer belongs to: napi_watchdog() serves no other timers, so its address tells that there is one. */
static __always_inline struct napi_struct *napi_of(struct hrtimer *timer)
{
	return bpf_rdonly_cast((void *)timer - bpf_core_field_offset(struct napi_struct, timer),
			       bpf_core_type_id_kernel(struct napi_struct));
}

static __always_inline int is_of_napi(struct hrtimer *timer)
{
	return (__u64)timer->function == counters.watchdog && counters.watchdog;
}

/*
 * Whether the application itself polls: no NAPI thread and no softirq. Why it is told so: who_polls() in napi.bpf.c.
 */
static __always_inline int is_polled_by_application(struct napi_struct *napi)
{
	struct task_struct *task = bpf_get_current_task_btf();

	return (__u64)napi->thread != (__u64)task && this_cpu()->net_rx_task != (__u64)task;
}

/* The end is timed after the state has changed: a reader that saw the suspension open never told a longer time. */
static __always_inline void resume(struct slot *slot)
{
	__u64 since;

	if (!slot->suspended_since)
		return;
	since = __sync_lock_test_and_set(&slot->suspended_since, 0);
	if (!since)
		return;
	add(&slot->suspended_ns, bpf_ktime_get_ns() - since);
	if (slot->expired)
		add(&slot->timeouts, 1);
	if (slot->expired == WITHOUT_CPU)
		add(&slot->without_cpu, 1);
	add(&slot->resumes, 1);
}

/*
 * Whether a task is ready to run and does not: somebody else has its CPU, or its group has used up its share. It may have ended,
 * and its memory may be another's by now: then the answer is as good as none, and reading it does no harm.
 */
static __always_inline int waits_for_cpu(__u64 address)
{
	struct task_struct *task = bpf_rdonly_cast((void *)address, bpf_core_type_id_kernel(struct task_struct));
	__u64 on_cpu = 0; /* of 4 bytes in Linux 6.18, of one in 7.3: a plain load is of one size */

	if (!address || !bpf_core_field_exists(task->on_cpu) || task->__state) /* no on_cpu: without SMP */
		return 0;
	bpf_probe_read_kernel(&on_cpu, bpf_core_field_size(task->on_cpu),
			      (void *)address + bpf_core_field_offset(struct task_struct, on_cpu));
	return !on_cpu;
}

SEC("tp_btf/hrtimer_expire_entry")
int BPF_PROG(on_timer_expiry, struct hrtimer *timer)
{
	struct napi_struct *napi;
	__u32 n;

	if (!is_of_napi(timer))
		return 0;
	napi = napi_of(timer);
	n = find(napi, napi->napi_id);
	if (n < SLOTS) {
		struct slot *slot = &counters.slots[n];

		slot->expired = slot->timer != SUSPENSION ? NONE : waits_for_cpu(slot->armed_by) ? WITHOUT_CPU : LATE;
		slot->timer = IDLE;
	}
	return 0;
}

/*
 * Which of the two timeouts: the nearer one to what is left until expiry, as both may be changed between the start and now. Where
 * suspension's is not the longer one they cannot be told apart, and nothing is counted.
 */
SEC("tp_btf/hrtimer_start")
int BPF_PROG(on_timer_start, struct hrtimer *timer)
{
	struct napi_struct *napi;
	__u64 now, until, deferral, suspension;
	struct slot *slot;
	__u32 n;

	if (!is_of_napi(timer))
		return 0;
	napi = napi_of(timer);
	n = find(napi, napi->napi_id);
	if (n >= SLOTS)
		return 0;
	slot = &counters.slots[n];
	now = bpf_ktime_get_ns();
	until = timer->_softexpires;
	deferral = napi->gro_flush_timeout;
	suspension = napi->irq_suspend_timeout;
	slot->armed_until = until;
	if (suspension <= deferral || until <= now || 2 * (until - now) <= deferral + suspension) {
		slot->timer = DEFERRAL;
		/*
		 * The end of a poll by others: resumed from now on, and not from this poll's tracepoint on, before which an
		 * epoll_wait on another CPU may suspend again (it was woken by this poll).
		 */
		if (!is_polled_by_application(napi)) {
			slot->completed = 1;
			resume(slot);
		}
		return 0;
	}
	slot->timer = SUSPENSION;
	slot->armed_by = (__u64)bpf_get_current_task_btf();
	add(&slot->arms, 1);
	if (!slot->suspended_since && !__sync_val_compare_and_swap(&slot->suspended_since, 0, now))
		add(&slot->suspensions, 1);
	return 0;
}

static __always_inline __u32 bucket_of(__u64 ns)
{
	__u32 power = FIRST_POWER;

	if (ns < 1 << FIRST_POWER)
		return 1;
	if (ns >= 1 << LAST_POWER)
		return BUCKETS - 1;
	for (int step = 8; step; step /= 2)	/* 16 powers of two */
		if (ns >> (power + step))
			power += step;
	return 2 + 4 * (power - FIRST_POWER) + (ns >> (power - 2) & 3);
}

/*
 * Where the last poll left the interrupt masked, packets may have waited since: it left the timer running for deferral or
 * suspension, or work for the next poll. (napi_complete_done() returns false, and the driver leaves the interrupt masked, only
 * with defer_hard_irqs; without it the timer merely bounds how long GRO holds packets.) Else an interrupt came with the first.
 *
 * Last in the file, hence attached last: when it starts to count, the softirqs then running have been seen to begin.
 */
SEC("tp_btf/napi_poll")
int BPF_PROG(on_napi_poll, struct napi_struct *napi, int work, int budget)
{
	struct net_device *dev = napi->dev;
	__u32 napi_id = napi->napi_id;
	struct slot *slot;
	__u64 now, net;
	__u32 n;

	/* Instances without an id can be neither suspended nor busy polled; netpoll, with a budget of 0, takes no packets. */
	if (!napi_id || !dev || !budget)
		return 0;
	if (!counters.watchdog)
		counters.watchdog = (__u64)napi->timer.function;
	net = (__u64)dev->nd_net.net;
	n = find(napi, napi_id);
	if (n < SLOTS && counters.slots[n].net != net) {
		counters.slots[n].napi = MOVED;
		n = SLOTS;
	}
	if (n >= SLOTS) {
		struct identity id = { (__u64)napi, net, napi_id, dev->nd_net.net->ns.inum };

		n = claim(home_of(napi, napi_id), &id);
		if (n >= SLOTS) {
			add(&counters.lost_polls, 1);
			return 0;
		}
	}
	slot = &counters.slots[n];
	now = bpf_ktime_get_ns();

	if (slot->suspended_since && !slot->completed && !is_polled_by_application(napi))
		resume(slot);
	slot->completed = 0;
	slot->expired = 0;

	/* Of the first poll seen it is not known how long its packets waited. */
	if (work > 0 && slot->polled_at) {
		__u32 bucket = slot->masked ? bucket_of(now - slot->polled_at) : 0;

		if (bucket < BUCKETS)
			add(&slot->waits[bucket], work);
	}
	slot->masked = work >= budget || (slot->timer != IDLE && napi->defer_hard_irqs);
	slot->polled_at = now;
	return 0;
}
