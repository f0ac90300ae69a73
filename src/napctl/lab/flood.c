/*
 * flood: sends UDP packets, or opens TCP connections, at a fixed rate, whatever comes back, and counts the answers. It
 * ends by itself.
 *
 * What it could not send in time it leaves out, and says how much that was: it never makes up for it by a burst.
 *
 * With --device and --mac it makes the frames itself and hands them to that device, past the stack and its queueing
 * disciplines: a packet costs it a third of what sendmmsg(2) on a UDP socket does.
 *
 * With --source too, these are TCP connections from addresses of that /16, which are to be nobody's and routed here. Of
 * each it sends a SYN, its request with the ACK, and a reset once it is answered. What is to be sent is told by the
 * packet that came, so what was lost is sent again when the server asks for it again; a SYN is never sent twice.
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
#include <netinet/tcp.h>
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

#define die(...) (fprintf(stderr, "flood: " __VA_ARGS__), fputc('\n', stderr), exit(1))
#define SECOND 1000000000LL
#define BATCH 64
#define LATE_NS 5000000		/* what should have been sent that long ago is left out */
#define DRAIN_NS 200000000	/* how long answers are waited for at the end */
#define PAUSE_NS 20000		/* between two looks at what is due: some packets together, far fewer than a ring holds */
#define MOST_TENTHS 6000
#define FIRST_PORT 1024
#define PORTS 60000		/* of each address */
#define ADDRESSES 65000
#define REQUEST_BYTES 16

static struct {
	const char *host, *device, *mac, *source;
	int port, size;
	double rate, seconds;
} opt = {.host = "127.0.0.1", .size = 64};

static int fd, out_fd; /* answers come by the first */
static volatile sig_atomic_t stop;
static struct mmsghdr out[BATCH], in[BATCH];
static uint64_t sent, left_out, answered, tenths[MOST_TENTHS];
static int64_t start;
static struct sockaddr_in to;

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

struct segment {
	struct ether_header ether;
	struct iphdr ip;
	struct tcphdr tcp;
	char payload[REQUEST_BYTES];
} __attribute__((packed));

static uint32_t sum_of(const void *data, size_t bytes)
{
	const uint8_t *each = data;
	uint32_t sum = 0;
	for (; bytes > 1; bytes -= 2, each += 2) {
		uint16_t word;
		memcpy(&word, each, 2);
		sum += word;
	}
	return sum;
}

static uint16_t folded(uint32_t sum)
{
	sum = (sum & 0xffff) + (sum >> 16);
	return ~(sum + (sum >> 16));
}

