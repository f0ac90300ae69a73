"""Rules about deferral and polling: who waits for whom, and what spins for nothing."""

from collections.abc import Iterator, Sequence
from shlex import quote

from napctl.doctor.facts import (
    EPOLL,
    NAPI_DOC,
    NETDEV,
    PROBE,
    SCHEDSTAT,
    SYSFS,
    Rule,
    napi_name,
    no_deferral,
    no_napis,
    no_probe,
    pollers_of,
    rows,
    some,
)
from napctl.model.driver_quirks import PERSISTENT
from napctl.model.finding import Checkup, Evidence, Finding, Follower, ProcessUse
from napctl.model.histogram import total
from napctl.model.machine import Device, EpollPoller, Napi
from napctl.model.units import duration_text, percent
from napctl.model.window import NapiWindow, own_polls

__all__ = ["RULES"]


IDLE_POLLS = 0.9
"""Share of empty polls from which a poller is nearly idle. Measured in the lab: 46 % under suspension at 50,000
requests/s, above 99 % while spinning at 1,000/s."""
SPINNING_CPU = 0.25
"""Of one CPU: what suspension would give back must be worth the change."""
SPINNING_POLLS_PER_CPU_SECOND = 50_000
"""Empty polls in a second of the process's CPU time. One takes 0.1 … 10 µs: a process that makes fewer has other work
between them, in a loop that never blocks."""
LEAST_POLLS = 1000
"""Below it the share of empty polls is noise."""


def device_wide_deferral(seen: Checkup) -> Iterator[Finding]:
    """Deferral in sysfs holds for every NAPI instance of the device, and so for traffic that nobody meant."""
    for device in seen.machine.devices:
        deferral = device.deferral
        if deferral is None or not deferral.defer_hard_irqs or not deferral.gro_flush_timeout_ns:
            continue
        flush = duration_text(deferral.gro_flush_timeout_ns)
        yield Finding(
            rule="device-wide-deferral",
            severity="cost",
            where=device.name,
            title=f"all traffic of {device.name} may wait {flush} for its interrupt: deferral is device-wide",
            evidence=(
                Evidence(
                    text=f"napi_defer_hard_irqs {deferral.defer_hard_irqs}, gro_flush_timeout {flush}", source=SYSFS
                ),
            ),
            consequence="Every NAPI instance, also one made later, delays its interrupts, whether or not an "
            "application polls it: ssh and whatever else uses the device gets slower.",
            remedy="Set it to 0, and give deferral to the NAPI instances of the server alone: attach the server. If it "
            "is attached, attach it again: writing the device-wide values overwrites those of every instance.",
            commands=(
                f"echo 0 > /sys/class/net/{quote(device.name)}/napi_defer_hard_irqs",
                f"echo 0 > /sys/class/net/{quote(device.name)}/gro_flush_timeout",
                *(f"napctl attach {pid}" for pid in _likely_server(seen)),
            ),
            certainty="certain",
            basis=f"{NAPI_DOC}, Software IRQ coalescing; ssh latency in firedancer pull request 10371",
        )


def _likely_server(seen: Checkup) -> tuple[int, ...]:
    """Who would be attached: a process that polls, else the busiest that these devices feed, if there is one."""
    if seen.machine.pollers:
        return _attachable(seen.machine.pollers[0].pid, seen)
    threads = {napi.thread_pid for device in seen.machine.devices for napi in device.napis}
    fed = [use for use in seen.processes if use.napi_ids and use.pid not in threads]
    return (max(fed, key=lambda use: use.cpu_share or 0).pid,) if fed else ()


def _attachable(pid: int, seen: Checkup) -> tuple[int, ...]:
    """That process; nothing if `attach` would refuse it, because an epoll instance of it watches several queues."""
    return () if any(len(poller.napi_ids) > 1 for poller in pollers_of(seen, pid)) else (pid,)


