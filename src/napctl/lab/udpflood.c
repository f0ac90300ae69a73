/*
 * udpflood: sends UDP packets at a fixed rate, whatever comes back, and counts the answers. It ends by itself.
 *
 * What it could not send in time it leaves out, and says how much that was: it never makes up for it by a burst.
 *
 * With --device and --mac it makes the frames itself and hands them to that device, past the stack and its queueing
 * disciplines: a packet costs it a third of what sendmmsg(2) on a UDP socket does.
 *
 * stdout: one JSON object at the end. stderr: "sending" when it begins, or one line saying what went wrong.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <getopt.h>
#include <inttypes.h>
#include <linux/if_packet.h>
#include <net/ethernet.h>
#include <net/if.h>
#include <netinet/ip.h>
#include <netinet/udp.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define die(...) (fprintf(stderr, "udpflood: " __VA_ARGS__), fputc('\n', stderr), exit(1))
#define SECOND 1000000000LL
#define BATCH 64
#define LATE_NS 5000000		/* what should have been sent that long ago is left out */
#define DRAIN_NS 200000000	/* how long answers are waited for at the end */
#define PAUSE_NS 20000		/* between two looks at what is due: some packets together, far fewer than a ring holds */
#define MOST_TENTHS 6000

static struct {
	const char *host, *device, *mac;
	int port, size;
	double rate, seconds;
} opt = {.host = "127.0.0.1", .size = 64};

static int fd, out_fd; /* answers come by the first */
static volatile sig_atomic_t stop;
static struct mmsghdr out[BATCH], in[BATCH];
static uint64_t sent, left_out, answered, tenths[MOST_TENTHS];
static int64_t start;

static void on_signal(int number)
{
	(void)number;
	stop = 1;
}

static int64_t now_ns(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * SECOND + t.tv_nsec;
}

struct frame {
	struct ether_header ether;
	struct iphdr ip;
	struct udphdr udp;
	char payload[1472];
} __attribute__((packed));

static uint16_t header_sum(const struct iphdr *ip)
{
	const uint16_t *words = (const void *)ip;
	uint32_t sum = 0;
	for (unsigned i = 0; i < sizeof *ip / 2; i++)
		sum += words[i];
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

/* As the UDP socket, which is connected, would send it; without a checksum of UDP, which IPv4 does not need. */
static void make_frame(struct frame *frame, const struct sockaddr_in *to, const struct ifreq *device)
{
	struct sockaddr_in from;
	socklen_t length = sizeof from;
	uint8_t *mac = frame->ether.ether_dhost;
	if (connect(fd, (const struct sockaddr *)to, sizeof *to) || getsockname(fd, (struct sockaddr *)&from, &length))
		die("cannot reach %s: %s", opt.host, strerror(errno));
	if (!opt.mac || sscanf(opt.mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6)
		die("%s is not a MAC address", opt.mac ? opt.mac : "nothing");
	memcpy(frame->ether.ether_shost, device->ifr_hwaddr.sa_data, ETH_ALEN);
	frame->ether.ether_type = htons(ETHERTYPE_IP);
	frame->ip = (struct iphdr){.version = 4, .ihl = 5, .ttl = 64, .protocol = IPPROTO_UDP, .frag_off = htons(IP_DF),
				   .tot_len = htons(sizeof frame->ip + sizeof frame->udp + opt.size),
				   .saddr = from.sin_addr.s_addr, .daddr = to->sin_addr.s_addr};
	frame->ip.check = header_sum(&frame->ip);
	frame->udp = (struct udphdr){.uh_sport = from.sin_port, .uh_dport = to->sin_port,
				     .uh_ulen = htons(sizeof frame->udp + opt.size)};
}

/* A socket that hands frames to the device. */
static int open_device(struct ifreq *device)
{
	int packets = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1, bytes = 8 << 20;
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(opt.device)};
	strncpy(device->ifr_name, opt.device, IFNAMSIZ - 1);
	if (packets < 0 || bind(packets, (struct sockaddr *)&at, sizeof at) || ioctl(packets, SIOCGIFHWADDR, device))
		die("cannot send by %s: %s", opt.device, strerror(errno));
	setsockopt(packets, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one);
	setsockopt(packets, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
	return packets;
}

static void prepare(void)
{
	static struct sockaddr_in to;
	static struct iovec payload[BATCH], room[BATCH];
	static struct frame frame;
	static char rooms[BATCH][2048];
	int one = 1, bytes = 8 << 20;
	to = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(opt.port)};
	if (inet_pton(AF_INET, opt.host, &to.sin_addr) != 1)
		die("%s is not an IPv4 address", opt.host);
	fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (fd < 0)
		die("cannot open a socket: %s", strerror(errno));
	setsockopt(fd, SOL_SOCKET, SO_BROADCAST, &one, sizeof one);
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes)) /* no answer is lost here */
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes);
	struct iovec sent_as = {frame.payload, opt.size};
	struct msghdr sent_to = {.msg_name = &to, .msg_namelen = sizeof to, .msg_iovlen = 1};
	out_fd = fd;
	if (opt.device) {
		struct ifreq device = {0};
		out_fd = open_device(&device);
		make_frame(&frame, &to, &device);
		sent_as = (struct iovec){&frame, offsetof(struct frame, payload) + opt.size};
		sent_to = (struct msghdr){.msg_iovlen = 1};
	}
	for (int i = 0; i < BATCH; i++) {
		payload[i] = sent_as;
		room[i] = (struct iovec){rooms[i], sizeof rooms[i]};
		out[i].msg_hdr = sent_to;
		out[i].msg_hdr.msg_iov = &payload[i];
		in[i].msg_hdr = (struct msghdr){.msg_iov = &room[i], .msg_iovlen = 1};
	}
}

