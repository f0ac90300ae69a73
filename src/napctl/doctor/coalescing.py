"""Rules about interrupts: too many of them, and completions that wait too long."""

from collections.abc import Iterator
from shlex import join

from napctl.doctor.facts import (
    COALESCING_NOTE,
    ETHTOOL,
    LINK,
    NAPI_DOC,
    NETDEV,
    PROBE,
    Rule,
    napi_name,
    no_coalescing,
    no_hardware,
    no_probe,
    no_speed,
    no_traffic,
    plan_commands,
    rows,
    rx_packets,
    some,
)
from napctl.model.driver_quirks import no_tx_delay, without_coalescing
from napctl.model.finding import Checkup, Evidence, Finding
from napctl.model.histogram import total
from napctl.model.limits import ring_fill_us, tx_stalls, tx_usecs_bound
from napctl.model.machine import Coalescing, Device, DimProfile, EpollPoller, Napi, attached
from napctl.model.suspension import Suspension
from napctl.model.units import duration_text, percent
from napctl.model.window import NapiWindow

__all__ = ["DEFERRAL_TIMER", "LOADED_PACKETS_PER_SECOND", "RULES", "tx_delays", "tx_only_share"]


TX_ONLY_SHARE = 0.2
"""From 20 % on: the remedy takes away a part of them only (54.2 % became 41.7 % in the note), so less is no gain."""
TX_ONLY_PER_SECOND = 1000
"""An interrupt with its softirq costs 1 … 3 µs: fewer take less than 0.3 % of one CPU."""
LEAST_POLLS = 1000
"""The share of so many polls is exact to ±3 percentage points."""
NEARLY_AT_BOUND = 0.75
"""A delay that near to its safe bound has nothing more to give."""

DEFERRAL_TIMER = "gro-flush-timeout"
STALL = (
    "tcp_small_queue_check() in net/ipv4/tcp_output.c; one flow fell to 9 Mb/s where 146 were possible "
    "(commit 4e8683a95c96)"
)

SINGLE_PACKETS = 1.2
"""Mean packets per poll that found any. Below it four of five interrupts or more bring one packet."""
LOADED_PACKETS_PER_SECOND = 10_000
"""Per NAPI instance. At 1 … 3 µs an interrupt that is 1 … 3 % of a CPU; below it latency is worth more."""

RX_PROFILES = {
    False: (DimProfile(usecs=1, pkts=256), DimProfile(usecs=256, pkts=256)),
    True: (DimProfile(usecs=2, pkts=256), DimProfile(usecs=64, pkts=64)),
}
"""First and last of the RX levels in lib/dim/net_dim.c, by "counts from the completion" (CQE)."""


def tx_only_share(devices_rows: list[NapiWindow]) -> tuple[int, int]:
    """(TX-only polls, all polls) of the NAPI instances of which an empty poll says so: see EmptyPolls."""
    told = [row for row in devices_rows if row.empty is not None and not row.empty.while_polling and row.empty.tx_only]
    return sum(row.empty.tx_only for row in told if row.empty), total(row.polls for row in told).polls


def tx_only_interrupts(seen: Checkup) -> Iterator[Finding]:
    """Interrupts that bring no packet but free sent ones: TX coalescing merges them with others at nearly no cost."""
    for device in seen.machine.devices:
        tx_only, polls = tx_only_share(rows(seen, device))
        per_second = tx_only / seen.window.seconds
        if polls < LEAST_POLLS or tx_only < TX_ONLY_SHARE * polls or per_second < TX_ONLY_PER_SECOND:
            continue
        if _has_as_much_tx_coalescing_as_is_safe(seen, device):
            continue
        share = percent(tx_only / polls)
        yield Finding(
            rule="tx-only-interrupts",
            severity="cost",
            where=device.name,
            title=f"{share} of polls are TX-only",
            evidence=(
                Evidence(text=f"{tx_only:,} of {polls:,} polls in softirq found no packet, without deferral or busy "
                         f"polling: {per_second:,.0f} a second", source=PROBE),
                Evidence(text=f"tx-usecs {_told(device.coalescing, 'tx_usecs')}, tx-frames "
                         f"{_told(device.coalescing, 'tx_max_frames')}", source=ETHTOOL),
            ),
            consequence=f"Each of them interrupts the CPU only to free sent buffers, which could wait. TX coalescing "
            f"saves at most these {share} of polls and {per_second:,.0f} interrupts a second; an empty poll costs less "
            "than others, so less of the CPU time.",
            remedy=_tx_remedy(device),
            commands=plan_commands(device.name),
            certainty="likely",
            basis=COALESCING_NOTE,
        )  # fmt: skip


