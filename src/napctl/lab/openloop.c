/*
 * openloop: an open-loop load generator for memcached's text protocol, for HTTP/1.1 and for redis.
 *
 * Requests have intended send times, a Poisson process on an absolute schedule. Latency counts from the intended time,
 * so a server that pauses is charged for every request it kept waiting, also for those that could not be sent meanwhile
 * (no coordinated omission). One thread; every connection pipelines whatever is due.
 *
 * It never sleeps while it makes load, and polls its own network device (SO_BUSY_POLL, socket(7)): so neither a wake-up
 * nor a NAPI thread on its CPU is part of a latency, and it can do several times what the server can. With --sleeps it
 * does neither, and leaves its CPU to others: what is due goes out a bit late, and its latencies are partly its own.
 *
 * stdout: one JSON object at the end. stderr: "measuring" when the warm-up is over, or one line saying what went wrong.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <math.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define die(...) (fprintf(stderr, "openloop: " __VA_ARGS__), fputc('\n', stderr), exit(1))
#define SECOND 1000000000LL
#define LATE_NS 100000	/* a request sent this long after its time means that the generator itself cannot keep up */
#define SUB_BITS 7	/* 128 buckets for each power of two: at most 1/128 = 0.8 % error */
#define BUCKETS ((44 - SUB_BITS) << SUB_BITS) /* up to 2^43 ns, more than two hours */
#define BATCH 64	/* requests in the prepared block, the most that one write sends */
#define NAP_NS 200000	/* at least so long it sleeps, if it does */
#define LONG_NAP_NS 5000000 /* and at most: a socket may take again what it did not before */

struct connection {
	int fd;
	int before;		 /* the one that this one replaces, while it polls the device in its place; or -1 */
	int64_t *times;		 /* ring of intended times, oldest first: of requests not answered yet */
	uint32_t head, tail, size; /* free-running; size is a power of two */
	uint32_t unsent;	 /* the newest of these whose last byte is not written */
	size_t sent_bytes;	 /* of the oldest unsent request */
	size_t got;		 /* bytes of the reply being read */
	uint32_t may_send, awaited; /* of opt.reconnect requests: still to be sent, still to be answered here */
};

static struct {
	const char *host;
	int port, connections, keys, closed, reconnect, sleeps;
	double rate, seconds, warmup, drain;
	uint64_t seed;
	const struct protocol *protocol;
} opt = {.host = "127.0.0.1", .port = 11211, .connections = 16, .keys = 1,
	 .seconds = 2, .warmup = 0.5, .drain = 1, .seed = 1};

static int epoll;
static struct sockaddr_in server;
static struct connection *conns;
static char *block;	   /* the request, BATCH times: any unsent tail is a slice of it */
static size_t request_length, reply_length;
static char reply_first, reply_last; /* its first and its last byte */
static uint64_t histogram[BUCKETS];
static int64_t from, until; /* the measured part of the schedule */
static uint64_t sent, late, answered, throughput, outstanding;
static volatile sig_atomic_t stop;

static void on_signal(int number) { (void)number; stop = 1; }

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

static uint64_t random64(void) /* splitmix64 */
{
	uint64_t z = (opt.seed += 0x9E3779B97F4A7C15ULL);
	z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9ULL;
	z = (z ^ (z >> 27)) * 0x94D049BB133111EBULL;
	return z ^ (z >> 31);
}

/* A gap of the Poisson process. */
static double exponential_ns(void) { return -log(((random64() >> 11) + 1) * 0x1p-53) * 1e9 / opt.rate; }

static unsigned bucket_of(uint64_t ns)
{
	if (ns < (1 << SUB_BITS))
		return ns;
	unsigned shift = 63 - __builtin_clzll(ns) - SUB_BITS;
	unsigned bucket = (shift << SUB_BITS) + (ns >> shift);
	return bucket < BUCKETS ? bucket : BUCKETS - 1;
}

static double upper_us(unsigned bucket) /* the largest latency that falls into the bucket */
{
	unsigned shift = bucket >> SUB_BITS ? (bucket >> SUB_BITS) - 1 : 0;
	uint64_t top = bucket - (shift << SUB_BITS);
	return (((top + 1) << shift) - 1) / 1e3;
}

static void enqueue(struct connection *c, int64_t intended)
{
	if (c->tail - c->head == c->size) {
		int64_t *bigger = malloc(2 * c->size * sizeof *bigger);
		if (!bigger)
			die("out of memory: the server is too far behind this rate");
		for (uint32_t i = 0; i < c->size; i++)
			bigger[(c->head + i) & (2 * c->size - 1)] = c->times[(c->head + i) & (c->size - 1)];
		free(c->times);
		c->times = bigger;
		c->size *= 2;
	}
	c->times[c->tail++ & (c->size - 1)] = intended;
	c->unsent++;
	outstanding++;
}

