"""Overload: a CPU that packets take from the threads that want it, and packets that are dropped after work on them.

A drop in the ring costs nothing: the packet was never touched. One at a full socket or backlog has cost all of the
stack's work, so the more packets come, the less is left for those that are served (receive livelock: J. Mogul and
K. Ramakrishnan, 1997).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Literal, get_args

from napctl.model.counters import grown, grown_u32
from napctl.model.value import Value

__all__ = [
    "LATE_KINDS",
    "LATE_PER_SECOND",
    "LEVELS",
    "PACKETS_TAKE",
    "CpuCounters",
    "CpuLoad",
    "DropReading",
    "LateDrops",
    "Level",
    "LoadReading",
    "NamespaceDrops",
    "OverloadedCpu",
    "PacketLoad",
    "PacketThread",
    "late_words",
    "load_between",
    "overloaded",
    "overloaded_words",
]


SHORTEST_SECONDS = 0.2
"""Times of a CPU are told in steps of 10 ms: of a shorter span no share is told."""
PACKETS_TAKE = 0.9
"""Share of a CPU's time from which packet work leaves too little to those that it is for."""
FOR_NOTHING = 0.1
"""Share of the packets of all CPUs, dropped late, from which half of a CPU in packet work is too much already. Of all,
as nobody tells on which CPU a packet was dropped: what a slow reader loses is little beside what the machine takes.

Softirqs rarely show as 90 %: between them ksoftirqd shares the CPU with the threads, and the tick, whose samples tell
their time, is itself what begins many of them."""
HALF = 0.5
THREADS_WAIT = 0.5
"""Share of the time that threads wait: one that wants a tenth of a CPU and gets it waits for less."""
NO_IDLE = 0.05
"""A CPU that is idle for longer has given its threads what they wanted; less may be gaps in a flood, and the 10 ms."""
LATE_PER_SECOND = 100.0
"""Late drops: fewer are a burst, or one slow reader."""


class CpuCounters(Value, frozen=True, kw_only=True):
    """One CPU since boot. Times in s, in steps of 10 ms; None: this kernel does not tell."""

    cpu: int
    system: float
    """In the kernel, for threads: NAPI threads are among them, softirqs are not."""
    idle: float
    softirq: float | None
    """Of all kinds, wherever they run: on top of a thread, or in ksoftirqd."""
    steal: float | None
    net_rx_ns: int | None = None
    """In NET_RX softirqs alone, by the clock; None: no probe counts it."""
    waited_ns: int | None
    """Time that threads stood in its run queue, each for itself (run_delay in /proc/schedstat)."""
    packets: int | None
    """That it has taken, from whatever device, or from another CPU's (first column of /proc/net/softnet_stat)."""
    backlog_drops: int | None
    """As in CpuCounts."""


class PacketThread(Value, frozen=True, kw_only=True):
    """A NAPI thread."""

    pid: int
    name: str
    """For example "napi/eth0-8193"."""
    cpu: int | None
    """On which it ran last; None: that was long ago."""
    ran_ns: int
    waited_ns: int
    """In a run queue."""


class LateDrops(Value, frozen=True, kw_only=True):
    """Packets of a network namespace that were dropped after the stack had worked on them. None: not told."""

    udp_buffer: int | None = None
    """The socket's receive buffer was full, or UDP's memory used up (RcvbufErrors, MemErrors)."""
    udp_no_port: int | None = None
    """Nobody listens there (NoPorts)."""
    tcp_backlog: int | None = None
    """A thread held the socket, and its backlog was full (TCPBacklogDrop)."""
    tcp_buffer: int | None = None
    """The receive queue was full (TCPRcvQDrop)."""
    listen: int | None = None
    """Connections that a listener had no place for (ListenDrops, which counts ListenOverflows as well)."""


LATE_KINDS = LateDrops.__struct_fields__


class DropReading(Value, frozen=True, kw_only=True):
    """Drops of one network namespace since it was made."""

    netns: int
    late: LateDrops
    ring: dict[str, int]
    """By device: packets for which it found no free descriptor (rx_missed_errors); missing: it does not tell."""


class LoadReading(Value, frozen=True, kw_only=True):
    """All that a PacketLoad is made of, at one moment."""

    monotonic_ns: int
    cpus: tuple[CpuCounters, ...]
    threads: tuple[PacketThread, ...] | None
    """None: they cannot be seen from here."""
    drops: tuple[DropReading, ...]
    lacks: tuple[str, ...] = ()


class CpuLoad(Value, frozen=True, kw_only=True):
    """One CPU between two readings. Shares of the time that the hypervisor gave it, 0 … 1; None: not known."""

    cpu: int
    packet_share: float | None
    """In softirqs and NAPI threads."""
    idle_share: float | None
    waited_share: float | None
    """Of the time, at least one other thread stood in its run queue; 1 where several did so for longer in sum."""
    packets_per_second: float | None
    backlog_drops_per_second: float | None


