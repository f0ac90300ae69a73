// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Adds up the time of NET_RX softirqs by whose it is: that of polls by the part that the NAPI instance belongs to, and that on top of
 * a process by the part of the process. napctl numbers the parts; 0 is nobody's.
 *
 * The tracepoint napi_poll comes at the end of a poll: what has gone by since the softirq began, or since the poll before, is its.
 *
 * Everything lies in one global variable, mapped into napctl (softirq_parts.py mirrors it).
 */
#include "common.bpf.h"

#define PIDS (4 << 20)	/* PID_MAX_LIMIT of include/linux/threads.h */
#define NAPI_IDS 65536	/* they are given upwards from the number of CPUs; more are not known apart */
#define PARTS 4

struct napi_struct {
	__u32 napi_id;
} RELOCATED;

/* Nothing but its CPU writes it, so nothing here is atomic. */
struct cpu {
	__u64 since;	/* 0: outside of a NET_RX softirq, or in one whose entry went unseen */
	__u64 polled;	/* end of the last poll in it, or its begin */
	__u64 polled_ns[PARTS];
	__u64 on_ns[PARTS];
} __attribute__((aligned(64)));

struct parts {
	struct cpu cpus[CPUS];
	__u8 of_napi[NAPI_IDS];	/* set by napctl, like the next */
	__u8 of_pid[PIDS];
} parts __attribute__((aligned(64)));

/* As in softirq_time.bpf.c. */
const volatile __u32 net_rx_softirq = 3;

static __always_inline struct cpu *this_cpu(void)
{
	return &parts.cpus[bpf_get_smp_processor_id() & (CPUS - 1)];
}

/* Attached before the entry, as in napi.bpf.c. */
SEC("tp_btf/softirq_exit")
int BPF_PROG(on_softirq_exit, unsigned int vector)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct cpu *cpu = this_cpu();

	if (vector != net_rx_softirq || !cpu->since)
		return 0;
	cpu->on_ns[parts.of_pid[tgid & (PIDS - 1)] & (PARTS - 1)] += bpf_ktime_get_ns() - cpu->since;
	cpu->since = 0;
	return 0;
}

SEC("tp_btf/softirq_entry")
int BPF_PROG(on_softirq_entry, unsigned int vector)
{
	struct cpu *cpu = this_cpu();

	if (vector == net_rx_softirq)
		cpu->since = cpu->polled = bpf_ktime_get_ns();
	return 0;
}

SEC("tp_btf/napi_poll")
int BPF_PROG(on_napi_poll, struct napi_struct *napi, int work, int budget)
{
	struct cpu *cpu = this_cpu();
	__u64 now;

	if (!cpu->since)
		return 0;
	now = bpf_ktime_get_ns();
	cpu->polled_ns[parts.of_napi[napi->napi_id & (NAPI_IDS - 1)] & (PARTS - 1)] += now - cpu->polled;
	cpu->polled = now;
	return 0;
}
