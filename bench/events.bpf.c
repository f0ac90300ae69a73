// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* How many events of each tracepoint that napctl's probes listen to while it adapts happened on each CPU (64 at most). */

char LICENSE[] __attribute__((section("license"), used)) = "Dual MIT/GPL";

static unsigned int (*bpf_get_smp_processor_id)(void) = (void *)8;

unsigned long long events[10][64];

#define COUNT(number, name) \
	__attribute__((section("tp_btf/" #name), used)) int count_##name(void *context) \
	{ \
		(void)context; \
		events[number][bpf_get_smp_processor_id() & 63]++; \
		return 0; \
	}

COUNT(0, napi_poll)
COUNT(1, sk_data_ready)
COUNT(2, sock_recv_length)
COUNT(3, sock_send_length)
COUNT(4, softirq_entry)
COUNT(5, softirq_exit)
COUNT(6, hrtimer_start)
COUNT(7, hrtimer_expire_entry)
COUNT(8, irq_handler_entry)
COUNT(9, irq_handler_exit)
