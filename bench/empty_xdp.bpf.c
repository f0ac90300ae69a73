// SPDX-License-Identifier: MIT OR GPL-2.0
/* The floor of the measurement: an XDP program that lets everything pass. */

char LICENSE[] __attribute__((section("license"), used)) = "Dual MIT/GPL";

__attribute__((section("xdp"), used)) int passes(void *context)
{
	(void)context;
	return 2; /* XDP_PASS */
}
