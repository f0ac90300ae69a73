"""CPU time of a span by kind: each share from the most exact source there is, and which one that was. Pure."""

from collections.abc import Collection
from dataclasses import dataclass

from napctl.kernel.machine_stat import CpuSeconds, MachineStat
from napctl.model.counters import grown
from napctl.model.cpus import cpus_text
from napctl.model.window import Window

__all__ = [
    "ACCOUNTED",
    "HANDLERS",
    "PROBE",
    "SCHEDULER",
    "SPLIT",
    "STEAL",
    "TICKS",
    "CpuReading",
    "Ran",
    "busy_seconds",
    "counted",
    "cpu_shares",
]


IDLE_CLOCK = "idle clock (/proc/stat)"
SCHEDULER = "scheduler (schedstat)"
PROBE = "probe (BPF)"
TICKS = "tick samples, unless the kernel accounts by the clock (/proc/stat)"
"""What runs between two ticks is missed: too little where timers drive the work. Which kernels do better, and on which
CPUs, depends on how they were built and booted."""
SPLIT = f"{SCHEDULER}, split by tick samples that are scaled to its sum (/proc/PID/stat)"
ACCOUNTED = "the kernel's interrupt time (/proc/stat)"
HANDLERS = f"handlers of devices' interrupts: {PROBE}"
STEAL = "steal clock, if the hypervisor has one (/proc/stat)"
FEWEST_SECONDS = 0.2
"""CPU time of the server in a span: 20 steps of /proc/PID/stat. Of less, its split would be a guess."""

Shares = tuple[dict[str, float], dict[str, str]]
"""Metrics, and where each comes from."""


@dataclass(frozen=True)
class Ran:
    """CPU time of a process since its start, s."""

    seconds: float
    """By the scheduler."""
    user: float
    system: float


@dataclass(frozen=True)
class CpuReading:
    """CPU time until now."""

    at: float
    """s."""
    stat: MachineStat
    server: dict[int, Ran] | None
    """By pid; those that are gone are missing. None: there is no server."""
    threads: dict[int, float]
    """The NAPI threads' CPU time by pid, by the scheduler, s."""


def counted(before: CpuReading, after: CpuReading, cpus: Collection[int] = ()) -> frozenset[int]:
    """Of these CPUs those that were online at both ends: only of them a share is known. If there are none, of all."""
    both = before.stat.by_cpu.keys() & after.stat.by_cpu.keys()
    return frozenset(both & set(cpus) or both)


def cpu_shares(before: CpuReading, after: CpuReading, cpus: frozenset[int], window: Window) -> Shares:
    """All shares (napctl.model.metrics says of what each is one). `cpus`: those that count, at least one."""
    seconds = after.at - before.at
    parts = (
        _machine(before, after, cpus, window),
        _server(before.server, after.server, seconds),
        _threads(before.threads, after.threads, seconds),
    )
    metrics = {name: value for found, _ in parts for name, value in found.items()}
    return metrics, {name: source for _, sources in parts for name, source in sources.items()}


def busy_seconds(before: CpuReading, after: CpuReading, cpus: Collection[int]) -> float:
    """What is not idle is busy, whatever runs between two ticks."""
    idle = sum(after.stat.by_cpu[cpu].idle - before.stat.by_cpu[cpu].idle for cpu in cpus)
    return max(0.0, len(cpus) * (after.at - before.at) - idle)


