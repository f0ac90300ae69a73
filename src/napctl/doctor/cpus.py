"""Rules about CPUs: which of them take the packets, and who else wants them."""

from collections import defaultdict
from collections.abc import Iterator
from itertools import cycle
from shlex import quote

from napctl.doctor.facts import (
    BUSY_PACKETS_PER_SECOND,
    NAPI_DOC,
    PROBE,
    PROC_STAT,
    SCHEDSTAT,
    Rule,
    application_on,
    busy,
    cpu_busy,
    cpu_names,
    napi_name,
    no_irqs,
    no_napis,
    no_probe,
    no_traffic,
    single_cpu,
)
from napctl.model.finding import Checkup, Evidence, Finding
from napctl.model.machine import Device, Napi
from napctl.model.text import each
from napctl.model.units import percent
from napctl.model.window import NapiWindow

__all__ = ["RULES"]


CROWDED = 0.75
"""Busy share of a CPU from which sharing it hurts: at 75 % work waits three times its own length on average (M/M/1)."""
SATURATED = 0.95
"""Nothing is left for bursts."""
IDLE = 0.5
"""A CPU that is less busy can take a queue's packets."""
APPLICATION_CPU = 0.3
"""Of one CPU: a thread that uses less is not what fills the CPU."""
OWN_POLLS = 0.1
"""Share of polls from which an application polls its queue itself: then the interrupt belongs on its CPU."""
IRQBALANCE = "irqbalance"
LIVELOCK = "J. Mogul and K. Ramakrishnan, Eliminating receive livelock in an interrupt-driven kernel (1997)"
SCALING = "Documentation/networking/scaling.rst, Suggested Configuration"

Place = tuple[Device, Napi, NapiWindow]


def several_queues_on_one_cpu(seen: Checkup) -> Iterator[Finding]:
    """Busy queues share a CPU that has little left, while another CPU serves none."""
    by_cpu: dict[int, list[Place]] = defaultdict(list)
    for device, napi, row in _busy(seen):
        cpu = single_cpu(napi)
        if cpu is not None and not _polled_by_application(row):
            by_cpu[cpu].append((device, napi, row))
    free = [use.cpu for use in seen.cpus if use.cpu not in by_cpu and use.busy_share <= IDLE]
    for cpu, places in sorted(by_cpu.items()):
        share = cpu_busy(seen, cpu)
        if len(places) < 2 or not free or share is None or share < CROWDED:
            continue
        moved = places[1:]
        yield Finding(
            rule="several-queues-on-one-cpu",
            severity="cost",
            where=f"CPU {cpu}",
            title=f"{len(places)} busy queues share CPU {cpu}, which is {percent(share)} busy",
            evidence=(
                *(_taken(place, seen) for place in places),
                Evidence(
                    text=f"CPU {cpu} {percent(share)} busy; room and no busy queue on CPU {cpu_names(free)}",
                    source=PROC_STAT,
                ),
            ),
            consequence="The queues wait for each other, and so do the applications there.",
            remedy="One CPU for each busy queue.",
            commands=tuple(_move(napi, free[n % len(free)]) for n, (_, napi, _) in enumerate(moved)),
            certainty="certain",
            basis=SCALING,
        )


def interrupt_on_application_cpu(seen: Checkup) -> Iterator[Finding]:
    """A queue's packets are taken on the full CPU of the application that they are for, while another CPU is idle.

    The same CPU is right while there is room (warm caches, no wake-up from afar), and for an application that polls
    its queue itself: then there is no interrupt to speak of.
    """
    idle = [use.cpu for use in seen.cpus if use.busy_share <= IDLE]
    others = cycle(idle)  # each interrupt to another one
    for device, napi, row in _busy(seen):
        cpu = single_cpu(napi)
        share = None if cpu is None else cpu_busy(seen, cpu)
        if cpu is None or share is None or share < SATURATED or not idle or _polled_by_application(row):
            continue
        for process, thread in application_on(seen, napi, cpu, APPLICATION_CPU):
            other = next(others)
            yield Finding(
                rule="interrupt-on-application-cpu",
                severity="cost",
                where=napi_name(device, napi.napi_id),
                title=f"packets for {process.name} ({process.pid}) are taken on its own full CPU {cpu}, while CPU "
                f"{cpu_names(idle)} {'is' if len(idle) == 1 else 'are'} idle",
                evidence=(
                    Evidence(text=f"CPU {cpu} {percent(share)} busy, CPU {other} "
                             f"{percent(cpu_busy(seen, other) or 0)}", source=PROC_STAT),
                    Evidence(text=f"its thread {thread.tid} used {percent(thread.cpu_share)} of CPU {cpu}",
                             source=SCHEDSTAT),
                    _taken((device, napi, row), seen),
                ),
                consequence="Packet work takes its CPU away when it needs all of it.",
                remedy="Give the application its polls (`attach`: no interrupts under load), or move the interrupt to "
                "an idle CPU, best to one that shares its cache (lscpu --extended).",
                commands=(f"napctl attach {process.pid}", _move(napi, other)),
                certainty="likely",
                basis=f"{NAPI_DOC}, IRQ mitigation; {SCALING}",
            )  # fmt: skip


