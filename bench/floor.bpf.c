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
