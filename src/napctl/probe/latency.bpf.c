// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * How long data waits for chosen processes: from when it may have reached the machine until they have read it by recv, and until
 * they next send on that socket. Of requests chosen at random, about one in `gap`, in histograms by process.
 *
 *   sk_data_ready     data has come into a socket: a request that is chosen gets the number of its last byte (TCP), or its own
 *                     number among all datagrams of the socket (UDP), and the time
 *   sock_recv_length  a recv has returned: what it has read up to that number is done
 *   sock_send_length  the reply
 *   napi_poll         the end of a poll: had it left the interrupt masked, the data of the next one may have come since then
 *
 * All but finishing what was begun happens in slices of time, and outside of them each program leaves at once: looking costs,
 * whoever is chosen. A slice has a number; what was counted in another is not believed.
 *
 * (net/core/sock.c, net/socket.c; commits 40e0b0908142 and 6e6eda44b939, Linux 6.3.) Whose a socket is, softirqs do not know: the
 * chosen processes' recv tells the local port, and sockets with such a port are looked at.
 *
 * Everything lies in one global variable, mapped into napctl (latency.py mirrors struct latency). Compiled by scripts/build-bpf.
 */
#include "latency.bpf.h"

/*
 * The number of the slice that is now, 0 outside. Where in its period it lies changes each time (the golden ratio's multiples lie
 * evenly), so that what happens regularly is not always in it, or never.
 */
static __always_inline __u32 slice_of(int polls)
{
	const struct slices *slices = &latency.slices;
	__u32 period = 1u << (slices->shift & 31), length = slices->lead + slices->length;
	__u64 jiffies = bpf_jiffies64();
	__u32 number = jiffies >> (slices->shift & 31);
	__u32 start = (number * 0x9e3779b1u >> 16) * (period - length) >> 16;
	__u32 since = (jiffies & (period - 1)) - start;

	if (!polls && since < slices->lead)
		return 0;
	return since < length ? number | 1u << 31 : 0;
}

/* Datagrams that wait to be read. A reader moves the first of the two queues into the other when that is empty. */
static __always_inline __u32 waiting_datagrams(struct sock *sk)
{
	return sk->sk_receive_queue.qlen + CAST(udp_sock, sk)->reader_queue.qlen;
}

/* A UDP socket without a peer keeps the id of its first packet's NAPI instance alone (__udp_queue_rcv_skb): look at the last. */
static __always_inline __u32 napi_id_of(struct sock *sk, __u32 udp)
{
	struct sk_buff *last = sk->sk_receive_queue.prev;

	if (udp && sk->sk_receive_queue.qlen && last)
		return CAST(sk_buff, last)->napi_id;
	return sk->sk_napi_id;
}

/*
 * How long this NAPI thread has waited for its CPU before its poll, ns: 0 for what it finds in later polls of one run. Whom it has
 * woken often takes its CPU before it can go to sleep, so it may have waited twice since its last poll; and the scheduler keeps the
 * sum, of which the last wait counts as an equal part. If it did not sleep no packet has woken it: they came while it waited.
 */
static __always_inline __u64 thread_delay(struct napi *napi, int *woken)
{
	struct task_struct *task = bpf_get_current_task_btf();
	__u64 runs, delay;

	*woken = 1;
	if (!bpf_core_field_exists(task->sched_info.run_delay) || napi->thread != (__u64)task)
		return 0;
	*woken = task->nvcsw != napi->sleeps;
	runs = task->sched_info.pcount - napi->runs;
	delay = task->sched_info.run_delay - napi->run_delay;
	return runs > 1 ? delay / runs : delay;
}

/*
 * How long what is delivered now can have waited for its poll, ns. 0 for the first packet that is looked at of an instance; where
 * there was no poll since the slice began, which is longer ago than the timers that poll are long, so the interrupt was enabled;
 * and where nothing polls, as in loopback: the id is 0 then, or a CPU's number (they share a field of struct sk_buff).
 */
static __always_inline __u64 wait_bound(__u32 napi_id, __u32 slice, __u64 now, int *since_interrupt)
{
	__u32 n = find_napi(napi_id);
	struct napi *napi;

	if (n >= NAPIS) {
		if (napi_id)
			claim_napi(napi_id);
		return 0;
	}
	napi = &latency.napis[n & (NAPIS - 1)];
	if (napi->slice != slice)
		return 0;
	if (!napi->masked)
		return thread_delay(napi, since_interrupt);
	return napi->polled_at && now > napi->polled_at ? now - napi->polled_at : 0;
}

static __always_inline int is_chosen(int *first)
{
	struct cpu *cpu = &latency.cpus[bpf_get_smp_processor_id() & (CPUS - 1)];
	__u32 gap;

	*first = cpu->delivered != cpu->polls;
	cpu->delivered = cpu->polls;
	if (cpu->countdown > 1) {
		cpu->countdown--;
		return 0;
	}
	gap = latency.gap;
	/* A random number of them, `gap` on average: requests come in bunches, whose first is not like the others. */
	cpu->countdown = gap > 1 ? 1 + (__u32)((__u64)bpf_get_prandom_u32() * (2 * gap - 1) >> 32) : 1;
	return 1;
}