def _has_as_much_tx_coalescing_as_is_safe(seen: Checkup, device: Device) -> bool:
    limit, speed = seen.machine.tcp_limit_output_bytes, device.speed_mbps
    if limit is None or speed is None or device.coalescing is None:
        return False
    bound = tx_usecs_bound(limit, speed, device.rings.tx if device.rings else None)
    return (device.coalescing.tx_usecs or 0) >= NEARLY_AT_BOUND * bound.value


def _tx_remedy(device: Device) -> str:
    """In accord with what `plan` proposes for the device."""
    deferral = "deferral (defer-hard-irqs, gro-flush-timeout) merges them"
    coalescing = Coalescing() if device.coalescing is None or without_coalescing(device) else device.coalescing
    if coalescing.tx_usecs is not None and no_tx_delay(device) is None:
        return "Delay TX completions, which costs no latency; see the plan before it is applied."
    if coalescing.rx_usecs is not None:
        return f"No TX delay of its own here: rx-usecs delays both where RX and TX share an interrupt; else {deferral}."
    return f"No TX coalescing here: {deferral} instead."


def _told(coalescing: Coalescing | None, name: str) -> str:
    value = getattr(coalescing, name, None)
    return "not supported" if value is None else str(value)


def tx_completions_too_late(seen: Checkup) -> Iterator[Finding]:
    """TX completions that wait longer than a TCP flow or the ring can go on sending: the link falls idle."""
    limit = seen.machine.tcp_limit_output_bytes
    for device in seen.machine.devices:
        if device.bus is None:
            continue
        for delay_us, setting in tx_delays(device):
            stalls = tuple(_stalls(delay_us, setting, device, limit))
            if stalls:
                yield Finding(
                    rule="tx-completions-too-late",
                    severity="danger",
                    where=device.name,
                    title=f"TX completions may wait {delay_us:,.0f} µs ({setting}): sending stalls before",
                    evidence=stalls,
                    consequence="Sent buffers are freed so late that a flow at link rate, or the queue, has to stop "
                    "and wait for them.",
                    remedy="Lower the delay below that time; `plan` computes the bound.",
                    commands=plan_commands(device.name),
                    certainty="likely",
                    basis=STALL,
                )
        yield from _attached_too_late(seen, device, limit)


def _attached_too_late(seen: Checkup, device: Device, limit: int | None) -> Iterator[Finding]:
    """Instances with IRQ suspension: `plan` leaves them alone, and while their server polls there is no such wait."""
    late = [
        (napi, stalls)
        for napi in device.napis
        if attached(napi) and napi.settings.defers
        if (stalls := tuple(_stalls(_timer_us(napi), DEFERRAL_TIMER, device, limit)))
    ]
    if not late:
        return
    slowest, stalls = max(late, key=lambda pair: _timer_us(pair[0]))
    delay_us, suspend_ns = _timer_us(slowest), max(napi.settings.irq_suspend_timeout_ns or 0 for napi, _ in late)
    bound = tx_usecs_bound(limit, device.speed_mbps, device.rings.tx if device.rings else None)
    timer = f"{max(1, bound.value)}us"
    ids = {napi.napi_id: napi for napi, _ in late}
    watched = ((poller, [ids[each] for each in poller.napi_ids if each in ids]) for poller in seen.machine.pollers)
    polling = [(poller, napis[0]) for poller, napis in watched if napis]
    names = [napi_name(device, napi_id) for napi_id in ids]
    yield Finding(
        rule="tx-completions-too-late",
        severity="risk" if polling else "danger",
        where=device.name if len(names) > 1 else names[0],
        title=f"TX completions may wait {delay_us:,.0f} µs ({DEFERRAL_TIMER}) when nobody polls: sending stalls before",
        evidence=(
            Evidence(text=f"{some(names)}: irq-suspend-timeout {duration_text(suspend_ns)}", source=NETDEV),
            *stalls,
        ),
        consequence=f"{_who_frees(polling)} A flow at link rate, or the queue, stops meanwhile. (A server that works "
        f"longer than that between two polls has the same effect, up to irq-suspend-timeout, whatever the timer.)",
        remedy=f"Attach the server again with a timer of {timer} at most ({bound.by}); with a shorter one the server "
        "makes fewer of the polls itself, so look at `napctl attached` again."
        if polling
        else f"No process is known to poll: put back what an ended server left, or attach its server again with "
        f"--defer-us {timer} ({bound.by}).",
        commands=tuple(dict.fromkeys(_attach_anew(poller, napi, timer) for poller, napi in polling))
        or ("napctl recover", "napctl history"),
        certainty="possible",
        basis=f"{NAPI_DOC}, IRQ suspension; {STALL}",
    )