def more_busy_queues_than_cpus(seen: Checkup) -> Iterator[Finding]:
    """More busy queues than CPUs, all of these full: packet work can crowd out the work that it is for."""
    places = [place for place in _busy(seen) if not _polled_by_application(place[2])]
    full = bool(seen.cpus) and sum(use.busy_share for use in seen.cpus) >= SATURATED * len(seen.cpus)
    if len(places) <= len(seen.cpus) or not full:
        return
    by_device: dict[str, int] = defaultdict(int)
    for device, _, _ in places:
        by_device[device.name] += 1
    where = each(by_device)
    yield Finding(
        rule="more-busy-queues-than-cpus",
        severity="risk",
        where=where,
        title=f"{len(places)} queues are busy on {len(seen.cpus)} CPUs, which have nothing left",
        evidence=(
            Evidence(text=f"{len(places)} NAPI instances with {BUSY_PACKETS_PER_SECOND:,} packets a second or more: "
                     f"{each(f'{count} of {name}' for name, count in by_device.items())}", source=PROBE),
            Evidence(text=f"the least busy CPU {percent(min(use.busy_share for use in seen.cpus))} busy",
                     source=PROC_STAT),
        ),
        consequence="More queues than CPUs do no work in parallel but interrupt each other and the applications; "
        "beyond saturation packets are taken that nobody has time to use (receive livelock).",
        remedy="As many queues as CPUs, or fewer.",
        commands=tuple(f"ethtool -L {quote(device.name)} "
                       f"{'combined' if device.channels and device.channels.combined else 'rx'} {len(seen.cpus)}"
                       for device in seen.machine.devices if by_device.get(device.name, 0) > len(seen.cpus)),
        certainty="possible",
        basis=LIVELOCK,
    )  # fmt: skip


def irqbalance_moves_interrupts(seen: Checkup) -> Iterator[Finding]:
    """irqbalance has moved interrupts of busy queues: whoever placed them will wonder. One may move for any reason."""
    running = [process for process in seen.processes if process.name == IRQBALANCE]
    was = {napi.napi_id: napi for device in seen.before.devices for napi in device.napis}
    for device in seen.machine.devices:
        pairs = [(was[napi.napi_id], napi) for napi, _ in busy(seen, device) if napi.napi_id in was]
        moved = [(then, now) for then, now in pairs if _has_interrupt(now) and now.cpus != then.cpus]
        if not running or not moved:
            continue
        yield Finding(
            rule="irqbalance-moves-interrupts",
            severity="cost",
            where=device.name,
            title=f"{len(moved)} busy interrupt{'s' * (len(moved) > 1)} of {device.name} moved in "
            f"{seen.window.seconds:.1f} s, and irqbalance runs",
            evidence=(
                *(_moved(device, then, now) for then, now in moved),
                Evidence(text=f"irqbalance is process {running[0].pid}", source="/proc"),
            ),
            consequence="Placing a queue beside its application does not last, and every move costs cold caches.",
            remedy="Let irqbalance leave these interrupts alone (for good: IRQBALANCE_ARGS of its service), or do "
            "without it.",
            commands=(
                "systemctl stop irqbalance",
                f"irqbalance {' '.join(f'--banirq={now.irq}' for _, now in moved)}",
            ),
            certainty="likely" if len(moved) > 1 else "possible",
            basis=f"irqbalance(1); {SCALING}",
        )


def _has_interrupt(napi: Napi) -> bool:
    """Whether `cpus` are those of an interrupt, not of a NAPI thread."""
    return napi.irq is not None and napi.thread_pid is None


def _moved(device: Device, then: Napi, now: Napi) -> Evidence:
    name = napi_name(device, now.napi_id)
    return Evidence(text=f"interrupt {now.irq} ({name}) from CPU {then.cpus} to {now.cpus}", source="/proc/irq")


def _busy(seen: Checkup) -> Iterator[Place]:
    for device in seen.machine.devices:
        for napi, row in busy(seen, device):
            yield device, napi, row


def _polled_by_application(row: NapiWindow) -> bool:
    return row.busy_poll is not None and row.busy_poll.polls >= OWN_POLLS * row.polls.polls


def _taken(place: Place, seen: Checkup) -> Evidence:
    device, napi, row = place
    rate = row.polls.packets / seen.window.seconds
    return Evidence(text=f"{napi_name(device, napi.napi_id)}: {rate:,.0f} packets a second", source=PROBE)


def _move(napi: Napi, cpu: int) -> str:
    if napi.thread_pid is not None:
        return f"taskset -cp {cpu} {napi.thread_pid}"
    return f"echo {cpu} > /proc/irq/{napi.irq}/smp_affinity_list"


RULES = (
    Rule("several-queues-on-one-cpu", several_queues_on_one_cpu, (no_probe, no_napis, no_traffic, no_irqs)),
    Rule("interrupt-on-application-cpu", interrupt_on_application_cpu, (no_probe, no_napis, no_traffic, no_irqs)),
    Rule("more-busy-queues-than-cpus", more_busy_queues_than_cpus, (no_probe, no_napis, no_traffic)),
    Rule("irqbalance-moves-interrupts", irqbalance_moves_interrupts, (no_probe, no_traffic, no_irqs)),
)
