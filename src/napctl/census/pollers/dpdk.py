"""DPDK: by its libraries, its memory, and its telemetry socket; which also tells packets, and what of 100 % is work.

Looks for librte_*.so in the mappings (programs that are linked statically have none), memory that DPDK has mapped
(`rtemap_*` in a hugepage file system, `memfd:nohuge`: lib/eal/linux/eal_memory.c, eal_memalloc.c), a listener named
dpdk_telemetry.v2 (https://doc.dpdk.org/guides/howto/telemetry.html), and threads named as lib/eal/linux/eal.c does:
lcore-worker-1, since 22.11 rte-worker-1, since 23.11 dpdk-worker1.

Cycles: /eal/lcore/usage, else /eal/lcore/info (DPDK 23.03, commit 26e7d2e5c7e4), where the program registers them.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

import msgspec

from napctl.census.pollers import bus_devices
from napctl.census.pollers.detection import MOST_COUNT, Detected, Statement
from napctl.census.pollers.spinning import Spin
from napctl.census.pollers.suspects import Suspect, library
from napctl.census.pollers.telemetry import Conversation, Unanswered, dpdk_conversation
from napctl.model.text import printable

__all__ = ["Telemetry", "detect", "open_telemetry"]


TELEMETRY = re.compile(r"/dpdk_telemetry\.v2(:\d+)?$")
WORKER = re.compile(r"^(?:dpdk-worker|rte-worker-|lcore-worker-|lcore-slave-)(\d+)$")
STARTED = re.compile(r"rtemap_|nohuge|hugepage")
"""Any of its memory, also anonymous hugepages (--in-memory), which others have as well."""
MEMORY = re.compile(r"(^|/)rtemap_\d+( \(deleted\))?$|^/memfd:nohuge")
INTERFACE = re.compile(r"^(net_\w+),(?:.*,)?iface=([^,]+)")
"""Of --vdev: https://doc.dpdk.org/guides/nics/af_packet.html, af_xdp.html."""
SHORT = re.compile(r"^rx_.*(?:miss|drop|discard|no_?m?buf|nombuf|no_dma|no_desc|out_of_buffer|overflow|exhaust|alloc)")
"""Of extended statistics: rx_missed_errors, rx_mbuf_allocation_errors, rx_out_of_buffer (mlx5), rx_q0_drop_total
(vmxnet3)."""
MOST_PORTS, MOST_CORES = 64, 128
MOST_SOCKETS = 4
"""Of one process, that are asked: each that hangs takes its time."""
USAGE, INFO = "/eal/lcore/usage", "/eal/lcore/info"
REMEDY = (
    "Let it sleep when nothing comes: RX interrupts (rte_eth_dev_rx_intr_enable, as l3fwd-power --interrupt-only "
    "shows) or power management (rte_power_ethdev_pmgmt_queue_enable), if the program has an option for either."
)
Count = Annotated[int, msgspec.Meta(ge=0, le=MOST_COUNT)]


class Usage(msgspec.Struct, frozen=True):
    """/eal/lcore/usage: of the cores whose program tells."""

    lcore_ids: list[Count] = []
    total_cycles: list[Count] = []
    busy_cycles: list[Count] = []


class Core(msgspec.Struct, frozen=True):
    """/eal/lcore/info,N."""

    lcore_id: Count
    total_cycles: Count | None = None
    busy_cycles: Count | None = None


class PortStatistics(msgspec.Struct, frozen=True):
    """/ethdev/stats,N."""

    ipackets: Count
    opackets: Count
    imissed: Count | None = None
    """For which the queues were full."""
    rx_nombuf: Count | None = None
    """For which there was no memory."""

    @property
    def lost(self) -> int | None:
        """Both; None: it tells one of them not."""
        return None if self.imissed is None or self.rx_nombuf is None else self.imissed + self.rx_nombuf


class PortInfo(msgspec.Struct, frozen=True):
    """/ethdev/info,N."""

    name: str


