/*
 * A server that waits, reads and replies by io_uring alone, without liburing: uring tcp|udp|splice|check ADDRESS PORT [OPTION …]
 *
 * tcp      HTTP: each read is taken for one request, and gets "hello"
 * splice   the same, but what was sent goes into a pipe, by splice: a kernel thread waits for each connection
 * udp      an echo
 * check    nothing
 *
 * What it asks of its ring:
 *
 * single-issuer  IORING_SETUP_SINGLE_ISSUER and IORING_SETUP_DEFER_TASKRUN, as most libraries do
 * restricted     nobody may register anything
 * sqpoll         a kernel thread submits
 * direct         connections have no descriptors
 * napi           its own busy polling, 20 us, not preferred
 * static         the same, of NAPI instances that it would list
 * tick           a wait ends after 1 ms at the latest
 *
 * With SIGUSR1 it goes on with another ring, with SIGUSR2 with one that has the same descriptor. It ends with status 3 where io_uring is not allowed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

enum step { ACCEPT, READ, REPLY, CLOSE };

struct napi { /* struct io_uring_napi of Linux 6.13 */
	__u32 busy_poll_to;
	__u8 prefer_busy_poll, opcode, pad[2];
	__u32 op_param, resv;
};
#define REGISTER_NAPI 27

static struct options {
	int single_issuer, restricted, sqpoll, direct, napi, is_static, tick;
} options;
static volatile sig_atomic_t anew;

#define FILES 1024
#define SIZE 512

static const char hello[] = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nhello\n";
static char buffers[FILES][SIZE];
static int ring, listener, by_splice, pipes[FILES][2]; /* of each connection: a splice that waits holds its pipe's lock */
static unsigned *sq_tail, *sq_mask, *sq_array, *cq_head, *cq_tail, *cq_mask, waiting;
static struct io_uring_sqe *sqes;
static struct io_uring_cqe *cqes;

static void die(const char *what)
{
	perror(what);
	exit(1);
}

static void registered(int operation, void *argument, unsigned count)
{
	if (syscall(__NR_io_uring_register, ring, operation, argument, count) < 0)
		die("io_uring_register");
}