def _machine(before: CpuReading, after: CpuReading, cpus: frozenset[int], window: Window) -> Shares:
    """Shares of the CPUs that count."""
    whole = len(cpus) * (after.at - before.at)
    busy = busy_seconds(before, after, cpus)
    which = "all CPUs" if cpus == after.stat.by_cpu.keys() else f"CPU {cpus_text(cpus)}"
    told: list[tuple[str, float | None, str]] = [
        ("cpu_share", busy, IDLE_CLOCK),
        ("user_share", _column(before, after, cpus, "user"), TICKS),
        ("system_share", _column(before, after, cpus, "system"), TICKS),
        ("steal_share", _column(before, after, cpus, "steal"), STEAL),
    ]
    softirq = _probed(window, "net_rx_softirq_ns", cpus)
    if softirq is not None:
        told.append(("softirq_share", softirq * whole, f"NET_RX: {PROBE}"))
    else:
        told.append(("softirq_share", _column(before, after, cpus, "softirq"), f"all softirqs: {TICKS}"))
    handlers = _probed(window, "interrupt_ns", cpus)
    if handlers is not None:
        told.append(("irq_share", handlers * whole, HANDLERS))
    else:
        told.append(("irq_share", _column(before, after, cpus, "irq"), ACCOUNTED))
    metrics = {name: min(1.0, max(0.0, value / whole)) for name, value, _ in told if value is not None}
    sources = {name: f"{source}, {which}" for name, value, source in told if value is not None}
    if softirq is not None and busy:
        threads = sum(_grown(before.threads, after.threads).values())
        metrics["network_cpu_share"] = min(1.0, (softirq * whole + threads) / busy)
        sources["network_cpu_share"] = f"NET_RX softirqs: {PROBE}, {which}; NAPI threads: {SCHEDULER}"
    return metrics, sources


def _column(before: CpuReading, after: CpuReading, cpus: Collection[int], name: str) -> float | None:
    """Seconds in that column of /proc/stat. None: not told, not at the beginning yet, or set back."""
    total = 0.0
    for cpu in cpus:
        seconds = grown(*(_of(each.stat.by_cpu[cpu], name) for each in (before, after)))
        if seconds is None:
            return None
        total += seconds
    return total


def _of(cpu: CpuSeconds, name: str) -> float | None:
    value: float | None = getattr(cpu, name)
    return value


def _probed(window: Window, field: str, cpus: Collection[int]) -> float | None:
    """Share of these CPUs' time in a field of the probe, ns; None where no probe counted."""
    values = [getattr(cpu, field) for cpu in window.cpus if cpu.cpu in cpus]
    return None if None in values or not values else sum(values) / 1e9 / (window.seconds * len(cpus))


def _server(before: dict[int, Ran] | None, after: dict[int, Ran] | None, seconds: float) -> Shares:
    """Shares of one CPU; user and system add up to the whole. What a process ran that ended in between is not known."""
    if before is None or after is None:
        return {}, {}
    pairs = [(before[pid], now) for pid, now in after.items() if pid in before]
    ran = [grown(then.seconds, now.seconds) for then, now in pairs]
    if None in ran:  # it is the sum over its threads, of which some have ended
        return {}, {}
    metrics, sources = {"server_cpu_share": sum(filter(None, ran)) / seconds}, {"server_cpu_share": SCHEDULER}
    user = sum(max(0.0, now.user - then.user) for then, now in pairs)
    system = sum(max(0.0, now.system - then.system) for then, now in pairs)
    if user + system >= FEWEST_SECONDS:
        for name, part in (("server_user_share", user), ("server_system_share", system)):
            metrics[name] = metrics["server_cpu_share"] * part / (user + system)
            sources[name] = SPLIT
    return metrics, sources


def _threads(before: dict[int, float], after: dict[int, float], seconds: float) -> Shares:
    """Share of one CPU."""
    if not after:
        return {}, {}
    share = sum(_grown(before, after).values()) / seconds
    return {"napi_thread_share": share}, {"napi_thread_share": SCHEDULER}


def _grown(before: dict[int, float], after: dict[int, float]) -> dict[int, float]:
    """By pid; a thread that is new began at 0. One that has another's number by now ran no longer than since then."""
    told = {pid: grown(before.get(pid, 0.0), now) for pid, now in after.items()}
    return {pid: after[pid] if seconds is None else seconds for pid, seconds in told.items()}