class NamespaceDrops(Value, frozen=True, kw_only=True):
    """Drops of one network namespace, per second."""

    netns: int
    late: dict[str, float]
    """By kind (a field of LateDrops); one that is not known is missing."""
    ring: dict[str, float]
    """By device."""


class PacketLoad(Value, frozen=True, kw_only=True):
    """What packets took of each CPU, and what was dropped."""

    seconds: float
    cpus: tuple[CpuLoad, ...]
    """Those that were online all the time."""
    drops: tuple[NamespaceDrops, ...]
    lacks: tuple[str, ...] = ()
    """What cannot be told, and why."""

    @property
    def late_drops_per_second(self) -> float | None:
        """In all these namespaces, and at the backlogs of all CPUs; None: nothing of it is known."""
        told = [rate for each in self.drops for rate in each.late.values()]
        told += [cpu.backlog_drops_per_second for cpu in self.cpus if cpu.backlog_drops_per_second is not None]
        return sum(told) if told else None

    @property
    def packets_per_second(self) -> float | None:
        """Of all CPUs; None: none of them is known."""
        told = [cpu.packets_per_second for cpu in self.cpus if cpu.packets_per_second is not None]
        return sum(told) if told else None

    @property
    def ring_drops_per_second(self) -> float | None:
        """Of all devices that tell."""
        told = [rate for each in self.drops for rate in each.ring.values()]
        return sum(told) if told else None


Level = Literal["crowded", "overloaded"]
LEVELS: tuple[Level, ...] = get_args(Level)


class OverloadedCpu(Value, frozen=True, kw_only=True):
    """A CPU that packets take from its threads."""

    cpu: int
    level: Level
    """`crowded`: packets take it, threads wait, and no packet is known to be lost but in a ring. `overloaded`: some
    are dropped after the stack has worked on them, too, so that more load means less service. If they are a tenth of
    all packets, half of the CPU in packet work is enough for that."""
    packet_share: float
    waited_share: float | None
    """None: not known here; known is then that it was never idle."""
    late_drops_per_second: float | None
    """Of the whole machine as far as it is looked at: these drops are not counted by CPU."""
    ring_drops_per_second: float | None
    packets_per_second: float | None = None
    """That this CPU took."""


def load_between(before: LoadReading, after: LoadReading) -> PacketLoad:
    """What happened between two readings. A counter that fell or vanished is a gap, and never 0."""
    seconds = (after.monotonic_ns - before.monotonic_ns) / 1e9
    if seconds < SHORTEST_SECONDS:
        short = f"what packets take of the CPUs: {SHORTEST_SECONDS} s are the shortest time of which that can be told"
        return PacketLoad(seconds=max(0.0, seconds), cpus=(), drops=(), lacks=(short,))
    then = {each.cpu: each for each in before.cpus}
    threads = None
    if before.threads is not None and after.threads is not None:
        threads = _by_cpu(before.threads, after.threads)
    return PacketLoad(
        seconds=seconds,
        cpus=tuple(_cpu(then[each.cpu], each, threads, seconds) for each in after.cpus if each.cpu in then),
        drops=tuple(_drops(before.drops, after.drops, seconds)),
        lacks=after.lacks,
    )


def overloaded(load: PacketLoad, packets_take: float = PACKETS_TAKE) -> tuple[OverloadedCpu, ...]:
    """The CPUs that packets take from their threads, the most loaded first. `packets_take`: share of a CPU's time that
    is too much whatever is dropped.

    Where nobody tells how long threads wait, it has to do that the CPU was never idle: whatever packets left was taken.
    """
    found = [
        OverloadedCpu(
            cpu=each.cpu,
            level=level,
            packet_share=each.packet_share,
            waited_share=each.waited_share,
            late_drops_per_second=load.late_drops_per_second,
            ring_drops_per_second=load.ring_drops_per_second,
            packets_per_second=each.packets_per_second,
        )
        for each in load.cpus
        if each.packet_share is not None and (level := _level(each, each.packet_share, load, packets_take))
    ]
    return tuple(sorted(found, key=lambda each: -each.packet_share))


def _level(cpu: CpuLoad, packet_share: float, load: PacketLoad, packets_take: float) -> Level | None:
    if not _threads_want_it(cpu):
        return None
    late, packets = load.late_drops_per_second, load.packets_per_second
    drops_late = late is not None and late >= LATE_PER_SECOND
    if packet_share >= packets_take:
        return "overloaded" if drops_late else "crowded"
    many = late is not None and packets is not None and late >= FOR_NOTHING * packets
    return "overloaded" if packet_share >= HALF and drops_late and many else None


def _threads_want_it(cpu: CpuLoad) -> bool:
    if cpu.idle_share is not None and cpu.idle_share > NO_IDLE:
        return False
    return cpu.idle_share is not None if cpu.waited_share is None else cpu.waited_share >= THREADS_WAIT