/* The connection before is reset: its port would stay taken for a minute (TIME_WAIT), and they would run out. */
static void leave_before(struct connection *c)
{
	struct linger reset = {.l_onoff = 1, .l_linger = 0};
	if (c->before < 0)
		return;
	setsockopt(c->before, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	close(c->before);
	c->before = -1;
}

/* The new one is connected, and polls the device for itself from now on. */
static void connected(struct connection *c)
{
	struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
	if (c->before < 0)
		return;
	leave_before(c);
	if (epoll_ctl(epoll, EPOLL_CTL_MOD, c->fd, &event))
		die("epoll_ctl: %s", strerror(errno));
}

/* Write what is due; what the socket does not take stays until the next pass. */
static void flush_requests(struct connection *c)
{
	while (c->unsent) {
		size_t batch = c->unsent < BATCH ? c->unsent : BATCH;
		if (opt.reconnect && c->may_send < batch)
			batch = c->may_send;
		if (!batch)
			return; /* the rest goes over the next connection */
		ssize_t n = send(c->fd, block + c->sent_bytes, batch * request_length - c->sent_bytes,
				 MSG_NOSIGNAL | MSG_DONTWAIT);
		if (n < 0 && (errno == EAGAIN || errno == EINTR)) /* full, or still being connected */
			return;
		if (n < 0)
			die("the server closed a connection: %s", strerror(errno));
		connected(c);
		c->sent_bytes += n;
		c->unsent -= c->sent_bytes / request_length;
		if (opt.reconnect)
			c->may_send -= c->sent_bytes / request_length;
		c->sent_bytes %= request_length;
	}
}

static void reopen(struct connection *c);

static void complete(struct connection *c, int64_t now)
{
	int64_t intended = c->times[c->head++ & (c->size - 1)];
	outstanding--;
	throughput += now >= from && now < until;
	if (intended >= from && intended < until) {
		answered++;
		histogram[bucket_of(now > intended ? now - intended : 0)]++;
	}
	if (opt.closed && now < until && !stop) {
		enqueue(c, now);
		sent += now >= from;
	}
	if (opt.reconnect && !--c->awaited)
		reopen(c);
}

/* Every reply is as long as the first one: counting bytes keeps the generator cheaper than the server. */
static void take(struct connection *c, const char *data, size_t length, int64_t now)
{
	while (length) {
		if (c->head == c->tail || (!c->got && data[0] != reply_first))
			die("unexpected reply: %.*s", (int)strcspn(data, "\r\n"), data);
		size_t n = reply_length - c->got < length ? reply_length - c->got : length;
		c->got += n, data += n, length -= n;
		if (c->got < reply_length)
			return;
		if (data[-1] != reply_last)
			die("unexpected reply: not of %zu bytes like the first one", reply_length);
		c->got = 0;
		complete(c, now);
	}
}

/* Polls the connection's NAPI instance if nothing is there. Returns whether something came. */
static bool receive(struct connection *c)
{
	static char buffer[1 << 16];
	if (c->before >= 0) /* a new one has no NAPI instance yet */
		recv(c->before, buffer, 1, MSG_DONTWAIT);
	ssize_t n = recv(c->fd, buffer, sizeof buffer - 1, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n <= 0)
		die("the server closed a connection%s%s", n ? ": " : "", n ? strerror(errno) : "");
	buffer[n] = 0;
	take(c, buffer, n, now_ns());
	flush_requests(c); /* closed loop: the next ones */
	return true;
}

/*
 * Each of these is given what has come of a reply, ended by a 0 byte, and returns its length once all of it is there,
 * else 0. It dies if that is not an answer that a load can be made of.
 */
static size_t memcached_reply(const char *reply, size_t length)
{
	size_t values = 0;
	if (length < 5 || strcmp(reply + length - 5, "END\r\n"))
		return 0;
	for (const char *at = reply; (at = strstr(at, "VALUE key")); at++)
		values++;
	if (values != (size_t)opt.keys)
		die("%s:%d holds %zu of the %d keys asked for", opt.host, opt.port, values, opt.keys);
	return length;
}

/* RFC 9112: a head, an empty line, as many bytes as Content-Length says. A Date in the head has a constant length. */
static size_t http_reply(const char *reply, size_t length)
{
	const char *end = strstr(reply, "\r\n\r\n"), *size = strcasestr(reply, "\r\nContent-Length:");
	if (!end)
		return 0;
	if (strncmp(reply, "HTTP/1.1 200", 12))
		die("%s:%d answers: %.*s", opt.host, opt.port, (int)strcspn(reply, "\r\n"), reply);
	if (!size || size > end)
		die("%s:%d sends replies without Content-Length", opt.host, opt.port);
	size_t total = end + 4 - reply + strtoul(size + 17, NULL, 10);
	return length < total ? 0 : total;
}

/* A bulk string (RESP): $, its length, an end of line, the string, an end of line. */
static size_t redis_reply(const char *reply, size_t length)
{
	const char *end = strstr(reply, "\r\n");
	if (!end)
		return 0;
	if (!strncmp(reply, "$-1", 3))
		die("%s:%d holds no key0", opt.host, opt.port);
	if (reply[0] != '$')
		die("%s:%d answers: %.*s", opt.host, opt.port, (int)(end - reply), reply);
	size_t total = end + 4 - reply + strtoul(reply + 1, NULL, 10);
	return length < total ? 0 : total;
}

static const struct protocol {
	const char *name;
	size_t (*reply)(const char *reply, size_t length);
} protocols[] = {{"memcached", memcached_reply}, {"http", http_reply}, {"redis", redis_reply}};

/* One request, waited for: the server's event loop has seen the connection and its NAPI id. Sets what is known of
 * replies. */
static void greet(int fd)
{
	static char reply[1 << 20];
	size_t length = 0;
	if (send(fd, block, request_length, MSG_NOSIGNAL) != (ssize_t)request_length)
		die("cannot send to %s:%d: %s", opt.host, opt.port, strerror(errno));
	do {
		ssize_t n = recv(fd, reply + length, sizeof reply - 1 - length, 0);
		if (n <= 0)
			die("no answer from %s:%d: %s", opt.host, opt.port, n ? strerror(errno) : "it closed the connection");
		length += n;
		reply[length] = 0;
		reply_length = opt.protocol->reply(reply, length);
	} while (!reply_length);
	if (reply_length != length)
		die("%s:%d sent more than one answer", opt.host, opt.port);
	reply_first = reply[0];
	reply_last = reply[length - 1];
}

/* A new socket for the connection; connect() is the caller's. */
static void open_socket(struct connection *c, int flags)
{
	struct timeval patience = {.tv_sec = 5}, longer = {.tv_sec = 20};
	int fd = c->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | flags, 0), one = 1, usecs = 1;
	if (fd < 0)
		die("cannot open a socket: %s", strerror(errno));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &longer, sizeof longer); /* bounds connect() too */
	if (!opt.sleeps && (setsockopt(fd, SOL_SOCKET, SO_BUSY_POLL, &usecs, sizeof usecs) ||
			    setsockopt(fd, SOL_SOCKET, SO_PREFER_BUSY_POLL, &one, sizeof one)))
		die("cannot poll its own device (CAP_NET_ADMIN, Linux 5.11): %s", strerror(errno));
	c->may_send = c->awaited = opt.reconnect;
}

