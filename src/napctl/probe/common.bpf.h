// SPDX-License-Identifier: MIT OR GPL-2.0-only
/* What the programs share: types, the licence, and the kernel's structures that both look into. */
typedef unsigned char __u8;
typedef unsigned short __u16;
typedef short __s16;
typedef unsigned int __u32;
typedef int __s32;
typedef unsigned long long __u64;
typedef long long __s64;
typedef __u16 __be16;
typedef __u32 __be32;
typedef __u32 __wsum;

#include <bpf/bpf_helpers.h>
#include <bpf/bpf_tracing.h>

char LICENSE[] SEC("license") = "Dual MIT/GPL";

#define CPUS 8192	/* CONFIG_NR_CPUS of x86-64 distributions; a power of two */

/* The few kernel fields used; libbpf finds their offsets in the running kernel's BTF. */
#define RELOCATED __attribute__((preserve_access_index))

struct ns_common {
	unsigned int inum;
} RELOCATED;

struct net {
	struct ns_common ns;
	__u64 net_cookie;
} RELOCATED;

typedef struct {
	struct net *net;
} RELOCATED possible_net_t;