/* Send what is due; whether there may be more. */
static bool send_due(int64_t now)
{
	uint64_t due = opt.rate * (now - start) / 1e9, done = sent + left_out;
	uint64_t most = opt.rate * LATE_NS / 1e9 + BATCH;
	if (due <= done)
		return false;
	if (due - done > most) {
		left_out += due - done - most;
		done = due - most;
	}
	int n = sendmmsg(out_fd, out, due - done < BATCH ? due - done : BATCH, 0);
	if (n < 0 && errno == ENOBUFS && opt.device)
		n = 1; /* the device dropped it, as the ring behind it was full: it was offered all the same */
	if (n > 0)
		sent += n;
	else if (errno != EAGAIN && errno != ENOBUFS && errno != ECONNREFUSED)
		die("sending to %s:%d: %s", opt.host, opt.port, strerror(errno));
	else
		left_out++;
	return due > sent + left_out;
}

static bool receive(int64_t now)
{
	int n = recvmmsg(fd, in, BATCH, 0, NULL);
	if (n <= 0)
		return false;
	int64_t tenth = (now - start) / (SECOND / 10);
	answered += n;
	if (tenth < MOST_TENTHS)
		tenths[tenth] += n;
	return n == BATCH;
}

static void flood(void)
{
	const struct timespec pause = {0, PAUSE_NS};
	int64_t now = start = now_ns(), end = start + opt.seconds * SECOND;
	fprintf(stderr, "sending\n");
	for (; now < end + DRAIN_NS; now = now_ns()) {
		bool more = now < end && !stop && send_due(now);
		more |= receive(now);
		if (stop && now < end)
			end = now;
		if (!more)
			nanosleep(&pause, NULL);
	}
	opt.seconds = (end - start) / 1e9;
}

static void report(void)
{
	struct rusage u;
	getrusage(RUSAGE_SELF, &u);
	double cpu = u.ru_utime.tv_sec + u.ru_stime.tv_sec + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e6;
	int64_t count = opt.seconds * 10;
	double share = opt.seconds > 0 ? cpu / opt.seconds : 0; // ended before it began: no time, and no share of it
	printf("{\"seconds\":%.6f,\"asked_per_second\":%.3f,\"sent\":%" PRIu64 ",\"left_out\":%" PRIu64, opt.seconds,
	       opt.rate, sent, left_out);
	printf(",\"answered\":%" PRIu64 ",\"cpu_share\":%.4f,\"answered_by_tenth\":[", answered, share);
	for (int64_t i = 0; i < count && i < MOST_TENTHS; i++)
		printf("%s%" PRIu64, i ? "," : "", tenths[i]);
	printf("]}\n");
}

int main(int argc, char **argv)
{
	static const struct option options[] = {{"host", 1, 0, 'h'}, {"port", 1, 0, 'p'}, {"rate", 1, 0, 'r'},
						{"seconds", 1, 0, 's'}, {"size", 1, 0, 'b'},
						{"device", 1, 0, 'd'}, {"mac", 1, 0, 'm'}, {0}};
	struct sigaction action = {.sa_handler = on_signal};
	for (int o; (o = getopt_long(argc, argv, "", options, NULL)) != -1;)
		switch (o) {
		case 'h': opt.host = optarg; break;
		case 'p': opt.port = atoi(optarg); break;
		case 'r': opt.rate = atof(optarg); break;
		case 's': opt.seconds = atof(optarg); break;
		case 'b': opt.size = atoi(optarg); break;
		case 'd': opt.device = optarg; break;
		case 'm': opt.mac = optarg; break;
		default: exit(2);
		}
	/* Written so that NaN is out of range as well. */
	if (!(opt.rate > 0 && opt.rate <= 1e7 && opt.seconds > 0 && opt.seconds <= 600 && opt.size >= 1 && opt.size <= 1472))
		die("an option is out of range");
	sigaction(SIGTERM, &action, NULL);
	prctl(PR_SET_TIMERSLACK, 1);
	prepare();
	flood();
	report();
	return 0;
}
