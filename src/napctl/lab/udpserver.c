/*
 * udpserver: a UDP server to which each request costs the same work; it answers with what it got.
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
#include <sys/socket.h>
#include <time.h>

#define die(...) (fprintf(stderr, "udpserver: " __VA_ARGS__), fputc('\n', stderr), exit(1))
#define TRIAL_STEPS 100000
#define AT_ONCE 16	/* requests between two epoll_wait */

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

int main(int argc, char **argv)
{
	if (argc != 5)
		die("usage: udpserver ADDRESS PORT NANOSECONDS recv|epoll");
	struct sockaddr_in own = {.sin_family = AF_INET, .sin_port = htons(atoi(argv[2]))};
	struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: a signal ends a wait */
	bool epolls = !strcmp(argv[4], "epoll");
	uint64_t steps = steps_of(atof(argv[3]));
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC | (epolls ? SOCK_NONBLOCK : 0), 0);
	sigaction(SIGTERM, &action, NULL);
	if (inet_pton(AF_INET, argv[1], &own.sin_addr) != 1)
		die("%s is not an IPv4 address", argv[1]);
	if (bind(fd, (struct sockaddr *)&own, sizeof own))
		die("cannot listen on %s:%s: %s", argv[1], argv[2], strerror(errno));
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event = {.events = EPOLLIN};
	epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
	while (!stop) {
		if (!epolls)
			serve_one(fd, steps);
		else if (epoll_wait(epoll, &event, 1, -1) > 0)
			for (int i = 0; i < AT_ONCE && serve_one(fd, steps); i++)
				;
	}
	return 0;
}