@dataclass(frozen=True)
class Port:
    """A port: its name, and the device behind it, if it is one."""

    name: str
    device: str | None
    copies: bool = False
    """An af_packet port gets copies of what the kernel takes."""
    includes: bool = False
    """The device's counters count what the port brings: an af_xdp port, whose packets the driver has counted."""
    of_kernel: bool = True


@dataclass
class Telemetry:
    """The account of a program whose telemetry answers."""

    path: str
    """As it sees it."""
    pid: int
    version: str
    ports: tuple[Port, ...]
    main: str | None
    """The lcore of the first thread; None: not known."""
    source: str = f"DPDK telemetry {USAGE}"

    def read(self) -> Statement:
        """Its ports' packets, and its cores' cycles."""
        try:
            with dpdk_conversation(self.path, self.pid) as talk:
                ports = _all_port_numbers(talk)
                statistics = [talk.ask(f"/ethdev/stats,{port}", PortStatistics) for port in ports[:MOST_PORTS]]
                cycles, self.source = _cycles(talk)
                short = _short(talk, ports[:MOST_PORTS])
        except Unanswered as why:
            return Statement(troubles=(f"DPDK telemetry: {why}",))
        told = [each for each in statistics if each is not None]
        if not told or len(told) < len(ports):  # a sum of some would be too low
            return Statement(cycles=cycles)
        return Statement(
            received=sum(each.ipackets for each in told),
            sent=sum(each.opackets for each in told),
            lost=_sum(each.lost for each in told),
            short=short,
            cycles=cycles,
        )

    def key(self, thread: Spin, pid: int) -> str | None:
        """A worker's lcore by its name; the main lcore is the first thread's."""
        if thread.tid == pid:
            return self.main
        named = WORKER.match(thread.name)
        return named[1] if named else None


def detect(suspect: Suspect) -> Detected | None:
    """DPDK, whatever stands on it: the ways that know more look first."""
    evidence, account, troubles = _signs(suspect)
    if not evidence:
        return None
    addresses = bus_devices.drivers_devices(suspect.names)
    ports = account.ports if account is not None else ()
    devices = tuple(dict.fromkeys([port.device for port in ports if port.device] + [*addresses]))
    return Detected(
        kind="DPDK",
        evidence=evidence,
        devices=devices,
        account=account,
        idle="" if _started(suspect) or devices or suspect.trouble else "it has none of DPDK's memory and no telemetry",
        copies=any(port.copies for port in ports),
        counts_include_port=any(port.includes for port in ports),
        of_kernel=any(port.of_kernel for port in ports if port.device) or not devices,
        remedy=REMEDY,
        troubles=troubles,
    )


def _started(suspect: Suspect) -> bool:
    """Whether it is more than linked with DPDK: rte_eal_init() was called."""
    return any(map(STARTED.search, suspect.mapped)) or any(map(TELEMETRY.search, suspect.listens))


def _signs(suspect: Suspect) -> tuple[tuple[str, ...], Telemetry | None, tuple[str, ...]]:
    """What shows that it is DPDK, best first; its telemetry, and why that does not answer."""
    account, evidence, troubles = telemetry_of(suspect)
    if eal := library(suspect, "librte_eal.so"):
        evidence += (f"{printable(eal)} in its maps",)
    elif other := library(suspect, "librte_"):
        evidence += (f"{printable(other)} in its maps",)
    if memory := sorted(name for name in suspect.mapped if MEMORY.search(name)):
        evidence += (f"DPDK's memory in its maps ({printable(memory[0])})",)
    if workers := sorted(name for name in suspect.threads if WORKER.match(name)):
        evidence += (f"a thread named {workers[0]}",) if evidence else ()
    return evidence, account, troubles


def telemetry_of(suspect: Suspect) -> tuple[Telemetry | None, tuple[str, ...], tuple[str, ...]]:
    """Its telemetry, the evidence that this is, and why one that is there does not answer."""
    troubles: list[str] = []
    paths = sorted(path for path in suspect.listens if TELEMETRY.search(path))
    for path in paths[:MOST_SOCKETS]:
        try:
            found = open_telemetry(path, suspect.process.pid, suspect.threads)
        except Unanswered as why:
            troubles.append(f"{printable(path)}: {why}")
            continue
        return found, (f"{printable(path)} answers: {found.version}",), ()
    if troubles:
        return None, (f"{printable(paths[0])} is its telemetry",), tuple(troubles)
    return None, (), ()


