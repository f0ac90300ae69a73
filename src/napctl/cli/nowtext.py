"""What an attachment does right now, in words, for `attach` and `attached`."""

from collections.abc import Iterator

from napctl.attach.report import Now
from napctl.cli.table import number, percent


def now_lines(now: Now) -> Iterator[str]:
    """Suspensions and waits, where they were counted."""
    if now.suspensions_per_second is None:
        return
    yield (
        f"suspended {number(now.suspensions_per_second)} times a second, {percent(now.suspended_share)} of the time; "
        f"resumed {number(now.resumes_per_second)} times a second, of these {number(now.timeouts_per_second)} by the "
        "suspend timer"
    )
    if now.wait_p50_us is not None:
        yield f"packets waited for their poll at most: p50 {wait(now.wait_p50_us)}, p99 {wait(now.wait_p99_us)}"


def verdict_line(name: str, now: Now) -> str:
    """The plain word, and what it stands on."""
    polls, packets = percent(now.server_poll_share), percent(now.server_packet_share)
    own = f"{name} makes {polls} of the polls, taking {packets} of packets"
    return {
        "active": f"active: {own}",
        "not active": f"NOT active: {now.why if now.why != 'it does not poll' else own}",
        "starving": f"STARVING: {now.why} ({own})",
        "quiet": "too little traffic in this window to tell whether it is active",
        "gone": f"gone: {now.why}",
        "not measured": f"not measured whether it is active: {now.why}"
        if now.why
        else "not measured whether it is active; `napctl attached` shows it",
    }[now.verdict]


def wait(us: float | None) -> str:
    """A wait in µs."""
    if us is None:
        return "not told"
    return "no time" if us == 0 else "67 ms or more" if us == float("inf") else f"{us:,.0f} µs"
