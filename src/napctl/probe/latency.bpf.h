// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What latency.bpf.c knows: the kernel's structures it looks into, and its tables of sockets, NAPI instances and processes. */
#include "common.bpf.h"
#include <bpf/bpf_core_read.h>

#define PIDS (4 << 20)		/* PID_MAX_LIMIT of include/linux/threads.h */
#define PORTS 65536
#define WAYS 4			/* places that one socket, NAPI instance or process may take */
#define SETS 1024		/* of sockets; a power of two */
#define SET_SHIFT 22		/* 32 bits less the 10 of SETS */
#define SOCKETS (WAYS * SETS)
#define RING 16			/* requests of one socket that are in flight and chosen; a power of two */
#define NAPI_SETS 256
#define NAPIS (WAYS * NAPI_SETS)
#define PROCESSES 256		/* a power of two */
#define PROCESS_PROBES 16

/* Buckets of times, mirrored by model/latency.py: 0 for less than 2^10 ns, then 8 for each power of two, the last for all above. */
#define FIRST_POWER 10
#define LAST_POWER 34
#define BUCKETS (2 + 8 * (LAST_POWER - FIRST_POWER))

#define AF_INET 2
#define AF_INET6 10
#define IPPROTO_TCP 6
#define IPPROTO_UDP 17
#define MSG_PEEK 2
#define TCP_LISTEN 10

typedef struct {
	int counter;
} RELOCATED atomic_t;

typedef struct {
	long counter;
} RELOCATED atomic64_t;

typedef struct {
	atomic_t refs;
} RELOCATED refcount_t;

struct sk_buff {
	__u32 napi_id;
} RELOCATED;

struct sk_buff_head {
	struct sk_buff *prev;
	__u32 qlen;
} RELOCATED;

struct sock_common {
	__u16 skc_family;
	__u8 skc_state;
	__u16 skc_num;
	refcount_t skc_refcnt;
	atomic64_t skc_cookie;
} RELOCATED;

struct sock {
	struct sock_common __sk_common;
	struct sk_buff_head sk_receive_queue;
	__u16 sk_protocol;
	__u32 sk_napi_id;
} RELOCATED;

struct inet_connection_sock {
	void *icsk_ulp_ops;
} RELOCATED;

struct tcp_sock {
	struct inet_connection_sock inet_conn;
	__u32 rcv_nxt;
	__u32 copied_seq;
} RELOCATED;

struct udp_sock {
	struct sk_buff_head reader_queue;
} RELOCATED;

struct hrtimer {
	__u8 state;
} RELOCATED;

/* What `state` became later. */
struct hrtimer___boolean {
	__u8 is_queued;
} RELOCATED;

/* Until Linux 6.12 all instances of a device had the same. */
struct net_device___before_6_13 {
	int napi_defer_hard_irqs;
} RELOCATED;

/* With CONFIG_SCHED_INFO. */
struct sched_info {
	unsigned long pcount;		/* times that it got one */
	unsigned long long run_delay;	/* ns that the task has been waiting for a CPU, until it last got one */
} RELOCATED;

struct task_struct {
	unsigned long nvcsw;		/* times that it went to sleep */
	struct sched_info sched_info;
} RELOCATED;

struct net_device;

struct napi_struct {
	struct net_device *dev;
	struct task_struct *thread;
	struct hrtimer timer;
	__u32 defer_hard_irqs;
	__u32 napi_id;
} RELOCATED;

struct sample {
	__u64 arrived;		/* ns of CLOCK_MONOTONIC: when it may have reached the machine; 0: not known any more */
	__u32 number;		/* see `read` of its socket */
	__u32 bound;		/* the wait for the poll at most, ns */
};

/* Nobody owns one for good: a socket with no sample in flight, or that has been closed, gives its place to another. */
struct socket {
	__u64 cookie;		/* addresses are reused, cookies are not */
	__u32 read;		/* TCP: copied_seq; UDP: datagrams read */
	__u32 arrived;		/* UDP: datagrams that came */
	__u32 head;		/* samples put into the ring, */
	__u32 tail;		/* of these that were read, */
	__u32 answered;		/* and those that have their reply */
	__u32 udp;
	__u32 slice;		/* UDP: in which `arrived` is right */
	__u32 padding[7];
	struct sample ring[RING];
} __attribute__((aligned(64)));

