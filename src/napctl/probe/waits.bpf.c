// SPDX-License-Identifier: MIT OR GPL-2.0-only
/*
 * Counts how the threads of chosen processes wait: calls of epoll_wait, poll, select, recv and their kin, and io_uring_enter,
 * by thread and descriptor; how many of them could not wait; how many brought something.
 *
 * While it is attached every system call of the machine passes here, hence the bitmap of chosen processes before all else.
 * Everything lies in one global variable, mapped into napctl (waits.py mirrors it).
 */
#include "common.bpf.h"
#include <bpf/bpf_core_read.h>

#define PIDS (4 << 20)	/* PID_MAX_LIMIT of include/linux/threads.h */
#define NUMBERS 512	/* of system calls; a power of two */
#define HALF 8192	/* entries for recv, and as many for the rest; a power of two */
#define HALF_SHIFT 51	/* 64 bits less the 13 of HALF */
#define PROBES 16	/* neighbouring entries tried before giving up */

#define MSG_DONTWAIT 0x40
#define O_NONBLOCK 04000
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define IORING_ENTER_GETEVENTS 1
#define IORING_ENTER_REGISTERED_RING 16
#define TS_COMPAT 2		/* arch/x86/include/asm/thread_info.h */
#define PSR_MODE32_BIT 16	/* arch/arm64/include/uapi/asm/ptrace.h */

/* libbpf ignores what follows ___ and takes the one of the two that the running kernel has. */
struct pt_regs___x86 {
	unsigned long di, si, dx, r10, r8, orig_ax;
} RELOCATED;

struct pt_regs___arm64 {
	__u64 regs[31];
	__u64 pstate;
	__u64 orig_x0;
	__s32 syscallno;
} RELOCATED;

struct thread_info___x86 {
	__u32 status;
} RELOCATED;

struct inode {
	__u16 i_mode;
} RELOCATED;

struct file {
	unsigned int f_flags;
	struct inode *f_inode;
} RELOCATED;

struct fdtable {
	unsigned int max_fds;
	struct file **fd;
} RELOCATED;

struct files_struct {
	struct fdtable *fdt;
} RELOCATED;

struct task_struct {
	struct files_struct *files;
} RELOCATED;

struct task_struct___x86 {
	struct thread_info___x86 thread_info;
} RELOCATED;

/* System calls by the place and form of what says how long to wait. Known to waits.py, too. */
enum kind {
	OTHER,
	EPOLL,		/* epoll_wait, epoll_pwait: 4th argument, ms */
	EPOLL_TIMESPEC,	/* epoll_pwait2: 4th, pointer */
	POLL,		/* 3rd, ms */
	POLL_TIMESPEC,	/* ppoll: 3rd, pointer */
	SELECT,		/* select, pselect6: 5th, pointer */
	RECV_FLAGS_3,	/* recvmsg: 3rd, flags */
	RECV_FLAGS_4,	/* recvfrom, recvmmsg: 4th, flags */
	READ,
	IO_URING,	/* io_uring_enter: 3rd, how many to wait for; 4th, flags */
};

/* The names of waits.py, from 1 in its order. */
enum call { CALL_EPOLL = 1, CALL_POLL, CALL_SELECT, CALL_RECV, CALL_IO_URING };

/* Nobody but its thread writes an entry, so nothing here is atomic. */
struct entry {
	__u32 tgid;
	__u64 calls;
	__u64 nonblocking;
	__u64 fruitful;
} __attribute__((aligned(64)));

struct waits {
	__u64 wanted[PIDS / 64];	/* a bit for each process; set by napctl at any time */
	__u64 keys[2 * HALF];		/* tid << 35 | call << 32 | fd; 0: free */
	struct entry entries[2 * HALF];
	__u64 lost;
} waits __attribute__((aligned(64)));

/* enum kind by system call number, set by the loader: numbers differ between architectures. */
const volatile __u8 kinds[NUMBERS];