def open_telemetry(path: str, pid: int, threads: Collection[str]) -> Telemetry:
    """Ask who it is and what ports it has. Raises Unanswered."""
    workers = {int(found[1]) for name in threads if (found := WORKER.match(name))}
    with dpdk_conversation(path, pid) as talk:
        arguments = talk.ask("/eal/params", list[str]) or []
        ports = tuple(_port(talk, number, _interfaces(arguments)) for number in _port_numbers(talk))
        others = set(talk.ask("/eal/lcore/list", list[Count]) or []) - workers
        return Telemetry(
            path=path,
            pid=pid,
            version=printable(talk.greeting.version),
            ports=ports,
            main=str(others.pop()) if len(others) == 1 else None,
        )


def _short(talk: Conversation, ports: Sequence[int]) -> int | None:
    """Of /ethdev/xstats: whatever drivers call what they could not hand over; 0 where they have none of it. None: they
    do not answer. It comes last, and is worth no other answer: there may be hundreds, for which a NIC has to be asked.
    """
    try:
        told = [talk.ask(f"/ethdev/xstats,{port}", dict[str, Count]) for port in ports]
    except Unanswered:
        return None
    return _sum(None if each is None else _short_of(each) for each in told)


def _short_of(statistics: Mapping[str, int]) -> int:
    return sum(count for name, count in statistics.items() if SHORT.search(name))


def _sum(counts: Iterable[int | None]) -> int | None:
    """None: one of them is not known, and a sum of the others would be too low."""
    known = list(counts)
    return None if None in known else sum(each for each in known if each is not None)


def _port_numbers(talk: Conversation) -> list[int]:
    return _all_port_numbers(talk)[:MOST_PORTS]


def _all_port_numbers(talk: Conversation) -> list[int]:
    return talk.ask("/ethdev/list", list[Count]) or []


def _interfaces(arguments: list[str]) -> dict[str, str]:
    """{port: network device} of --vdev."""
    return {found[1]: found[2] for each in arguments if (found := INTERFACE.match(each.removeprefix("--vdev=")))}


def _port(talk: Conversation, number: int, interfaces: Mapping[str, str]) -> Port:
    info = talk.ask(f"/ethdev/info,{number}", PortInfo)
    name = info.name if info is not None else str(number)
    if name in interfaces:
        return Port(
            name=name,
            device=interfaces[name],
            copies=name.startswith(("net_af_packet", "net_pcap")),
            includes=name.startswith("net_af_xdp"),
        )
    address = name.removeprefix("pci:")
    if kernel := bus_devices.network_devices(address):
        return Port(name=name, device=kernel[0])
    on_bus = re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]", address) is not None
    return Port(name=name, device=address if on_bus else None, of_kernel=False)


def _cycles(talk: Conversation) -> tuple[dict[str, tuple[int, int]], str]:
    """{lcore: (busy, all)}, and where that is from; nothing where it does not tell."""
    if (usage := talk.ask(USAGE, Usage)) is not None:
        if not len(usage.lcore_ids) == len(usage.total_cycles) == len(usage.busy_cycles):
            raise Unanswered(f"{USAGE} has lists of different lengths")
        rows = zip(usage.lcore_ids, usage.busy_cycles, usage.total_cycles, strict=True)
        return {str(core): (busy, total) for core, busy, total in rows if total}, f"DPDK telemetry {USAGE}"
    found = {}
    for number in (talk.ask("/eal/lcore/list", list[Count]) or [])[:MOST_CORES]:
        core = talk.ask(f"{INFO},{number}", Core)
        if core is not None and core.total_cycles and core.busy_cycles is not None:
            found[str(core.lcore_id)] = (core.busy_cycles, core.total_cycles)
    return found, f"DPDK telemetry {INFO}"