struct napi {
	__u32 id;		/* 0: free */
	__u32 masked;		/* the last poll left the interrupt masked */
	__u64 polled_at;	/* end of the last poll, ns; 0: none was seen */
	__u64 thread;		/* its NAPI thread, if that made the last poll, */
	__u64 run_delay;	/* how long it had waited for a CPU until then, */
	__u64 runs;		/* how often it had got one, */
	__u64 sleeps;		/* and had gone to sleep */
	__u32 slice;		/* of the last poll that was looked at */
	__u32 padding[3];
};

struct process {
	__u32 tgid;		/* 0: free */
	__u32 padding;
	__u64 until_read[BUCKETS];
	__u64 until_reply[BUCKETS];
	__u64 bound[BUCKETS];
};

struct cpu {
	__u32 countdown;	/* requests until one is chosen */
	__u32 polls;		/* that have ended, */
	__u32 delivered;	/* and had when the last request came */
} __attribute__((aligned(64)));

/* When events are looked at, in jiffies; set by napctl before the programs run. */
struct slices {
	__u32 shift;		/* one slice in each 2^shift */
	__u32 lead;		/* its first part: polls alone, as of a request the poll before it must have been seen */
	__u32 length;		/* of the rest */
};

struct latency {
	struct cpu cpus[CPUS];
	__u64 wanted[PIDS / 64];	/* a bit for each process; set by napctl at any time */
	__u64 ports[PORTS / 64];	/* a bit for each local port that a wanted process has read from */
	__u64 keys[SOCKETS];		/* addresses of sockets; 0: free */
	struct socket sockets[SOCKETS];
	struct napi napis[NAPIS];
	struct process processes[PROCESSES];
	__u64 lost_samples;		/* for want of room */
	__u64 unread_samples;		/* read by other means than recv */
	__u64 datagrams;		/* read, */
	__u64 unseen_datagrams;		/* of which nobody was told when they came */
	struct slices slices __attribute__((aligned(64)));	/* what each event reads and none writes */
	__u32 gap;			/* one request in so many is chosen, of those in a slice; set by napctl at any time */
	__u32 pending __attribute__((aligned(64)));	/* chosen ones that are not read, or not answered, yet: at least so many */
} latency __attribute__((aligned(64)));

/* Linux 6.2: lets the program look into a structure at any address, at the price of a load instead of a call. */
extern void *bpf_rdonly_cast(const void *address, __u32 btf_id) __ksym;

#define CAST(type, address) ((struct type *)bpf_rdonly_cast(address, bpf_core_type_id_kernel(struct type)))

static __always_inline void add(__u64 *counter, __u64 value)
{
	__sync_fetch_and_add(counter, value);
}

static __always_inline int is_wanted(__u32 tgid)
{
	return latency.wanted[tgid / 64 & (PIDS / 64 - 1)] >> tgid % 64 & 1;
}

static __always_inline int is_inet(struct sock *sk)
{
	__u16 family = sk->__sk_common.skc_family;

	return family == AF_INET || family == AF_INET6;
}

/* A copy of the lower half is the one operation by which the verifier lets a pointer become a number (napi.bpf.c). */
static __always_inline __u32 home_of(struct sock *sk)
{
	__u32 lower;

	asm volatile("%0 = %1" : "=w"(lower) : "w"((__u32)(__u64)sk));
	return ((lower >> 6) * 0x9e3779b1u >> SET_SHIFT) * WAYS;
}

/* The socket's place; SOCKETS if it has none. */
static __always_inline __u32 find(struct sock *sk)
{
	__u32 home = home_of(sk);
	__u64 key = (__u64)sk;

#pragma clang loop unroll(full)
	for (__u32 i = 0; i < WAYS; i++)
		if (latency.keys[(home + i) & (SOCKETS - 1)] == key) {
			__u32 n = (home + i) & (SOCKETS - 1);

			return latency.sockets[n].cookie == sk->__sk_common.skc_cookie.counter ? n : SOCKETS;
		}
	return SOCKETS;
}

struct identity {
	__u64 key;
	__u64 cookie;
	__u32 home;
	__u32 udp;
};

/* A sock is not freed before a grace period has gone, and its memory stays a sock's: to look at an old one is to see another. */
static __always_inline int is_closed(__u64 key, __u64 cookie)
{
	struct sock *sk = CAST(sock, (void *)key);

	return !sk->__sk_common.skc_refcnt.refs.counter || sk->__sk_common.skc_cookie.counter != cookie;
}