/* Of what was read: no reply may ever come. */
static __always_inline void give_up_replies(struct socket *socket)
{
	__u32 answered = socket->answered, tail = socket->tail;

	if (__sync_val_compare_and_swap(&socket->answered, answered, tail) == answered)
		__sync_fetch_and_sub(&latency.pending, tail - answered);
}

static __always_inline int sample(struct socket *socket, __u32 napi_id, __u32 number, __u32 slice, int first)
{
	__u64 now = bpf_ktime_get_ns();
	__u32 head = socket->head;
	int since_interrupt = 0;
	__u64 bound = wait_bound(napi_id, slice, now, &since_interrupt), waited;
	struct sample *place;

	if (head - socket->answered >= RING)
		give_up_replies(socket);
	if (head - socket->answered >= RING) {
		add(&latency.lost_samples, 1);
		return 0;
	}
	if (bound > 0xffffffff)
		bound = 0xffffffff;
	/* An interrupt came with the first packet of its poll: that has waited all the time. */
	waited = bpf_get_prandom_u32() * bound >> 32;
	if (since_interrupt && first)
		waited = bound;
	place = &socket->ring[head & (RING - 1)];
	place->arrived = now - waited;
	place->number = number;
	place->bound = bound;
	__sync_fetch_and_add(&latency.pending, 1);
	__sync_fetch_and_add(&socket->head, 1);	/* a full barrier: from now on it is seen */
	return 0;
}

/* The reply to all that has been read. */
SEC("tp_btf/sock_send_length")
int BPF_PROG(on_send, struct sock *sk, int result, int flags)
{
	struct socket *socket;
	__u32 tgid, n, tail;
	__u64 now;

	if (result <= 0 || !latency.pending)
		return 0;
	tgid = bpf_get_current_pid_tgid() >> 32;
	if (!is_wanted(tgid) || !is_inet(sk))
		return 0;
	n = find(sk);
	if (n >= SOCKETS)
		return 0;
	socket = &latency.sockets[n];
	tail = socket->tail;
	if (socket->answered == tail)
		return 0;
	now = bpf_ktime_get_ns();
	n = process_of(tgid);
#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < RING; i++) {
		__u32 answered = socket->answered;
		__u64 arrived = socket->ring[answered & (RING - 1)].arrived;

		if ((__s32)(tail - answered) <= 0)
			break;
		if (__sync_val_compare_and_swap(&socket->answered, answered, answered + 1) != answered)
			continue;	/* another thread sends on the same socket */
		__sync_fetch_and_sub(&latency.pending, 1);
		if (arrived)
			count_reply(n, now - arrived);
	}
	return 0;
}

/* Those of the socket's samples that this recv has read, `length` bytes or one datagram. */
static __always_inline void take(struct socket *socket, __u32 tgid, __u32 length)
{
	__u32 read = socket->read, n = PROCESSES;
	__u64 now = 0;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < RING; i++) {
		__u32 tail = socket->tail;
		struct sample *done = &socket->ring[tail & (RING - 1)];
		__u64 arrived = done->arrived, bound = done->bound;
		__u32 behind = read - done->number;

		if (tail == socket->head || (__s32)behind < 0)
			break;
		if (__sync_val_compare_and_swap(&socket->tail, tail, tail + 1) != tail)
			continue;	/* another thread reads from the same socket */
		if (behind >= length) {
			done->arrived = 0;
			add(&latency.unread_samples, 1);
			continue;
		}
		if (!now) {
			now = bpf_ktime_get_ns();
			n = process_of(tgid);
		}
		count_read(n, now - arrived, bound);
	}
}

/*
 * One more datagram has been read. Which one: all that came have been but those that wait. Where fewer were announced than are
 * there, some came without: several at once (6.18), or to a queue that was not empty (6.10 to 6.12, commit 612b1c0dec5b).
 *
 * Arrivals are counted in slices only, from the first read in one. Reads are, beyond its end, while a chosen one waits.
 */
static __always_inline void count_datagram(struct socket *socket, struct sock *sk, __u32 slice)
{
	__u32 arrived = socket->arrived, waiting = waiting_datagrams(sk), read = socket->read + 1;
	__s32 surplus = arrived - waiting - read;

	if (slice && socket->slice != slice) {
		socket->arrived = read + waiting;
		socket->slice = slice;
	} else if (slice && surplus > 0) {
		read += surplus;	/* some were dropped, or somebody else has read them */
	} else if (slice && surplus < 0) {
		__sync_fetch_and_add(&socket->arrived, -surplus);
		add(&latency.unseen_datagrams, -surplus);
	}
	socket->read = read;
	if (slice)
		add(&latency.datagrams, 1);
}