static void watch(struct connection *c)
{
	struct epoll_event event = {.events = c->before < 0 ? EPOLLIN : EPOLLIN | EPOLLOUT, .data.ptr = c};
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &event))
		die("epoll_ctl: %s", strerror(errno));
}

/*
 * All requests of this connection are answered: go on with a new one. It is not waited for: until it is there, sends and
 * receives say EAGAIN, and what is due waits, which its latency shows.
 * The old one stays until that is connected, and no longer, as each takes a descriptor, and a place of the server's. It polls
 * the device: all may be opened anew at once, and what nobody polls waits for the deferral timer and for a NAPI thread, which has
 * to get the CPU that is kept busy here. (Before commit 58e2330bd455, Linux 7.1, it may have waited for ever: the timer could
 * expire within the last busy poll, and was not started again.)
 */
static void reopen(struct connection *c)
{
	leave_before(c);
	c->before = c->fd;
	epoll_ctl(epoll, EPOLL_CTL_DEL, c->before, NULL);
	if (opt.sleeps)
		leave_before(c);
	open_socket(c, SOCK_NONBLOCK);
	if (connect(c->fd, (struct sockaddr *)&server, sizeof server) && errno != EINPROGRESS)
		die("cannot connect to %s:%d again: %s", opt.host, opt.port, strerror(errno));
	watch(c);
}