/* A place for a socket that has none. Global functions: the verifier checks each once and on its own. */
__attribute__((noinline)) __u32 claim(const struct identity *id)
{
	if (!id)
		return SOCKETS;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < WAYS; i++) {
		__u32 n = (id->home + i) & (SOCKETS - 1);
		struct socket *socket = &latency.sockets[n];
		__u64 owner = latency.keys[n];
		int idle = !socket->udp && socket->head == socket->answered;

		if (owner && owner != id->key && !idle && !is_closed(owner, socket->cookie))
			continue;
		if (__sync_val_compare_and_swap(&latency.keys[n], owner, 1) != owner)
			continue;	/* another CPU was faster */
		__sync_fetch_and_sub(&latency.pending, socket->head - socket->answered);
		socket->cookie = id->cookie;
		socket->udp = id->udp;
		socket->read = socket->arrived = socket->slice = 0;
		socket->head = socket->tail = socket->answered = 0;
		__sync_lock_test_and_set(&latency.keys[n], id->key);
		return n;
	}
	return SOCKETS;
}

static __always_inline __u32 find_or_claim(struct sock *sk, __u32 udp)
{
	__u32 n = find(sk);
	struct identity id;

	if (n < SOCKETS)
		return n;
	id = (struct identity){ (__u64)sk, bpf_get_socket_cookie(sk), home_of(sk), udp };
	return claim(&id);
}

/* A NAPI instance's place; NAPIS if it has none. Ids are given out in turn, so they seldom meet. */
static __always_inline __u32 find_napi(__u32 id)
{
#pragma clang loop unroll(full)
	for (__u32 i = 0; i < WAYS; i++) {
		__u32 n = (id * WAYS + i) & (NAPIS - 1);

		if (latency.napis[n].id == id)
			return n;
	}
	return NAPIS;
}

/* In place of the one that was not polled for longest. */
__attribute__((noinline)) int claim_napi(__u32 id)
{
	__u64 oldest = -1;
	__u32 place = 0;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < WAYS; i++) {
		__u32 n = (id * WAYS + i) & (NAPIS - 1);

		if (latency.napis[n].polled_at < oldest) {
			oldest = latency.napis[n].polled_at;
			place = n;
		}
	}
	latency.napis[place & (NAPIS - 1)].masked = 0;
	latency.napis[place & (NAPIS - 1)].polled_at = 0;
	latency.napis[place & (NAPIS - 1)].id = id;
	return 0;
}

/* Where in latency.processes; PROCESSES if there is no room. */
__attribute__((noinline)) __u32 process_of(__u32 tgid)
{
	__u32 home = tgid * 0x9e3779b1u >> 24;	/* 32 bits less the 8 of PROCESSES */

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < PROCESS_PROBES; i++) {
		__u32 n = (home + i) & (PROCESSES - 1);
		__u32 owner = latency.processes[n].tgid;

		if (!owner)
			owner = __sync_val_compare_and_swap(&latency.processes[n].tgid, 0, tgid);
		if (!owner || owner == tgid)
			return n;
	}
	return PROCESSES;
}

static __always_inline __u32 bucket_of(__u64 ns)
{
	__u32 power = FIRST_POWER;

	if (ns < 1 << FIRST_POWER)
		return 0;
	if (ns >= 1ull << LAST_POWER)
		return BUCKETS - 1;
#pragma clang loop unroll(full)
	for (int step = 16; step; step /= 2)	/* 24 powers of two */
		if (ns >> (power + step))
			power += step;
	return 1 + 8 * (power - FIRST_POWER) + (ns >> (power - 3) & 7);
}

static __always_inline void count(__u64 *histogram, __u64 ns)
{
	__u32 bucket = bucket_of(ns);

	add(&histogram[bucket < BUCKETS ? bucket : BUCKETS - 1], 1);
}

/* Of a process: its place in latency.processes. Global, as they are called in loops: the verifier goes through them once. */
__attribute__((noinline)) int count_read(__u32 place, __u64 waited, __u64 bound)
{
	if (place >= PROCESSES) {
		add(&latency.lost_samples, 1);
		return 0;
	}
	count(latency.processes[place & (PROCESSES - 1)].until_read, waited);
	count(latency.processes[place & (PROCESSES - 1)].bound, bound);
	return 0;
}

__attribute__((noinline)) int count_reply(__u32 place, __u64 waited)
{
	if (place < PROCESSES)
		count(latency.processes[place & (PROCESSES - 1)].until_reply, waited);
	return 0;
}
