// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Adds up the time that CPUs spend in NET_RX softirqs, and how much of it ran on top of chosen processes: where the scheduler
 * does not take softirqs out of a task's run time, that part is in theirs already.
 *
 * Everything lies in one global variable, mapped into napctl (softirq_time.py mirrors it).
 */
#include "common.bpf.h"

#define PIDS (4 << 20)	/* PID_MAX_LIMIT of include/linux/threads.h */

/* Nothing but its CPU writes it, so nothing here is atomic. */
struct cpu {
	__u64 ns;
	__u64 on_chosen_ns;
	__u64 since;	/* 0: outside of a NET_RX softirq, or in one whose entry went unseen */
} __attribute__((aligned(64)));

struct times {
	struct cpu cpus[CPUS];
	__u64 chosen[PIDS / 64];	/* a bit for each process; set by napctl */
} times __attribute__((aligned(64)));

/* NET_RX_SOFTIRQ stands in an anonymous enum, which CO-RE cannot relocate: the loader reads its value from the kernel's BTF. */
const volatile __u32 net_rx_softirq = 3;

static __always_inline struct cpu *this_cpu(void)
{
	return &times.cpus[bpf_get_smp_processor_id() & (CPUS - 1)];
}

/* Attached before the entry, as in napi.bpf.c. */
SEC("tp_btf/softirq_exit")
int BPF_PROG(on_softirq_exit, unsigned int vector)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct cpu *cpu = this_cpu();
	__u64 ns;

	if (vector != net_rx_softirq || !cpu->since)
		return 0;
	ns = bpf_ktime_get_ns() - cpu->since;
	cpu->since = 0;
	cpu->ns += ns;
	if (times.chosen[tgid / 64 & (PIDS / 64 - 1)] >> tgid % 64 & 1)
		cpu->on_chosen_ns += ns;
	return 0;
}

SEC("tp_btf/softirq_entry")
int BPF_PROG(on_softirq_entry, unsigned int vector)
{
	if (vector == net_rx_softirq)
		this_cpu()->since = bpf_ktime_get_ns();
	return 0;
}