def _who_frees(polling: list[tuple[EpollPoller, Napi]]) -> str:
    if not polling:
        return "No process is known to poll here, so this timer frees what was sent."
    names = some(dict.fromkeys(f"{poller.name} ({poller.pid})" for poller, _ in polling))
    return f"The polls of {names} free what was sent; while it waits, for example to go on writing, this timer does."


def _attach_anew(poller: EpollPoller, napi: Napi, timer: str) -> str:
    """With what differs from the defaults of `attach`. One that it would refuse is detached only."""
    pid, default = str(poller.pid), Suspension()
    if len(poller.napi_ids) > 1:
        return f"napctl detach {pid}"
    now = {
        "--defer-hard-irqs": (napi.settings.defer_hard_irqs, default.defer_hard_irqs),
        "--irq-suspend-timeout": (napi.settings.irq_suspend_timeout_ns, default.irq_suspend_timeout_ns),
        "--busy-poll-usecs": (poller.params.busy_poll_usecs, default.busy_poll_usecs),
        "--busy-poll-budget": (poller.params.busy_poll_budget, default.busy_poll_budget),
    }
    words = ["napctl", "attach", pid, "--defer-us", timer]
    for option, (value, usual) in now.items():
        if value and value != usual:
            words += [option, duration_text(value) if option.endswith("timeout") else str(value)]
    return f"napctl detach {pid} && {join(words)}"


def tx_delays(device: Device) -> Iterator[tuple[float, str]]:
    """(delay in µs, setting): the longest that the NIC makes, and the longest that deferral makes."""
    blocks = [device.coalescing, *(queue.coalescing for queue in device.queue_coalescing)]
    usecs = max((block.tx_usecs or 0 for block in blocks if block is not None), default=0)
    if usecs:
        yield usecs, "tx-usecs"
    deferring = [_timer_us(napi) for napi in device.napis if napi.settings.defers and not attached(napi)]
    if deferring:
        yield max(deferring), DEFERRAL_TIMER


def _timer_us(napi: Napi) -> float:
    return (napi.settings.gro_flush_timeout_ns or 0) / 1000


def _stalls(delay_us: float, setting: str, device: Device, limit_bytes: int | None) -> Iterator[Evidence]:
    """What ends before the delay does. A number of frames ends no deferral: the interrupt is masked."""
    for stall in tx_stalls(limit_bytes, device.speed_mbps):  # the first is the one that binds
        if delay_us > stall.after_us:
            yield Evidence(text=f"after {stall.after_us:.0f} µs {stall.by}", source=stall.source)
    ring, speed_mbps = device.rings.tx if device.rings else None, device.speed_mbps
    frames = device.coalescing.tx_max_frames if device.coalescing else None
    bounded_by_frames = setting != DEFERRAL_TIMER and bool(frames) and ring is not None and (frames or 0) < ring
    if ring and speed_mbps and not bounded_by_frames and delay_us > (fill := ring_fill_us(ring, speed_mbps)):
        yield Evidence(text=f"full frames fill the TX ring of {ring:,} in {fill:.0f} µs", source=ETHTOOL)


def single_packet_interrupts(seen: Checkup) -> Iterator[Finding]:
    """Interrupts that bring one packet each while packets come fast: a few µs of RX coalescing would merge them."""
    for device in seen.machine.devices:
        found = [row for row in rows(seen, device) if device.bus is not None and _is_single(row, seen.window.seconds)]
        if not found:
            continue
        polls = total(row.softirq for row in found if row.softirq)
        fruitful = polls.polls - polls.empty
        rate = fruitful / seen.window.seconds
        yield Finding(
            rule="single-packet-interrupts",
            severity="cost",
            where=device.name,
            title=f"{rate:,.0f} interrupts a second bring {polls.packets / fruitful:.2f} packets each",
            evidence=(
                Evidence(text=f"{polls.packets:,} packets in {fruitful:,} polls of "
                         f"{some(napi_name(device, row.napi_id) for row in found)}", source=PROBE),
                Evidence(text=f"rx-usecs {_told(device.coalescing, 'rx_usecs')}, adaptive-rx "
                         f"{_told(device.coalescing, 'use_adaptive_rx')}", source=ETHTOOL),
            ),
            consequence="Every packet pays for an interrupt of its own: CPU time that grows with the load.",
            remedy="Let RX interrupts wait for some µs, as much as your latency budget allows. For an epoll server, "
            "`napctl attach` takes them away under load without that.",
            commands=plan_commands(device.name),
            certainty="certain",
            basis=COALESCING_NOTE,
        )  # fmt: skip