static void connect_all(void)
{
	server = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(opt.port)};
	if (inet_pton(AF_INET, opt.host, &server.sin_addr) != 1)
		die("%s is not an IPv4 address", opt.host);
	conns = calloc(opt.connections, sizeof *conns);
	for (int i = 0; i < opt.connections; i++) {
		struct connection *c = &conns[i];
		c->before = -1;
		open_socket(c, 0);
		if (connect(c->fd, (struct sockaddr *)&server, sizeof server))
			die("cannot connect to %s:%d: %s", opt.host, opt.port, strerror(errno));
		c->size = 64;
		c->times = malloc(c->size * sizeof *c->times);
		greet(c->fd);
		watch(c);
	}
}

static void prepare_block(void)
{
	char *request = malloc(128 + 16 * (size_t)opt.keys), *end = request;
	if (opt.protocol->reply == http_reply)
		end += sprintf(end, "GET /key0 HTTP/1.1\r\nHost: %.15s:%d\r\n\r\n", opt.host, opt.port);
	else if (opt.protocol->reply == redis_reply)
		end += sprintf(end, "*2\r\n$3\r\nGET\r\n$4\r\nkey0\r\n");
	else {
		end += sprintf(end, "get");
		for (int i = 0; i < opt.keys; i++)
			end += sprintf(end, " key%d", i);
		end += sprintf(end, "\r\n");
	}
	request_length = end - request;
	block = malloc(BATCH * request_length);
	for (int i = 0; i < BATCH; i++)
		memcpy(block + i * request_length, request, request_length);
}

/* A connection that is opened anew has two for a moment, as it may happen to all at once. */
static void allow_descriptors(void)
{
	struct rlimit limit;
	if (!getrlimit(RLIMIT_NOFILE, &limit)) {
		limit.rlim_cur = limit.rlim_max;
		setrlimit(RLIMIT_NOFILE, &limit);
	}
}

static double cpu_seconds(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	return u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
}

static bool resting(void) { return !opt.rate && !opt.closed; }

/* Until the next arrival. At rest: evenly through the warm-up, so that each of the server's event loops has passed once
 * through whatever was changed about it meanwhile, before the silence that is measured. */
static double gap_ns(void)
{
	return opt.closed ? INFINITY : opt.rate ? exponential_ns() : opt.warmup * SECOND / (4 * opt.connections);
}

/* Queue and send what is due by `now`; `next` is the first request that is not. Returns whether anything was. */
static bool send_due(double *next, int64_t now)
{
	static unsigned turn;
	bool due = false;
	double end = resting() ? from - gap_ns() / 2 : until;
	for (; *next <= now && *next < end; *next += gap_ns()) {
		enqueue(&conns[(resting() ? turn++ : random64()) % opt.connections], *next);
		due = true;
		if (*next >= from) {
			sent++;
			late += now - *next > LATE_NS;
		}
	}
	for (int i = 0; i < opt.connections; i++)
		flush_requests(&conns[i]);
	return due;
}

/* Take what has come, or wait up to `wait_ns` for something. Returns whether anything came. */
static bool receive_ready(int64_t wait_ns)
{
	static unsigned turn;
	struct epoll_event events[64];
	/* In turn: they may be on several NAPI instances. */
	bool any = !opt.sleeps && receive(&conns[turn++ % opt.connections]);
	struct timespec wait = {any ? 0 : wait_ns / SECOND, any ? 0 : wait_ns % SECOND};
	int n = epoll_pwait2(epoll, events, 64, &wait, NULL);
	for (int i = 0; i < n; i++) {
		if (events[i].events & EPOLLOUT)
			connected(events[i].data.ptr);
		any |= receive(events[i].data.ptr);
	}
	return any;
}

/* How long to sleep before the next request is due, at `next`, or the time is over, at `end`. */
static int64_t nap_ns(double next, double end, int64_t now)
{
	return opt.sleeps ? fmin(fmax(fmin(next, end) - now, NAP_NS), LONG_NAP_NS) : 0;
}

/* Make the load until the end, then wait for outstanding answers. Returns the time spent in fruitless passes. */
static int64_t make_load(double *cpu)
{
	int64_t idle = 0, start = now_ns(), pass = start;
	double next = start + gap_ns();
	from = start + opt.warmup * SECOND;
	until = from + opt.seconds * SECOND;
	for (int i = 0; i < opt.connections * opt.closed; i++) {
		enqueue(&conns[i % opt.connections], start);
		sent += start >= from; /* without a warm-up they belong to the measured part */
	}
	while (pass < from && !stop) {
		send_due(&next, pass);
		receive_ready(nap_ns(next, from, pass));
		pass = now_ns();
	}
	*cpu = cpu_seconds();
	if (!stop)
		fprintf(stderr, "measuring\n");
	while (pass < until && !stop) {
		bool busy = send_due(&next, pass);
		busy |= receive_ready(resting() ? until - pass : nap_ns(next, until, pass));
		int64_t now = now_ns();
		idle += busy ? 0 : now - pass;
		pass = now;
	}
	*cpu = cpu_seconds() - *cpu;
	until = pass < until ? pass : until; /* stopped early */
	from = from < until ? from : until;
	send_due(&next, until); /* what fell due since the last pass */
	for (int64_t limit = pass + opt.drain * SECOND; outstanding && pass < limit; pass = now_ns()) {
		send_due(&next, pass); /* what the sockets did not take before */
		receive_ready(nap_ns(limit, limit, pass));
	}
	return idle;
}

