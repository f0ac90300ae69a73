"""What an attachment does right now, in words, for `attach` and `attached`."""

from collections.abc import Iterator, Sequence

from napctl.cli.text.latency import latency_lines
from napctl.cli.text.table import number, percent
from napctl.model.activity import Now
from napctl.model.change import Change, NapiChange, ThreadChange
from napctl.model.cpus import cpus_text, parse_cpus
from napctl.model.limits import MOST_NICE
from napctl.model.modes import mode_of
from napctl.model.settings import BUSY_POLL
from napctl.model.units import duration_text

__all__ = ["mode_line", "now_lines", "protected_line", "verdict_line"]


LITTLE = 0.25
"""Share of packets below which "active" alone would mislead."""
OTHERS = "the others came by interrupt or timer, as usual under light load"


def now_lines(now: Now) -> Iterator[str]:
    """Latency, suspensions and waits, where they were counted."""
    if now.latency:
        yield from latency_lines(now.latency)
    if now.busy_cpus is not None:
        yield _price(now)
    if now.suspensions_per_second:
        yield f"interrupts suspended {percent(now.suspended_share)} of the time; {_rescues(now.timeouts_per_second)}"
    elif now.suspensions_per_second is not None:
        yield "interrupts were never suspended"
    if now.wait_p50_us is not None and not (now.latency and now.latency.together):
        p50, p99 = wait(now.wait_p50_us), wait(now.wait_p99_us)
        yield f"time until a packet is polled (upper bound): p50 {p50}, p99 {p99}"


def _price(now: Now) -> str:
    """Of busy polling without suspension."""
    before = getattr(now, "busy_cpus_before", None)
    was = "" if before is None else f" ({percent(before)} before)"
    return f"busy polling, without suspension: the server uses {percent(now.busy_cpus)} of a CPU{was}"


def _rescues(per_second: float | None) -> str:
    """The safety timer is irq-suspend-timeout's."""
    if not per_second:
        return "the safety timer never had to step in"
    return f"the safety timer had to step in {number(per_second)} times a second"


def verdict_line(name: str, now: Now, changes: Sequence[Change] = ()) -> str:
    """The share first, then the plain word. `changes`: of the attachment; none: it suspends."""
    polls, packets = percent(now.server_poll_share), percent(now.server_packet_share)
    own = f"{packets} of packets taken by {name} itself, in {polls} of the polls"
    little = now.server_packet_share is not None and now.server_packet_share < LITTLE
    mode = mode_of(changes)
    if now.verdict == "active" and mode == "thread":
        return f"{percent(now.thread_packet_share)} of packets taken by {_threads(changes)}: active"
    if now.verdict == "active" and mode == "defer":
        return "interrupts are deferred: active"
    return {
        "active": f"{own}: active" + (f"; {OTHERS}" if little else ""),
        "not active": f"NOT active: {own if now.why == 'it does not poll' else now.why}",
        "starving": f"STARVING: {now.why} ({own})",
        "quiet": "too little traffic in this window to tell whether it is active",
        "interrupts": f"adapts, and takes packets by interrupts for now: {now.why}",
        "gone": f"gone: {now.why}",
        "not measured": f"not measured whether it is active: {now.why}"
        if now.why
        else "not measured whether it is active; `napctl attached` shows it",
    }[now.verdict]


def protected_line(thread_nice: int | None) -> str:
    """What is true of a flood, of one that suspends. `thread_nice`: as of Standing."""
    if thread_nice == MOST_NICE:
        return f"protected against overload: its NAPI threads come last (nice {MOST_NICE})"
    words = "protected against overload while suspended"
    return words if thread_nice is None or thread_nice >= 0 else f"{words}; threads at nice {thread_nice} can end that"


def mode_line(changes: Sequence[Change]) -> str:
    """What the mode of an attachment costs; empty: it suspends."""
    match mode_of(changes):
        case "thread":
            threads = [each for each in changes if isinstance(each, ThreadChange)]
            spins = any(each.after.threaded == BUSY_POLL for each in threads)
            cores = "a core" if len(threads) == 1 else f"{len(threads)} cores"
            costs = f"{cores}, also at rest" if spins else "a wake-up for each interrupt"
            return f"mode thread: it costs {costs}, on {_cpus(threads)}"
        case "defer":
            timers = [each.after.gro_flush_timeout_ns or 0 for each in changes if isinstance(each, NapiChange)]
            return f"mode defer: packets wait up to {duration_text(max(timers))} for their poll"
        case "poll":
            return "mode poll: its reads, or waits in io_uring, spin for packets before they sleep"
    return ""


def _threads(changes: Sequence[Change]) -> str:
    threads = [each for each in changes if isinstance(each, ThreadChange)]
    return f"{'its NAPI thread' if len(threads) == 1 else f'its {len(threads)} NAPI threads'} on {_cpus(threads)}"


def _cpus(threads: Sequence[ThreadChange]) -> str:
    cpus = {cpu for each in threads if each.after.cpus for cpu in parse_cpus(each.after.cpus)}
    return f"CPU{'s' * (len(cpus) > 1)} {cpus_text(cpus)}"


def wait(us: float | None) -> str:
    """A wait in µs."""
    if us is None:
        return "not measured"
    return "0 µs" if us == 0 else "67 ms or more" if us == float("inf") else f"{us:,.0f} µs"