static struct ether_header ether_to_server(const struct ifreq *device)
{
	struct ether_header ether = {.ether_type = htons(ETHERTYPE_IP)};
	uint8_t *mac = ether.ether_dhost;
	if (!opt.mac || sscanf(opt.mac, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", mac, mac + 1, mac + 2, mac + 3, mac + 4, mac + 5) != 6)
		die("%s is not a MAC address", opt.mac ? opt.mac : "nothing");
	memcpy(ether.ether_shost, device->ifr_hwaddr.sa_data, ETH_ALEN);
	return ether;
}

static struct iphdr ip_to_server(int protocol, uint32_t from, size_t bytes)
{
	struct iphdr ip = {.version = 4, .ihl = 5, .ttl = 64, .protocol = protocol, .frag_off = htons(IP_DF),
			   .tot_len = htons(sizeof ip + bytes), .saddr = from, .daddr = to.sin_addr.s_addr};
	ip.check = folded(sum_of(&ip, sizeof ip));
	return ip;
}

/* As the UDP socket, which is connected, would send it; without a checksum of UDP, which IPv4 does not need. */
static void make_frame(struct frame *frame, const struct ifreq *device)
{
	struct sockaddr_in from;
	socklen_t length = sizeof from;
	if (connect(fd, (const struct sockaddr *)&to, sizeof to) || getsockname(fd, (struct sockaddr *)&from, &length))
		die("cannot reach %s: %s", opt.host, strerror(errno));
	frame->ether = ether_to_server(device);
	frame->ip = ip_to_server(IPPROTO_UDP, from.sin_addr.s_addr, sizeof frame->udp + opt.size);
	frame->udp = (struct udphdr){.uh_sport = from.sin_port, .uh_dport = to.sin_port,
				     .uh_ulen = htons(sizeof frame->udp + opt.size)};
}

/* TCP connections. Each has a number, by which its address, its port and its first sequence number are known. */

static struct segment segments[BATCH];
static struct iovec of_segments[BATCH];
static struct ether_header ether;
static uint32_t source, first_address; /* others in each run: the server may still hold connections of the last */
static uint8_t *was_answered;

static uint32_t first_sequence(uint32_t number)
{
	return number * 2654435761u;
}

static void make_segment(int slot, uint32_t number, uint32_t offset, uint32_t ack, int flags, size_t bytes)
{
	struct segment *it = &segments[slot];
	uint32_t address = source + 1 + (first_address + number / PORTS) % ADDRESSES;
	it->ether = ether;
	it->ip = ip_to_server(IPPROTO_TCP, htonl(address), sizeof it->tcp + bytes);
	it->tcp = (struct tcphdr){.th_sport = htons(FIRST_PORT + number % PORTS), .th_dport = to.sin_port, .th_off = 5,
				  .th_seq = htonl(first_sequence(number) + offset), .th_ack = htonl(ack),
				  .th_flags = flags, .th_win = htons(65535)};
	uint32_t sum = sum_of(&it->ip.saddr, 8) + htons(IPPROTO_TCP) + htons(sizeof it->tcp + bytes);
	it->tcp.th_sum = folded(sum + sum_of(&it->tcp, sizeof it->tcp + bytes));
	of_segments[slot] = (struct iovec){it, offsetof(struct segment, payload) + bytes};
}

/* Of a packet of the server; false: of somebody else, or of another run. */
static bool number_of(const struct segment *it, size_t bytes, uint32_t *number)
{
	if (bytes < offsetof(struct segment, payload) || it->ip.protocol != IPPROTO_TCP || it->ip.ihl != 5 ||
	    it->ip.saddr != to.sin_addr.s_addr || it->tcp.th_sport != to.sin_port || ntohs(it->tcp.th_dport) < FIRST_PORT)
		return false;
	uint32_t address = ntohl(it->ip.daddr) - source - 1;
	if (address >= ADDRESSES)
		return false;
	uint64_t found = (address + ADDRESSES - first_address) % ADDRESSES;
	found = found * PORTS + ntohs(it->tcp.th_dport) - FIRST_PORT;
	*number = found;
	return found < sent;
}

/* Make the reply to what the server sent, if it needs one; whether that was its first answer on this connection. */
static bool reply_to(const struct segment *it, size_t bytes, int *replies)
{
	uint32_t number, next = ntohl(it->tcp.th_seq) + 1;
	if (!number_of(it, bytes, &number) || it->tcp.th_flags & TH_RST)
		return false;
	if (it->tcp.th_flags & TH_SYN) {
		make_segment((*replies)++, number, 1, next, TH_ACK | TH_PUSH, REQUEST_BYTES);
		return false;
	}
	bool has_data = ntohs(it->ip.tot_len) > sizeof it->ip + 4 * it->tcp.th_off;
	bool is_first = has_data && !was_answered[number];
	if (has_data || it->tcp.th_flags & TH_FIN)
		make_segment((*replies)++, number, 1 + REQUEST_BYTES, 0, TH_RST, 0);
	was_answered[number] |= has_data;
	return is_first;
}

static void send_replies(int count)
{
	for (int i = 0; i < count; i++)
		out[i].msg_hdr = (struct msghdr){.msg_iov = &of_segments[i], .msg_iovlen = 1};
	for (int done = 0; done < count;) {
		int n = sendmmsg(out_fd, out + done, count - done, 0);
		done += n > 0 ? n : 1; /* the ring was full */
	}
}

static void prepare_connections(const struct ifreq *device)
{
	struct in_addr address;
	if (inet_pton(AF_INET, opt.source, &address) != 1)
		die("%s is not an IPv4 address", opt.source);
	source = ntohl(address.s_addr);
	ether = ether_to_server(device);
	first_address = now_ns() % ADDRESSES;
	was_answered = calloc(opt.rate * opt.seconds + BATCH, 1);
	if (!was_answered)
		die("out of memory");
}

/* A socket that hands frames to the device, and takes those of a protocol, if any, from it. */
static int open_device(struct ifreq *device, int protocol)
{
	int packets = socket(AF_PACKET, SOCK_RAW | SOCK_NONBLOCK | SOCK_CLOEXEC, 0), one = 1, bytes = 8 << 20;
	struct sockaddr_ll at = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(opt.device),
				 .sll_protocol = htons(protocol)};
	strncpy(device->ifr_name, opt.device, IFNAMSIZ - 1);
	if (packets < 0 || bind(packets, (struct sockaddr *)&at, sizeof at) || ioctl(packets, SIOCGIFHWADDR, device))
		die("cannot send by %s: %s", opt.device, strerror(errno));
	setsockopt(packets, SOL_PACKET, PACKET_QDISC_BYPASS, &one, sizeof one);
	setsockopt(packets, SOL_SOCKET, SO_SNDBUFFORCE, &bytes, sizeof bytes);
	setsockopt(packets, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes);
	return packets;
}

static void prepare(void)
{
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
		out_fd = open_device(&device, opt.source ? ETH_P_IP : 0);
		if (opt.source)
			prepare_connections(&device);
		else
			make_frame(&frame, &device);
		sent_as = (struct iovec){&frame, offsetof(struct frame, payload) + opt.size};
		sent_to = (struct msghdr){.msg_iovlen = 1};
	}
	if (opt.source) { /* answers are frames, too */
		close(fd);
		fd = out_fd;
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
	int count = due - done < BATCH ? due - done : BATCH;
	for (int i = 0; opt.source && i < count; i++) {
		make_segment(i, sent + i, 0, 0, TH_SYN, 0);
		out[i].msg_hdr = (struct msghdr){.msg_iov = &of_segments[i], .msg_iovlen = 1};
	}
	int n = sendmmsg(out_fd, out, count, 0);
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
	int answers = opt.source ? 0 : n, replies = 0;
	for (int i = 0; opt.source && i < n; i++)
		answers += reply_to(in[i].msg_hdr.msg_iov->iov_base, in[i].msg_len, &replies);
	send_replies(replies);
	answered += answers;
	if (tenth < MOST_TENTHS)
		tenths[tenth] += answers;
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
						{"device", 1, 0, 'd'}, {"mac", 1, 0, 'm'},
						{"source", 1, 0, 'f'}, {0}};
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
		case 'f': opt.source = optarg; break;
		default: exit(2);
		}
	/* Written so that NaN is out of range as well. */
	if (!(opt.rate > 0 && opt.rate <= 1e7 && opt.seconds > 0 && opt.seconds <= 600 && opt.size >= 1 && opt.size <= 1472))
		die("an option is out of range");
	if (opt.source && !opt.device)
		die("connections need a device");
	sigaction(SIGTERM, &action, NULL);
	prctl(PR_SET_TIMERSLACK, 1);
	prepare();
	flood();
	report();
	return 0;
}