static void report(uint64_t seed, int64_t idle, double cpu)
{
	double seconds = (until - from) / 1e9, scale = seconds > 0 ? 1 / seconds : 0;
	const char *comma = "";
	printf("{\"seed\":%" PRIu64 ",\"seconds\":%.6f,\"asked_per_second\":%.3f,\"achieved_per_second\":%.3f,",
	       seed, seconds, opt.rate, throughput * scale);
	printf("\"sent\":%" PRIu64 ",\"answered\":%" PRIu64 ",\"unanswered\":%" PRIu64 ",", sent, answered, sent - answered);
	printf("\"late_share\":%.6f,\"cpu_share\":%.4f,\"busy_share\":%.4f,\"histogram\":[",
	       sent ? (double)late / sent : 0, cpu * scale, seconds > 0 ? fmax(0, 1 - idle / 1e9 * scale) : 0);
	for (unsigned b = 0; b < BUCKETS; b++)
		if (histogram[b]) {
			printf("%s[%.3f,%" PRIu64 "]", comma, upper_us(b), histogram[b]);
			comma = ",";
		}
	printf("]}\n");
}

static const struct protocol *protocol_named(const char *name)
{
	for (size_t i = 0; i < sizeof protocols / sizeof *protocols; i++)
		if (!strcmp(protocols[i].name, name))
			return &protocols[i];
	die("it speaks memcached, http and redis, not %s", name);
}

static void read_options(int argc, char **argv)
{
	static const struct option options[] = {
		{"host", 1, 0, 'h'}, {"port", 1, 0, 'p'}, {"rate", 1, 0, 'r'}, {"seconds", 1, 0, 's'},
		{"warmup", 1, 0, 'w'}, {"drain", 1, 0, 'd'}, {"connections", 1, 0, 'c'}, {"keys", 1, 0, 'k'},
		{"closed", 1, 0, 'C'}, {"seed", 1, 0, 'S'}, {"protocol", 1, 0, 'P'}, {"reconnect", 1, 0, 'R'},
		{"sleeps", 1, 0, 'n'}, {0}};
	opt.protocol = &protocols[0];
	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
		switch (o) {
		case 'h': opt.host = optarg; break;
		case 'p': opt.port = atoi(optarg); break;
		case 'r': opt.rate = atof(optarg); break;
		case 's': opt.seconds = atof(optarg); break;
		case 'w': opt.warmup = atof(optarg); break;
		case 'd': opt.drain = atof(optarg); break;
		case 'c': opt.connections = atoi(optarg); break;
		case 'k': opt.keys = atoi(optarg); break;
		case 'C': opt.closed = atoi(optarg); break;
		case 'S': opt.seed = strtoull(optarg, NULL, 10); break;
		case 'P': opt.protocol = protocol_named(optarg); break;
		case 'R': opt.reconnect = atoi(optarg); break;
		case 'n': opt.sleeps = atoi(optarg); break;
		default: exit(2);
		}
	/* Written so that NaN is out of range as well. */
	if (!(opt.rate >= 0 && opt.rate <= 1e7 && opt.seconds > 0 && opt.seconds <= 86400 && opt.warmup >= 0 &&
	      opt.warmup <= 3600 && opt.drain >= 0 && opt.drain <= 3600 && opt.keys >= 1 && opt.keys <= 100 &&
	      opt.closed >= 0 && opt.closed <= 1024 && opt.connections >= 1 && opt.connections <= 4096 &&
	      opt.reconnect >= 0))
		die("an option is out of range");
	if (opt.keys > 1 && opt.protocol->reply != memcached_reply)
		die("only memcached is asked for several keys at once");
}

int main(int argc, char **argv)
{
	struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: a signal ends a wait */
	double cpu;
	read_options(argc, argv);
	uint64_t seed = opt.seed;
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	allow_descriptors();
	epoll = epoll_create1(EPOLL_CLOEXEC);
	prepare_block();
	connect_all();
	int64_t idle = make_load(&cpu);
	report(seed, idle, cpu);
	return 0;
}