static void ask_of_it(void)
{
	static const __u8 operations[] = {IORING_OP_ACCEPT, IORING_OP_RECV, IORING_OP_SEND, IORING_OP_RECVMSG, IORING_OP_SENDMSG};
	struct io_uring_restriction allowed[sizeof operations] = {0};
	struct napi napi = {.busy_poll_to = 20, .op_param = options.is_static};
	static int none[FILES];

	for (unsigned i = 0; i < sizeof operations; i++) {
		allowed[i].opcode = IORING_RESTRICTION_SQE_OP;
		allowed[i].sqe_op = operations[i];
	}
	memset(none, -1, sizeof none);
	if (options.direct)
		registered(IORING_REGISTER_FILES, none, FILES);
	if (options.napi || options.is_static)
		registered(REGISTER_NAPI, &napi, 1);
	if (options.restricted) {
		registered(IORING_REGISTER_RESTRICTIONS, allowed, sizeof operations);
		registered(IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	}
}

static void set_up(void)
{
	struct io_uring_params params = {0};

	waiting = 0;
	if (options.single_issuer)
		params.flags |= IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN;
	if (options.restricted)
		params.flags |= IORING_SETUP_R_DISABLED;
	if (options.sqpoll)
		params.flags |= IORING_SETUP_SQPOLL;
	params.sq_thread_idle = 10;
	ring = syscall(__NR_io_uring_setup, 256, &params);
	if (ring < 0)
		exit(3);
	size_t sq_size = params.sq_off.array + params.sq_entries * sizeof(unsigned);
	size_t cq_size = params.cq_off.cqes + params.cq_entries * sizeof *cqes;
	char *rings = mmap(NULL, sq_size > cq_size ? sq_size : cq_size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring,
			   IORING_OFF_SQ_RING); /* both: IORING_FEAT_SINGLE_MMAP, since Linux 5.4 */
	sqes = mmap(NULL, params.sq_entries * sizeof *sqes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, ring, IORING_OFF_SQES);
	if (rings == MAP_FAILED || sqes == MAP_FAILED)
		die("mmap");
	sq_tail = (unsigned *)(rings + params.sq_off.tail);
	sq_mask = (unsigned *)(rings + params.sq_off.ring_mask);
	sq_array = (unsigned *)(rings + params.sq_off.array);
	cq_head = (unsigned *)(rings + params.cq_off.head);
	cq_tail = (unsigned *)(rings + params.cq_off.tail);
	cq_mask = (unsigned *)(rings + params.cq_off.ring_mask);
	cqes = (struct io_uring_cqe *)(rings + params.cq_off.cqes);
	ask_of_it();
}

/* To be filled before the next one is asked for; it is submitted when the loop waits. */
static struct io_uring_sqe *next(enum step step, int opcode, int fd)
{
	unsigned tail = *sq_tail, place = tail & *sq_mask;
	struct io_uring_sqe *sqe = &sqes[place];

	memset(sqe, 0, sizeof *sqe);
	sqe->opcode = opcode;
	sqe->fd = fd;
	sqe->user_data = (uint64_t)fd << 8 | step;
	sq_array[place] = place;
	__atomic_store_n(sq_tail, tail + 1, __ATOMIC_RELEASE);
	waiting++;
	return sqe;
}

static void accept_one(void)
{
	struct io_uring_sqe *sqe = next(ACCEPT, IORING_OP_ACCEPT, listener);

	if (options.direct)
		sqe->file_index = IORING_FILE_INDEX_ALLOC;
}

/* Of a connection, which may have no descriptor. */
static struct io_uring_sqe *next_of(enum step step, int opcode, int fd)
{
	struct io_uring_sqe *sqe = next(step, opcode, fd);

	if (options.direct)
		sqe->flags |= IOSQE_FIXED_FILE;
	return sqe;
}

static void close_one(int fd)
{
	if (options.direct)
		next(CLOSE, IORING_OP_CLOSE, 0)->file_index = fd + 1;
	else
		close(fd);
}

static void read_from(int fd)
{
	struct io_uring_sqe *sqe;

	if (!by_splice) {
		sqe = next_of(READ, IORING_OP_RECV, fd);
		sqe->addr = (uintptr_t)buffers[fd];
		sqe->len = SIZE;
		return;
	}
	if (!pipes[fd][1] && pipe(pipes[fd]))
		die("pipe");
	sqe = next(READ, IORING_OP_SPLICE, pipes[fd][1]);
	sqe->splice_fd_in = fd;
	sqe->splice_off_in = sqe->off = -1;
	sqe->len = SIZE;
	sqe->user_data = (uint64_t)fd << 8 | READ;
}

static void reply_to(int fd)
{
	struct io_uring_sqe *sqe = next_of(REPLY, IORING_OP_SEND, fd);

	sqe->addr = (uintptr_t)hello;
	sqe->len = sizeof hello - 1;
}

static void go_on(enum step step, int fd, int result)
{
	switch (step) {
	case ACCEPT:
		if (result >= FILES)
			close_one(result);
		else if (result >= 0)
			read_from(result);
		accept_one();
		return;
	case READ:
		if (result <= 0) {
			close_one(fd);
			return;
		}
		if (by_splice && read(pipes[fd][0], buffers[fd], result) != result)
			die("read");
		reply_to(fd);
		return;
	case REPLY:
		read_from(fd);
		return;
	case CLOSE:;
	}
}

static struct msghdr message;
static struct sockaddr_in peer;
static struct iovec content;

static void echo(enum step step, int fd, int result)
{
	int reads = step == REPLY;

	message = (struct msghdr){.msg_name = &peer, .msg_namelen = sizeof peer, .msg_iov = &content, .msg_iovlen = 1};
	content = (struct iovec){buffers[0], reads ? SIZE : result < 0 ? 0 : result};
	next(reads ? READ : REPLY, reads ? IORING_OP_RECVMSG : IORING_OP_SENDMSG, fd)->addr = (uintptr_t)&message;
}

static void understand(const char *word)
{
	const struct {
		const char *name;
		int *option;
	} known[] = {
		{"single-issuer", &options.single_issuer}, {"restricted", &options.restricted}, {"sqpoll", &options.sqpoll},
		{"direct", &options.direct}, {"napi", &options.napi}, {"static", &options.is_static}, {"tick", &options.tick},
	};

	for (unsigned i = 0; i < sizeof known / sizeof *known; i++)
		if (!strcmp(word, known[i].name)) {
			*known[i].option = 1;
			return;
		}
	exit(2);
}

static void asked_for_another(int number)
{
	anew = number;
}

static void begin(int udp)
{
	set_up();
	if (udp)
		echo(REPLY, listener, 0);
	else
		accept_one();
}

static void wait_for_some(void)
{
	struct __kernel_timespec tick = {.tv_nsec = 1000000};
	struct io_uring_getevents_arg until = {.ts = (uintptr_t)&tick};
	unsigned flags = IORING_ENTER_GETEVENTS | (options.sqpoll ? IORING_ENTER_SQ_WAKEUP : 0);
	int done;

	if (options.tick)
		done = syscall(__NR_io_uring_enter, ring, waiting, 1, flags | IORING_ENTER_EXT_ARG, &until, sizeof until);
	else
		done = syscall(__NR_io_uring_enter, ring, waiting, 1, flags, NULL, 0);
	if (done < 0 && errno != EINTR && errno != ETIME)
		die("io_uring_enter");
	if (done >= 0)
		waiting = 0;
}

int main(int argc, char **argv)
{
	struct sockaddr_in here = {.sin_family = AF_INET};
	int udp = argc >= 4 && !strcmp(argv[1], "udp"), yes = 1;
	void (*done)(enum step, int, int) = udp ? echo : go_on;

	if (argc < 4)
		return 2;
	for (int i = 4; i < argc; i++)
		understand(argv[i]);
	by_splice = !strcmp(argv[1], "splice");
	here.sin_addr.s_addr = inet_addr(argv[2]);
	here.sin_port = htons(atoi(argv[3]));
	if (!strcmp(argv[1], "check")) {
		set_up();
		return 0;
	}
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGUSR1, &(struct sigaction){.sa_handler = asked_for_another}, NULL);
	sigaction(SIGUSR2, &(struct sigaction){.sa_handler = asked_for_another}, NULL);
	listener = socket(AF_INET, udp ? SOCK_DGRAM : SOCK_STREAM, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
	if (!udp)
		setsockopt(listener, IPPROTO_TCP, TCP_NODELAY, &yes, sizeof yes);
	if (bind(listener, (struct sockaddr *)&here, sizeof here) || (!udp && listen(listener, 128)))
		die("bind");
	begin(udp);
	for (;;) {
		wait_for_some();
		for (unsigned head = *cq_head; head != __atomic_load_n(cq_tail, __ATOMIC_ACQUIRE);) {
			struct io_uring_cqe cqe = cqes[head & *cq_mask];

			__atomic_store_n(cq_head, ++head, __ATOMIC_RELEASE);
			done(cqe.user_data & 0xff, cqe.user_data >> 8, cqe.res);
		}
		if (anew) {
			int former = ring;

			if (anew == SIGUSR2)
				close(former); /* which ends what was under way in it */
			begin(udp);
			if (anew == SIGUSR1)
				close(former);
			anew = 0;
		}
	}
}
