/*
 * floodserver: a server to which each request costs the same work; it answers with what it got. By UDP it waits in
 * recv() or in epoll_wait(); by TCP, in epoll_wait(), it closes each connection after its first answer.
 *
 * The work is a number of steps, not a time: what an interrupt takes away has to be done all the same. How many steps a
 * request has is found at the start, from the quickest of many trials. It ends at SIGTERM.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

#define die(...) (fprintf(stderr, "floodserver: " __VA_ARGS__), fputc('\n', stderr), exit(1))
#define TRIAL_STEPS 100000
#define AT_ONCE 16	/* requests between two epoll_wait */
#define BACKLOG 4096

static volatile sig_atomic_t stop;
static volatile uint64_t worked;

static void on_signal(int number)
{
	(void)number;
	stop = 1;
}

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void work(uint64_t steps)
{
	uint64_t x = worked;
	for (uint64_t i = 0; i < steps; i++)
		x = (x ^ i) * 6364136223846793005u;
	worked = x;
}

static uint64_t steps_of(double ns)
{
	double least = 1e18;
	for (int trial = 0; trial < 30; trial++) {
		int64_t began = now_ns();
		work(TRIAL_STEPS);
		double took = now_ns() - began;
		least = took < least ? took : least;
	}
	return ns * TRIAL_STEPS / least;
}

/* Whether a request was there. */
static bool serve_one(int fd, uint64_t steps)
{
	char request[2048];
	struct sockaddr_in from;
	socklen_t length = sizeof from;
	ssize_t n = recvfrom(fd, request, sizeof request, 0, (struct sockaddr *)&from, &length);
	if (n < 0)
		return false;
	work(steps);
	sendto(fd, request, n, MSG_DONTWAIT, (struct sockaddr *)&from, length);
	return true;
}

/* A connection waits in the same epoll instance, as it does in real servers, which learns by it whose packets come there. */
static bool accept_one(int listener, int epoll)
{
	int fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
	if (fd >= 0)
		epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	return fd >= 0;
}

static void serve_connection(int fd, uint64_t steps)
{
	char request[2048];
	ssize_t n = recv(fd, request, sizeof request, 0);
	if (n > 0) {
		work(steps);
		send(fd, request, n, MSG_DONTWAIT | MSG_NOSIGNAL);
	}
	if (n >= 0 || errno != EAGAIN)
		close(fd);
}

static void serve_tcp(int listener, int epoll, uint64_t steps)
{
	struct epoll_event events[AT_ONCE];
	int n = epoll_wait(epoll, events, AT_ONCE, -1);
	for (int i = 0; i < n; i++) {
		if (events[i].data.fd != listener)
			serve_connection(events[i].data.fd, steps);
		else
			for (int each = 0; each < AT_ONCE && accept_one(listener, epoll); each++)
				;
	}
}

static int open_socket(const struct sockaddr_in *own, bool tcp, bool blocks)
{
	int fd = socket(AF_INET, (tcp ? SOCK_STREAM : SOCK_DGRAM) | SOCK_CLOEXEC | (blocks ? 0 : SOCK_NONBLOCK), 0), one = 1;
	struct rlimit files;
	if (tcp) {
		setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
		getrlimit(RLIMIT_NOFILE, &files);
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (bind(fd, (const struct sockaddr *)own, sizeof *own) || (tcp && listen(fd, BACKLOG)))
		die("cannot listen on port %d: %s", ntohs(own->sin_port), strerror(errno));
	return fd;
}

int main(int argc, char **argv)
{
	if (argc != 5)
		die("usage: floodserver ADDRESS PORT NANOSECONDS recv|epoll|tcp");
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
	struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: a signal ends a wait */
	bool tcp = !strcmp(argv[4], "tcp"), blocks = !strcmp(argv[4], "recv");
	uint64_t steps = steps_of(atof(argv[3]));
	sigaction(SIGTERM, &action, NULL);
	if (inet_pton(AF_INET, argv[1], &own.sin_addr) != 1)
		die("%s is not an IPv4 address", argv[1]);
	int fd = open_socket(&own, tcp, blocks);
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	while (!stop) {
		if (tcp)
			serve_tcp(fd, epoll, steps);
		else if (blocks)
			serve_one(fd, steps);
		else if (epoll_wait(epoll, &event, 1, -1) > 0)
			for (int i = 0; i < AT_ONCE && serve_one(fd, steps); i++)
				;
	}
	return 0;
}
