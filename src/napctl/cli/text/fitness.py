"""The fitness of a target in words: for `attach --dry-run`, and for what `attach` left alone."""

from collections import Counter
from collections.abc import Iterator, Sequence
from statistics import median

from napctl.cli.terminal import echo
from napctl.cli.text.settings import changed, grouped
from napctl.cli.text.table import ABSENT, paragraph, print_table
from napctl.model.change import Change
from napctl.model.fitness import Fitness, InstanceFitness, SocketFitness
from napctl.model.timer_choice import TimerChoice
from napctl.model.units import duration_text

__all__ = ["show_changes", "show_fitness", "show_placements", "show_timer"]


MOST = 8
"""Rows of a kind that are shown one by one; a server may have thousands."""


def show_fitness(fitness: Fitness) -> None:
    """Every verdict with its reason, where the workers run, and what steering would do."""
    echo(f"{fitness.target}: {_many(fitness.processes, 'process', 'processes')}")
    fed = [each for each in fitness.instances if each.judgement != "nothing to poll"]
    _show_instances(fed)
    idle = Counter(each.why for each in fitness.instances if each.judgement == "nothing to poll")
    for why, count in idle.most_common(MOST):
        paragraph(
            f"{_many(count, 'epoll instance', 'epoll instances')} with nothing to poll: {why}",
            first="  ", rest="    ",
        )  # fmt: skip
    for socket in fitness.sockets[:MOST]:
        what = "ring" if socket.kind == "io_uring" else "socket"
        _reason(f"{what} {socket.fd} of {socket.name} ({socket.pid}), {socket.kind}", socket)
    for each in fitness.steering:
        paragraph(
            f"steering {each.kind} {each.address}: RX queue q to worker q mod {each.members}; {each.queues} queues; "
            f"{each.present} connections exist, which stay with their workers until they close",
            first="  ", rest="    ",
        )  # fmt: skip
    show_placements(fitness)
    for note in fitness.notes:
        paragraph(f"note: {note}", rest="  ")
    for lack in fitness.lacks:
        paragraph(f"not known: {lack}", rest="  ")


def show_placements(fitness: Fitness) -> None:
    """Which worker serves which queue, on which CPUs; and what does not go together."""
    placed = fitness.placements
    if not placed:
        return
    rows = [
        (
            f"{each.name} ({each.tid})",
            each.device,
            f"{each.napi_id}{f' ({chr(32).join(each.queues)})' if each.queues else ''}",
            each.queue_cpus or ABSENT,
            each.worker_cpus,
        )
        for each in placed[:MOST]
    ]
    print_table(("worker", "device", "NAPI", "queue's CPUs", "worker's CPUs"), rows, indent=2, left=2)
    if len(placed) > MOST:
        echo(f"  and {len(placed) - MOST} more")
    mismatches: dict[str, list[str]] = {}
    for each in placed:
        if each.mismatch:
            mismatches.setdefault(each.mismatch, []).append(f"{each.name} ({each.tid})")
    for why, names in mismatches.items():
        paragraph(f"mismatch: {_some(names)}: {why}", first="  ", rest="    ")


def show_changes(changes: Sequence[Change]) -> None:
    """The settings that would be changed."""
    rows = [row for change in changes for row in changed(change)]
    print_table(("where", "setting", "is", "would be"), grouped(rows), indent=2, left=2)


def show_timer(timer: TimerChoice) -> None:
    """The timer, why, and what it was chosen from."""
    name = duration_text(timer.gro_flush_timeout_ns)
    paragraph(f"chose gro-flush-timeout {name}: {timer.why}", rest="  ")
    told = [each for each in timer.trials if each.cpu_share is not None]
    if not told:
        return
    rows = [
        (
            duration_text(each.gro_flush_timeout_ns),
            f"{100 * (each.cpu_share or 0):.0f}",
            *(f"{one:.2f}" for one in (median(costs), min(costs), max(costs))),
            f"{each.packets_per_second or 0:,.0f}",
            ABSENT if each.wait_p50_us is None else f"{each.wait_p50_us:.0f}",
        )
        for each in told
        if (costs := each.cpu_us_per_packet)
    ]
    print_table(("timer", "CPU %", "CPU µs/packet", "least", "most", "packets/s", "p50 wait µs"), rows, indent=2)
    paragraph(
        "CPU: the server's processes, NAPI threads and NET_RX softirqs, on all CPUs; per packet: median, least and "
        f"most of {max(len(each.cpu_us_per_packet) for each in told)} windows. Wait: time until a packet is polled "
        "(upper bound); not the latency that clients see",
        first="  ", rest="  ",
    )  # fmt: skip


def _show_instances(fed: Sequence[InstanceFitness]) -> None:
    for each in fed[:MOST]:
        sockets = ", ".join(f"{count} of NAPI {napi}" for napi, count in sorted(each.sockets_by_napi.items())[:4])
        more = " …" if len(each.sockets_by_napi) > 4 else ""
        loop = "" if each.loop == "not seen" else f"; its loop {each.loop}"
        held = f"; also held by {_some(list(map(str, each.held_by)))}" if each.held_by else ""
        paragraph(
            f"epoll {each.epoll_fd} of {each.name} ({each.pid}): {sockets or 'no connection'}{more}{loop}{held}",
            first="  ", rest="    ",
        )  # fmt: skip
        paragraph(f"{each.judgement}: {each.why}", first="    ", rest="      ")
        if each.hint:
            paragraph(f"what would help: {each.hint}", first="    ", rest="      ")
    for line in _rest(fed[MOST:]):
        echo(line)


def _rest(more: Sequence[InstanceFitness]) -> Iterator[str]:
    for judgement in dict.fromkeys(each.judgement for each in more):
        yield f"  and {sum(each.judgement == judgement for each in more)} more: {judgement}"


def _reason(what: str, fitness: SocketFitness) -> None:
    paragraph(f"{what}: {fitness.judgement}: {fitness.why}", first="  ", rest="    ")


def _many(count: int, one: str, several: str) -> str:
    return f"{count} {one if count == 1 else several}"


def _some(names: Sequence[str]) -> str:
    more = len(names) - 4
    return ", ".join(names[:4]) + (f" and {more} more" if more > 0 else "")
