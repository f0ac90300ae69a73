"""Rules about packets that are lost, and softirqs that could not finish."""

from collections.abc import Iterator, Mapping
from shlex import quote

from napctl.doctor.facts import LINK, MOST_NAMED, NETDEV, SOFTNET, Rule, cpu_names, no_queue_counts
from napctl.model.counts import DeviceCounts
from napctl.model.finding import Checkup, Evidence, Finding
from napctl.model.units import percent

__all__ = ["RULES"]


LEAST_DROPS = 10
"""In a window. A lost packet or two in a burst harm nobody: TCP sends them again."""
LEAST_SQUEEZES = 10
"""In a window."""
SQUEEZED_SHARE = 0.01
"""Of the network softirqs. Below 1 % a squeeze is a burst, and work goes on in the next softirq."""
SCALING_UP = "Documentation/admin-guide/sysctl/net.rst"


def time_squeezes(seen: Checkup) -> Iterator[Finding]:
    """Network softirqs that ran out of budget or time with packets left."""
    squeezed = {cpu.cpu: cpu.time_squeezes for cpu in seen.window.cpus if cpu.time_squeezes}
    squeezes = sum(squeezed.values())
    softirqs = sum(cpu.net_rx_softirqs or 0 for cpu in seen.window.cpus if cpu.cpu in squeezed)
    if squeezes < LEAST_SQUEEZES or squeezes < SQUEEZED_SHARE * softirqs:
        return
    share = f"{percent(squeezes / softirqs)} of" if softirqs else f"{squeezes:,}"
    yield Finding(
        rule="time-squeezes",
        severity="cost",
        where=f"CPU {cpu_names(squeezed)}",
        title=f"{share} network softirqs on CPU {cpu_names(squeezed)} ran out of budget or time",
        evidence=tuple(_by_cpu(squeezed, "time squeezes")),
        consequence="What is left waits for the next softirq or for ksoftirqd, which competes with the applications: "
        "latency in bursts.",
        remedy="If applications may wait: allow a softirq more packets and more time. If not: more queues on other "
        "CPUs, or IRQ suspension.",
        commands=(
            "sysctl net.core.netdev_budget net.core.netdev_budget_usecs",
            _doubled("net.core.netdev_budget"),
            _doubled("net.core.netdev_budget_usecs"),
        ),
        certainty="certain",
        basis=f"net_rx_action() in net/core/dev.c; {SCALING_UP}, netdev_budget",
    )


def backlog_drops(seen: Checkup) -> Iterator[Finding]:
    """Packets lost because the backlog of a CPU was full: RPS, loopback and software devices go through it."""
    dropped = {cpu.cpu: cpu.backlog_drops for cpu in seen.window.cpus if cpu.backlog_drops}
    drops = sum(dropped.values())
    if drops < LEAST_DROPS:
        return
    yield Finding(
        rule="backlog-drops",
        severity="danger",
        where=f"CPU {cpu_names(dropped)}",
        title=f"{drops:,} packets were dropped because the backlog of CPU {cpu_names(dropped)} was full",
        evidence=tuple(_by_cpu(dropped, "drops")),
        consequence="TCP sends them again and slows down; everything else loses them.",
        remedy="A longer backlog for bursts; if it stays full, spread its packets over more CPUs (RPS, more queues).",
        commands=("sysctl net.core.netdev_max_backlog", _doubled("net.core.netdev_max_backlog")),
        certainty="certain",
        basis=f"enqueue_to_backlog() in net/core/dev.c; {SCALING_UP}, netdev_max_backlog",
    )


def _by_cpu(counts: Mapping[int, int], what: str) -> Iterator[Evidence]:
    """The CPUs that have most, and the sum of the others."""
    most = sorted(counts.items(), key=lambda pair: -pair[1])
    for cpu, count in most[:MOST_NAMED]:
        yield Evidence(text=f"{count:,} {what} on CPU {cpu}", source=SOFTNET)
    if others := most[MOST_NAMED:]:
        yield Evidence(text=f"{sum(count for _, count in others):,} on {len(others)} other CPUs", source=SOFTNET)


def _doubled(name: str) -> str:
    """A command that never lowers what somebody has raised already."""
    return f"sysctl -w {name}=$((2 * $(sysctl -n {name})))"


def ring_drops(seen: Checkup) -> Iterator[Finding]:
    """Packets that the NIC dropped: no free descriptor, or no memory for a new one."""
    devices = {device.ifindex: device for device in seen.machine.devices}
    for counts in seen.window.devices:
        device = devices.get(counts.ifindex)
        evidence = tuple(_ring_evidence(counts))
        if device is None or not evidence:
            continue
        remedy = "No longer ring is known to be possible: take its packets sooner (more queues, less delay)."
        commands: tuple[str, ...] = ()
        rings = device.rings
        if rings is not None and rings.rx and rings.rx_max and rings.rx < rings.rx_max:
            remedy = f"A longer RX ring for bursts ({rings.rx:,} now, {rings.rx_max:,} at most); it resets the link."
            commands = (f"ethtool -G {quote(device.name)} rx {min(2 * rings.rx, rings.rx_max)}",)
        most = max((counts.rx_missed or 0, _queue_sum(counts, "hw_drops"), _queue_sum(counts, "alloc_fail")))
        yield Finding(
            rule="ring-drops",
            severity="danger",
            where=counts.device,
            title=f"{counts.device} dropped {most:,} packets for want of RX buffers",
            evidence=evidence,
            consequence="TCP sends them again and slows down; everything else loses them.",
            remedy=remedy,
            commands=commands,
            certainty="certain",
            basis="Documentation/networking/statistics.rst, rx_missed_errors; Documentation/netlink/specs/netdev.yaml, "
            "qstats",
        )


def _ring_evidence(counts: DeviceCounts) -> Iterator[Evidence]:
    """The counters that say so. A NIC may count the same loss in several: they are not added up."""
    if (missed := counts.rx_missed or 0) >= LEAST_DROPS:
        yield Evidence(text=f"{missed:,} packets found no free RX descriptor (rx_missed_errors)", source=LINK)
    if (drops := _queue_sum(counts, "hw_drops")) >= LEAST_DROPS:
        yield Evidence(text=f"{drops:,} packets dropped by its queues (hw-drops)", source=NETDEV)
    if (fails := _queue_sum(counts, "alloc_fail")) >= LEAST_DROPS:
        yield Evidence(text=f"{fails:,} times no memory for a buffer (alloc-fail)", source=NETDEV)


def _queue_sum(counts: DeviceCounts, name: str) -> int:
    return sum(getattr(queue, name) or 0 for queue in counts.queues or () if queue.kind == "rx")


RULES = (
    Rule("ring-drops", ring_drops, (no_queue_counts,)),
    Rule("backlog-drops", backlog_drops),
    Rule("time-squeezes", time_squeezes),
)
