// SPDX-License-Identifier: MIT OR GPL-2.0
/* Programs that do nothing, on the tracepoints of the latency probe. */

char LICENSE[] __attribute__((section("license"), used)) = "Dual MIT/GPL";

#define EMPTY(name) \
	__attribute__((section("tp_btf/" #name), used)) int nothing_##name(void *context) \
	{ \
		(void)context; \
		return 0; \
	}

EMPTY(napi_poll)
EMPTY(sk_data_ready)
EMPTY(sock_recv_length)
EMPTY(sock_send_length)