struct arguments {
	__u64 a1, a2, a3, a4, a5;
};

static __always_inline int is_wanted(__u32 tgid)
{
	return waits.wanted[tgid / 64 & (PIDS / 64 - 1)] >> tgid % 64 & 1;
}

static __always_inline int is_x86(void)
{
	return bpf_core_field_exists(((struct pt_regs___x86 *)0)->orig_ax);
}

/* OTHER for the calls of a 32-bit program, too: they have numbers of their own. */
static __always_inline enum kind kind_of(void *regs, struct task_struct *task)
{
	__u32 number, narrow;

	if (is_x86()) {
		number = ((struct pt_regs___x86 *)regs)->orig_ax;
		narrow = ((struct task_struct___x86 *)task)->thread_info.status & TS_COMPAT;
	} else {
		number = ((struct pt_regs___arm64 *)regs)->syscallno;
		narrow = ((struct pt_regs___arm64 *)regs)->pstate & PSR_MODE32_BIT;
	}
	return number >= NUMBERS || narrow ? OTHER : kinds[number & (NUMBERS - 1)];
}

/*
 * The registers keep the arguments until the call returns to user space, so the exit can look at them: only what a pointer
 * leads to may change meanwhile. aarch64 returns in the first one's register, and keeps a copy.
 */
static __always_inline struct arguments arguments_of(void *regs)
{
	struct arguments found;

	if (is_x86()) {
		struct pt_regs___x86 *x86 = regs;

		found = (struct arguments){ x86->di, x86->si, x86->dx, x86->r10, x86->r8 };
	} else {
		struct pt_regs___arm64 *arm64 = regs;

		found = (struct arguments){ arm64->orig_x0, arm64->regs[1], arm64->regs[2], arm64->regs[3], arm64->regs[4] };
	}
	/* Without it clang chooses between offsets and loads later, which the verifier refuses. */
	barrier_var(found.a1);
	barrier_var(found.a2);
	barrier_var(found.a3);
	barrier_var(found.a4);
	barrier_var(found.a5);
	return found;
}

/*
 * The thread's entry for that call, claimed if it has none yet; 2 * HALF if none is free. A server may receive from thousands of
 * sockets: recv has a half of its own, which leaves the other calls their room. Global, so that the verifier checks it once.
 */
__attribute__((noinline)) __u32 find_or_claim(__u32 tgid, __u64 key)
{
	__u32 home = key * 0x9e3779b97f4a7c15ull >> HALF_SHIFT;	/* Fibonacci hashing */
	__u32 half = (key >> 32 & 7) == CALL_RECV ? 0 : HALF;

#pragma clang loop unroll(disable)
	for (__u32 i = 0; i < PROBES; i++) {
		__u32 n = half | ((home + i) & (HALF - 1));
		__u64 owner = waits.keys[n];

		if (!owner) {
			owner = __sync_val_compare_and_swap(&waits.keys[n], 0, key);
			if (!owner) {
				waits.entries[n].tgid = tgid;
				return n;
			}
		}
		/* Another process's: a thread that has ended, whose id was given out anew. */
		if (owner == key && waits.entries[n].tgid == tgid)
			return n;
	}
	__sync_fetch_and_add(&waits.lost, 1);
	return 2 * HALF;
}

static __always_inline struct entry *entry_of(__u64 tgid_and_tid, enum call call, __u32 fd)
{
	__u64 key = (tgid_and_tid & 0xffffffff) << 35 | (__u64)call << 32 | fd;
	__u32 n = find_or_claim(tgid_and_tid >> 32, key);

	if (n >= 2 * HALF)
		return 0;
	barrier_var(n);	/* clang would drop what follows, and add up the address before it compares */
	return &waits.entries[n & (2 * HALF - 1)];
}