def epoll_over_several_queues(seen: Checkup) -> Iterator[Finding]:
    """An epoll instance that prefers busy polling follows one NAPI instance and lets the others wait."""
    napis = {napi.napi_id: (device, napi) for device in seen.machine.devices for napi in device.napis}
    for poller in seen.machine.pollers:
        places = [napis[napi_id] for napi_id in poller.napi_ids if napi_id in napis]
        if len(poller.napi_ids) < 2 or not poller.params.prefer_busy_poll or not places:
            continue
        suspend_ns = max(napi.settings.irq_suspend_timeout_ns or 0 for _, napi in places)
        suspended = bool(suspend_ns) and any(napi.settings.defers for _, napi in places)
        yield Finding(
            rule="epoll-over-several-queues",
            severity="danger" if suspended else "cost",
            where=_name(poller),
            title=f"{_name(poller)} watches sockets of {len(poller.napi_ids)} NAPI instances and polls one at a time",
            evidence=(
                Evidence(
                    text=f"sockets of {some(napi_name(device, napi.napi_id) for device, napi in places)}",
                    source="SO_INCOMING_NAPI_ID",
                ),
                Evidence(text="prefer_busy_poll yes", source=EPOLL),
                Evidence(text=f"irq-suspend-timeout {duration_text(suspend_ns)}", source=NETDEV),
            ),
            consequence=f"A suspended queue that is not polled any more waits up to {duration_text(suspend_ns)}."
            if suspended
            else "Polls go to the queue of the last event; packets of the others come by interrupt, or wait.",
            remedy="One queue for one epoll instance: a worker per queue, with connections steered to it. Until then "
            "detach it, if it is attached.",
            commands=(f"napctl detach {poller.pid}",),
            certainty="certain",
            basis=f"{NAPI_DOC}, epoll-based busy polling; ep_set_busy_poll_napi_id() in fs/eventpoll.c",
        )


def _name(poller: EpollPoller) -> str:
    return f"epoll {poller.epoll_fd} of {poller.name} ({poller.pid})"


def busy_polling_while_idle(seen: Checkup) -> Iterator[Finding]:
    """A process that spins on its queue and finds hardly anything there: a CPU for nothing."""
    observed = [row for device in seen.machine.devices for row in rows(seen, device)]
    uses = {use.pid: use for use in seen.processes}
    for pid in sorted({poller.pid for row in observed for poller in row.pollers}):
        own = own_polls(observed, pid)
        use = uses.get(pid)
        if own.polls < LEAST_POLLS or own.empty < IDLE_POLLS * own.polls or not _spins(use, own.empty, seen):
            continue
        pollers = pollers_of(seen, pid)
        share = use.cpu_share if use else None
        burns = f"burns {percent(share)} of a CPU" if share is not None else "spins"
        spins_us = max((poller.params.busy_poll_usecs for poller in pollers), default=0)
        evidence = [
            Evidence(
                text=f"{own.empty:,} of its {own.polls:,} polls found nothing; {own.packets:,} packets", source=PROBE
            )
        ]
        if share is not None:
            evidence.append(Evidence(text=f"{share * seen.window.seconds:.2f} s CPU time", source=SCHEDSTAT))
        if spins_us:
            evidence.append(Evidence(text=f"busy_poll_usecs {spins_us:,}", source=EPOLL))
        yield Finding(
            rule="busy-polling-while-idle",
            severity="cost",
            where=f"{own.name} ({pid})",
            title=f"{own.name} ({pid}) {burns}: {percent(own.empty / own.polls)} of its polls find nothing",
            evidence=tuple(evidence),
            consequence="The CPU is taken from others, and its power is spent, to wait for packets that do not come.",
            remedy="IRQ suspension polls while there is work and sleeps while there is none."
            if pollers
            else "It polls by SO_BUSY_POLL or net.core.busy_poll: set that lower, or use epoll and IRQ suspension.",
            commands=tuple(f"napctl attach {each}" for each in _attachable(pid, seen)) if pollers else (),
            certainty="certain",
            basis=f"{NAPI_DOC}, Busy polling and IRQ suspension",
        )


def _spins(use: ProcessUse | None, empty_polls: int, seen: Checkup) -> bool:
    """Where its CPU time is not known, it is taken for a whole CPU: then fewer are found, and none wrongly."""
    share = use.cpu_share if use is not None and use.cpu_share is not None else 1.0
    cpu_seconds = share * seen.window.seconds
    return share >= SPINNING_CPU and empty_polls >= SPINNING_POLLS_PER_CPU_SECOND * cpu_seconds