def _is_single(row: NapiWindow, seconds: float) -> bool:
    """Polled in softirq alone: under deferral or busy polling a poll is no interrupt."""
    softirq = row.softirq
    if softirq is None or softirq != row.polls or (row.settings and row.settings.defers):
        return False
    fruitful = softirq.polls - softirq.empty
    enough = fruitful >= LEAST_POLLS and softirq.packets >= LOADED_PACKETS_PER_SECOND * seconds
    return enough and softirq.packets < SINGLE_PACKETS * fruitful


def adaptive_coalescing_stuck(seen: Checkup) -> Iterator[Finding]:
    """Adaptive RX coalescing that stands at an end of its profile at both ends of the window, under load."""
    before = {device.ifindex: device for device in seen.before.devices}
    for device in seen.machine.devices:
        was = before.get(device.ifindex)
        if was is None or rx_packets(seen, device) < LOADED_PACKETS_PER_SECOND * seen.window.seconds:
            continue
        ends = ((_end(then), _end(now)) for then, now in _levels(was, device))
        stuck = [then for then, now in ends if then is not None and then == now]
        if not stuck:
            continue
        which, usecs = stuck[0]
        yield Finding(
            rule="adaptive-coalescing-stuck",
            severity="cost",
            where=device.name,
            title=f"adaptive RX coalescing stays at its {which}, {usecs} µs, under load",
            evidence=(
                Evidence(text=f"rx-usecs {usecs} at both ends of the window, an end of the profile", source=ETHTOOL),
                Evidence(text=f"{rx_packets(seen, device) / seen.window.seconds:,.0f} packets a second", source=LINK),
            ),
            consequence="It interrupts for nearly every packet."
            if which == "least"
            else f"A packet may wait {usecs} µs for its interrupt: what decides is throughput, never latency.",
            remedy="Give it a fixed value that fits your latency budget, and compare."
            if not (now_has := device.coalescing) or not now_has.rx_profile
            else "Give it levels that fit your latency budget (plan --adaptive), or a fixed value, and compare.",
            commands=plan_commands(device.name),
            certainty="possible",
            basis="lib/dim/net_dim.c: bytes, then packets, then interrupts decide, at 10 % of change",
        )


def _levels(was: Device, now: Device) -> Iterator[tuple[Coalescing, Coalescing]]:
    """Coalescing at both ends of the window: of each queue where the driver has that, else of the device."""
    if now.queue_coalescing:
        earlier = {queue.queue: queue.coalescing for queue in was.queue_coalescing}
        wide = now.coalescing or Coalescing()
        for queue in now.queue_coalescing:
            if queue.queue in earlier and wide.use_adaptive_rx:
                yield earlier[queue.queue], queue.coalescing
    elif was.coalescing and now.coalescing:
        yield was.coalescing, now.coalescing


def _end(coalescing: Coalescing) -> tuple[str, int] | None:
    """("least" or "most", µs) if adaptive RX coalescing stands at that end of its profile; None in between."""
    if not coalescing.use_adaptive_rx or coalescing.rx_usecs is None:
        return None
    mode = coalescing.use_cqe_mode_rx
    custom = coalescing.rx_profile
    profiles = [(custom[0], custom[-1])] if custom else [RX_PROFILES[cqe] for cqe in RX_PROFILES if mode in (cqe, None)]
    # Without its mode, 64 µs alone could be the middle of the other profile: then the frames must tell.
    ambiguous = mode is None and not custom
    for profile in profiles:
        for which, level in zip(("least", "most"), profile, strict=True):
            frames_fit = coalescing.rx_max_frames in ((level.pkts,) if ambiguous else (level.pkts, 0, None))
            if coalescing.rx_usecs == level.usecs and frames_fit:
                return which, coalescing.rx_usecs
    return None


RULES = (
    Rule("tx-completions-too-late", tx_completions_too_late, (no_hardware, no_coalescing, no_speed)),
    Rule("tx-only-interrupts", tx_only_interrupts, (no_probe, no_hardware, no_traffic)),
    Rule("single-packet-interrupts", single_packet_interrupts, (no_probe, no_hardware, no_traffic)),
    Rule("adaptive-coalescing-stuck", adaptive_coalescing_stuck, (no_hardware, no_coalescing, no_traffic)),
)