/* A file of the current task; 0 if there is none. RCU protects the table: tracing programs run within its read side. */
static __always_inline struct file *file_of(struct task_struct *task, __u32 fd)
{
	struct fdtable *table = task->files->fdt;
	struct file *file = 0;

	if (fd < table->max_fds)
		bpf_probe_read_kernel(&file, sizeof(file), table->fd + fd);
	return file;
}

/* Attached before the entry, like the other programs'. A call that began before is counted as well. */
SEC("tp_btf/sys_exit")
int BPF_PROG(on_exit, void *regs, long result)
{
	__u64 current = bpf_get_current_pid_tgid();
	struct task_struct *task;
	struct arguments args;
	struct entry *entry;
	struct file *file;
	enum kind kind;
	enum call call;
	__u32 fd = -1, nonblocking = 0;

	if (!is_wanted(current >> 32))
		return 0;
	task = bpf_get_current_task_btf();
	kind = kind_of(regs, task);
	if (kind == OTHER)
		return 0;
	args = arguments_of(regs);

	if (kind == EPOLL || kind == EPOLL_TIMESPEC) {
		call = CALL_EPOLL;
		fd = args.a1;
		nonblocking = kind == EPOLL && !(__u32)args.a4;
	} else if (kind == POLL || kind == POLL_TIMESPEC) {
		call = CALL_POLL;
		if (!(__u32)args.a2)
			return 0;	/* for no descriptor: a sleep */
		nonblocking = kind == POLL && !(__u32)args.a3;
	} else if (kind == SELECT) {
		call = CALL_SELECT;
		if (!(__u32)args.a1)
			return 0;
	} else if (kind == IO_URING) {
		call = CALL_IO_URING;
		if (!(args.a4 & IORING_ENTER_REGISTERED_RING))	/* else an index, not a descriptor */
			fd = args.a1;
		nonblocking = !(args.a4 & IORING_ENTER_GETEVENTS) || !(__u32)args.a3;
	} else {
		call = CALL_RECV;
		fd = args.a1;
		file = file_of(task, fd);
		if (kind == READ && (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK))
			return 0;
		nonblocking = (kind == RECV_FLAGS_3 && args.a3 & MSG_DONTWAIT) ||
			      (kind == RECV_FLAGS_4 && args.a4 & MSG_DONTWAIT) ||
			      (file && BPF_CORE_READ(file, f_flags) & O_NONBLOCK);
	}

	entry = entry_of(current, call, fd);
	if (!entry)
		return 0;
	entry->calls++;
	if (nonblocking)
		entry->nonblocking++;
	if (result > 0)
		entry->fruitful++;
	return 0;
}

/*
 * For times that lie in the program's memory: the kernel writes there what is left of them, so the exit comes too late. They
 * are counted at once, as a call that cannot wait soon returns.
 */
SEC("tp_btf/sys_enter")
int BPF_PROG(on_entry, void *regs, long number)
{
	__u64 current = bpf_get_current_pid_tgid();
	__u64 time[2] = {}, address;	/* timespec or timeval */
	struct arguments args;
	struct entry *entry;
	enum kind kind;
	enum call call;
	__u32 fd = -1;

	if (!is_wanted(current >> 32))
		return 0;
	kind = kind_of(regs, bpf_get_current_task_btf());
	if (kind != EPOLL_TIMESPEC && kind != POLL_TIMESPEC && kind != SELECT)
		return 0;
	args = arguments_of(regs);

	if (kind == EPOLL_TIMESPEC) {
		call = CALL_EPOLL;
		fd = args.a1;
		address = args.a4;
	} else if (kind == POLL_TIMESPEC) {
		call = CALL_POLL;
		address = (__u32)args.a2 ? args.a3 : 0;
	} else {
		call = CALL_SELECT;
		address = (__u32)args.a1 ? args.a5 : 0;
	}
	/* No address: without end. */
	if (!address || bpf_probe_read_user(time, sizeof(time), (void *)address) || time[0] || time[1])
		return 0;
	entry = entry_of(current, call, fd);
	if (entry)
		entry->nonblocking++;
	return 0;
}
