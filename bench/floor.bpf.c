// SPDX-License-Identifier: MIT OR GPL-2.0
/* The floor of the measurement: what the kernel counts for a program that does nothing, and for one that counts one thing. */

char LICENSE[] __attribute__((section("license"), used)) = "Dual MIT/GPL";

unsigned long long events;

__attribute__((section("tp_btf/napi_poll"), used)) int nothing(void *context)
{
	(void)context;
	return 0;
}

__attribute__((section("tp_btf/napi_poll"), used)) int one_counter(void *context)
{
	(void)context;
	events++;
	return 0;
}

/* The same on the other tracepoints of napctl's probes: a tracepoint that is hit seldom finds the caches cold, whoever listens. */
#define EMPTY(name) \
	__attribute__((section("tp_btf/" #name), used)) int nothing_##name(void *context) \
	{ \
		(void)context; \
		return 0; \
	}

EMPTY(sk_data_ready)
EMPTY(sock_recv_length)
EMPTY(sock_send_length)
EMPTY(softirq_entry)
EMPTY(softirq_exit)
EMPTY(hrtimer_start)
EMPTY(hrtimer_expire_entry)
EMPTY(irq_handler_entry)
EMPTY(irq_handler_exit)