SEC("tp_btf/sock_recv_length")
int BPF_PROG(on_recv, struct sock *sk, int result, int flags)
{
	__u32 tgid, length = result, n, is_known, slice;
	struct socket *socket;
	__u16 port;
	__u64 bit;

	if (result <= 0 || flags & MSG_PEEK)
		return 0;
	slice = slice_of(0);
	if (!slice && !latency.pending)
		return 0;	/* most calls */
	port = sk->__sk_common.skc_num;
	bit = 1ull << port % 64;
	is_known = !!(latency.ports[port / 64] & bit);
	if (is_known && !latency.pending && sk->sk_protocol == IPPROTO_TCP)
		return 0;
	tgid = bpf_get_current_pid_tgid() >> 32;
	if (!is_wanted(tgid) || !is_inet(sk))
		return 0;
	if (!is_known)
		__sync_fetch_and_or(&latency.ports[port / 64], bit);

	if (sk->sk_protocol == IPPROTO_TCP) {
		struct tcp_sock *tcp;

		n = find(sk);
		if (n >= SOCKETS)
			return 0;
		socket = &latency.sockets[n];
		if (socket->head == socket->tail)
			return 0;
		tcp = CAST(tcp_sock, sk);
		socket->read = tcp->copied_seq;
		if (tcp->inet_conn.icsk_ulp_ops)
			length = -1;	/* TLS: fewer bytes are read than came */
	} else if (sk->sk_protocol == IPPROTO_UDP) {
		n = slice ? find_or_claim(sk, 1) : find(sk);
		if (n >= SOCKETS) {
			if (slice)
				add(&latency.lost_samples, 1);
			return 0;
		}
		socket = &latency.sockets[n];
		if (!slice && socket->head == socket->tail)
			return 0;
		count_datagram(socket, sk, slice);
		length = -1;
	} else {
		return 0;
	}
	take(socket, tgid, length);
	return 0;
}

SEC("tp_btf/sk_data_ready")
int BPF_PROG(on_data_ready, struct sock *sk)
{
	__u16 port = sk->__sk_common.skc_num, protocol;
	__u32 n, number, slice = slice_of(0);
	struct socket *socket;
	int first;

	if (!slice || !(latency.ports[port / 64] >> port % 64 & 1) || !is_inet(sk))
		return 0;
	protocol = sk->sk_protocol;
	if (protocol == IPPROTO_TCP) {
		if (sk->__sk_common.skc_state == TCP_LISTEN || !is_chosen(&first))
			return 0;
		n = find_or_claim(sk, 0);
		if (n >= SOCKETS) {
			add(&latency.lost_samples, 1);
			return 0;
		}
		return sample(&latency.sockets[n], napi_id_of(sk, 0), CAST(tcp_sock, sk)->rcv_nxt, slice, first);
	}
	if (protocol != IPPROTO_UDP)
		return 0;
	n = find(sk);	/* it has one since the first recv */
	if (n >= SOCKETS || latency.sockets[n].slice != slice)
		return 0;
	socket = &latency.sockets[n];
	number = __sync_fetch_and_add(&socket->arrived, 1) + 1;
	return is_chosen(&first) ? sample(socket, napi_id_of(sk, 1), number, slice, first) : 0;
}

/* Whether the instance's timer runs, which schedules its next poll. */
static __always_inline int is_timer_running(struct napi_struct *napi)
{
	struct hrtimer___boolean *later = (void *)&napi->timer;

	if (bpf_core_field_exists(napi->timer.state))
		return napi->timer.state & 1;	/* HRTIMER_STATE_ENQUEUED */
	return later->is_queued;
}

static __always_inline int is_deferred(struct napi_struct *napi)
{
	if (bpf_core_field_exists(napi->defer_hard_irqs))
		return napi->defer_hard_irqs > 0;
	return ((struct net_device___before_6_13 *)napi->dev)->napi_defer_hard_irqs > 0;
}

/* What leaves the interrupt masked: suspension.bpf.c says why. */
SEC("tp_btf/napi_poll")
int BPF_PROG(on_napi_poll, struct napi_struct *napi, int work, int budget)
{
	__u32 id = napi->napi_id, n, slice = slice_of(1);
	struct task_struct *task;
	struct napi *state;

	if (!slice || !id || !budget)
		return 0;
	latency.cpus[bpf_get_smp_processor_id() & (CPUS - 1)].polls++;
	n = find_napi(id);
	if (n >= NAPIS)
		return 0;
	state = &latency.napis[n & (NAPIS - 1)];
	state->masked = work >= budget || (is_deferred(napi) && is_timer_running(napi));
	state->polled_at = bpf_ktime_get_ns();
	state->slice = slice;
	task = bpf_get_current_task_btf();
	state->thread = 0;
	if (bpf_core_field_exists(task->sched_info.run_delay) && (__u64)napi->thread == (__u64)task) {
		state->thread = (__u64)task;
		state->run_delay = task->sched_info.run_delay;
		state->runs = task->sched_info.pcount;
		state->sleeps = task->nvcsw;
	}
	return 0;
}