def overloaded_words(found: OverloadedCpu) -> str:
    """For example "CPU 1 overloaded: packets take 97 %, threads waited 85 % of the time, …"."""
    parts = [f"packets take {_percent(found.packet_share)}"]
    if found.waited_share is None:
        parts.append(f"threads get {_percent(1 - found.packet_share)}")
    else:
        parts.append(f"threads waited {_percent(found.waited_share)} of the time")
    if found.level == "overloaded":
        parts.append(f"{found.late_drops_per_second:,.0f}/s dropped after the stack worked on them")
    if found.ring_drops_per_second:
        parts.append(f"{found.ring_drops_per_second:,.0f}/s dropped in the ring, before it")
    return f"CPU {found.cpu} {found.level}: {', '.join(parts)}"


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


Threads = Mapping[int, tuple[int, int] | None]
"""By CPU: what its NAPI threads ran and waited, ns; None: one of them came or went meanwhile."""


def _by_cpu(before: Iterable[PacketThread], after: Iterable[PacketThread]) -> Threads:
    then, now = ({(each.pid, each.name): each for each in threads} for threads in (before, after))
    found: dict[int, tuple[int, int] | None] = {}
    for key in then.keys() | now.keys():
        was, here = then.get(key), now.get(key)
        cpu = here.cpu if here else was.cpu if was else None
        if cpu is None:
            continue  # it has not run
        ran = grown(was.ran_ns, here.ran_ns) if was and here else None
        waited = grown(was.waited_ns, here.waited_ns) if was and here else None
        sums = found.get(cpu, (0, 0))
        found[cpu] = None if ran is None or waited is None or sums is None else (sums[0] + ran, sums[1] + waited)
    return found


def _cpu(was: CpuCounters, now: CpuCounters, threads: Threads | None, seconds: float) -> CpuLoad:
    stolen = grown(was.steal, now.steal) or 0.0
    given = max(seconds - stolen, 1e-9)
    own = (0, 0) if threads is None else threads.get(now.cpu, (0, 0))
    softirq, system, idle = _softirq(was, now), grown(was.system, now.system), grown(was.idle, now.idle)
    waited = grown(was.waited_ns, now.waited_ns)
    packets = None
    if softirq is not None and own is not None:
        # What a NAPI thread ran holds the softirqs on top of it, which are in `softirq` already; `system` holds none.
        packets = _share(softirq + min(own[0] / 1e9, own[0] / 1e9 if system is None else system), given)
    packets_taken = grown_u32(was.packets, now.packets, seconds)
    drops = grown_u32(was.backlog_drops, now.backlog_drops, seconds)
    return CpuLoad(
        cpu=now.cpu,
        packet_share=packets,
        idle_share=None if idle is None else _share(idle, given),
        waited_share=None if waited is None or own is None else _share((waited - own[1]) / 1e9, seconds),
        packets_per_second=None if packets_taken is None else packets_taken / seconds,
        backlog_drops_per_second=None if drops is None else drops / seconds,
    )


def _softirq(was: CpuCounters, now: CpuCounters) -> float | None:
    """What is told of it, s: the tick has samples of all softirqs, the probe the time of those of the network."""
    exact = grown(was.net_rx_ns, now.net_rx_ns)
    told = (grown(was.softirq, now.softirq), None if exact is None else exact / 1e9)
    return max((each for each in told if each is not None), default=None)


def _share(part: float, whole: float) -> float:
    return min(1.0, max(0.0, part / whole))


def _drops(before: Iterable[DropReading], after: Iterable[DropReading], seconds: float) -> Iterator[NamespaceDrops]:
    then = {each.netns: each for each in before}
    for now in after:
        if now.netns in then:
            was = then[now.netns]
            late = {kind: grown(getattr(was.late, kind), getattr(now.late, kind)) for kind in LATE_KINDS}
            ring = {device: grown(was.ring.get(device), count) for device, count in now.ring.items()}
            yield NamespaceDrops(netns=now.netns, late=_rates(late, seconds), ring=_rates(ring, seconds))


def _rates(counts: Mapping[str, int | None], seconds: float) -> dict[str, float]:
    return {name: count / seconds for name, count in counts.items() if count is not None}


LATE_WORDS = {
    "udp_buffer": "at UDP sockets that were full",
    "udp_no_port": "for UDP ports where nobody listens",
    "tcp_backlog": "at backlogs of TCP sockets",
    "tcp_buffer": "at TCP sockets that were full",
    "listen": "at listeners that were full",
    "backlog": "at backlogs of CPUs",
}


def late_words(load: PacketLoad) -> list[str]:
    """Late drops by kind, most first: "12,000/s at UDP sockets that were full"."""
    rates = {kind: sum(each.late.get(kind, 0.0) for each in load.drops) for kind in LATE_KINDS}
    rates["backlog"] = sum(cpu.backlog_drops_per_second or 0.0 for cpu in load.cpus)
    most = sorted(rates.items(), key=lambda pair: -pair[1])
    return [f"{rate:,.0f}/s {LATE_WORDS[kind]}" for kind, rate in most if rate >= 1]