def napi_thread_polling_while_idle(seen: Checkup) -> Iterator[Finding]:
    """A NAPI thread in the mode "busy-poll" that finds hardly anything: it never sleeps."""
    for device in seen.machine.devices:
        spinning = [row for row in rows(seen, device) if _thread_spins(row)]
        if not spinning:
            continue
        threads = total(row.thread for row in spinning if row.thread)
        name = some(napi_name(device, row.napi_id) for row in spinning)
        yield Finding(
            rule="napi-thread-polling-while-idle",
            severity="cost",
            where=device.name,
            title=f"{len(spinning)} NAPI thread{'s' * (len(spinning) > 1)} of {device.name} spin: "
            f"{percent(threads.empty / threads.polls)} of their polls find nothing",
            evidence=(
                Evidence(text=f"{threads.empty:,} of {threads.polls:,} polls of {name}", source=PROBE),
                Evidence(text="threaded busy-poll", source=NETDEV),
            ),
            consequence="Each takes a whole CPU, whatever comes.",
            remedy='Set `threaded` of these instances to "enabled" (sleeps) or "disabled" (softirq).',
            commands=(f"echo 1 > /sys/class/net/{quote(device.name)}/threaded",),
            certainty="certain",
            basis=f"{NAPI_DOC}, Threaded NAPI busy polling",
        )


def _thread_spins(row: NapiWindow) -> bool:
    thread, settings = row.thread, row.settings
    if thread is None or settings is None or settings.threaded != "busy-poll":
        return False
    return thread.polls >= LEAST_POLLS and thread.empty >= IDLE_POLLS * thread.polls


def settings_lost_at_reset(seen: Checkup) -> Iterator[Finding]:
    """NAPI settings that a link reset or a change of channels drops: the driver makes new instances then."""
    for device in seen.machine.devices:
        own = [napi for napi in device.napis if _has_own_settings(device, napi)]
        if device.driver is None or device.driver in PERSISTENT:
            continue
        for follower in seen.followers:
            if followed := [napi for napi in own if napi.napi_id in follower.napi_ids]:
                yield _lost_at_reset(device, followed, follower)
        kept = {napi_id for follower in seen.followers for napi_id in follower.napi_ids}
        if alone := [napi for napi in own if napi.napi_id not in kept]:
            yield _lost_at_reset(device, alone)


def _lost_at_reset(device: Device, own: Sequence[Napi], follower: Follower | None = None) -> Finding:
    instances = f"{len(own)} NAPI instance{'s' * (len(own) > 1)}"
    return Finding(
        rule="settings-lost-at-reset",
        severity="risk",
        where=device.name,
        title=f"settings of {instances} of {device.name} may not survive a link reset",
        evidence=(
            Evidence(text=_settings(device, own[0]), source=NETDEV),
            Evidence(text=f"{device.driver} does not keep NAPI settings by queue", source="driver's source"),
        ),
        consequence="After a link reset or `ethtool -L` the instances have new ids and may have the device-wide "
        "values again: suspension ends without a word.",
        remedy=f"napctl ({follower.pid}), which follows {follower.server}, sets them again: nothing is to be done."
        if follower
        else "Attach the server with --stay, which sets them again, or attach it (or apply the plan) again after such "
        "an event.",
        commands=() if follower else ("napctl attached", f"napctl status {quote(device.name)}"),
        certainty="possible",
        basis=f"{NAPI_DOC}, Persistent NAPI config; drivers with netif_napi_add_config() as of Linux 7.3",
        mended_by=(follower.pid,) if follower else (),
    )


def _has_own_settings(device: Device, napi: Napi) -> bool:
    """Whether they differ from what a new instance would start with."""
    settings, wide = napi.settings, device.deferral
    defer, flush = (wide.defer_hard_irqs, wide.gro_flush_timeout_ns) if wide else (0, 0)
    return bool(settings.irq_suspend_timeout_ns) or (
        (settings.defer_hard_irqs or 0, settings.gro_flush_timeout_ns or 0) not in ((defer, flush), (0, 0))
    )


def _settings(device: Device, napi: Napi) -> str:
    settings = napi.settings
    flush, suspend = settings.gro_flush_timeout_ns or 0, settings.irq_suspend_timeout_ns or 0
    return (
        f"{napi_name(device, napi.napi_id)}: defer-hard-irqs {settings.defer_hard_irqs}, "
        f"gro-flush-timeout {duration_text(flush)}, irq-suspend-timeout {duration_text(suspend)}"
    )


RULES = (
    Rule("epoll-over-several-queues", epoll_over_several_queues, (no_napis,)),
    Rule("busy-polling-while-idle", busy_polling_while_idle, (no_probe, no_napis)),
    Rule("napi-thread-polling-while-idle", napi_thread_polling_while_idle, (no_probe, no_napis)),
    Rule("device-wide-deferral", device_wide_deferral, (no_deferral,)),
    Rule("settings-lost-at-reset", settings_lost_at_reset, (no_napis,)),
)
