"""napctl protect: keep a flood of packets from taking a machine, for as long as this runs."""

import sys
import time
from collections.abc import Iterator

import click

from napctl.attach.follow_many import follow
from napctl.attach.follow_words import TellOf
from napctl.attach.target import complete
from napctl.change.guard import myself, watched
from napctl.change.journal import state_directory
from napctl.cli.follow import event_lines
from napctl.cli.netns import netns_option
from napctl.cli.options import device_names, json_option
from napctl.cli.output_queue import OutputQueue, missing_text, never_waiting
from napctl.cli.stop_signals import Stop
from napctl.cli.terminal import echo, echo_json
from napctl.cli.text.restored import name_left
from napctl.kernel import capabilities
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Guard, Restored
from napctl.model.cpus import cpus_text
from napctl.model.errors import ChangedMeanwhile, NotPermitted, Unsupported
from napctl.model.limits import HIGHEST_RATE, LEAST_THRESHOLD, MOST_NICE, MOST_THRESHOLD
from napctl.model.snapshot import Decision
from napctl.model.value import Value
from napctl.protect.groups import Protected
from napctl.protect.keep_running import KeptRunning
from napctl.protect.ladder import StepKind
from napctl.protect.protect_options import ProtectOptions
from napctl.protect.protection import Protection
from napctl.protect.whom import Whom, whom

__all__ = ["ProtectionEvent"]


NEEDED = frozenset({"CAP_NET_ADMIN", "CAP_SYS_NICE"})
STEPS: dict[StepKind, str] = {"threads": "NAPI threads", "nice": f"nice {MOST_NICE}", "storm control": "storm control"}


class ProtectionEvent(Value, frozen=True, kw_only=True):
    """One line of `protect --json`."""

    unix_ns: int
    device: str
    """Empty: it is of no single device."""
    event: str


@click.command(
    epilog="\b\nExamples:\n  napctl protect eth0\n  napctl protect memcached\n  napctl protect eth0 --dry-run\n"
    "  napctl protect eth0 --storm-control 10000"
)
@click.argument(
    "what",
    metavar="DEV|TARGET",
    shell_complete=lambda _context, _parameter, word: [
        *(name for name in device_names() if name.startswith(word) and name.isprintable()), *complete(word),
    ],
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Change nothing: say what would be watched, and what could be done.")
@click.option("--threshold", type=click.IntRange(LEAST_THRESHOLD, MOST_THRESHOLD), default=90, show_default=True,
              metavar="PERCENT", help="Of a CPU's time, from which packets may be too much.")  # fmt: skip
@click.option("--storm-control", type=click.IntRange(1, HIGHEST_RATE), metavar="PACKETS",
              help="Allow it as the last step: so many a second of each kind pass on each CPU.")  # fmt: skip
@netns_option
@json_option("One JSON object for each event")
def protect(
    what: str, dry_run: bool, threshold: int, storm_control: int | None, netns: NetworkNamespace, as_json: bool
) -> int:
    """Keep a flood of packets from taking a machine from its processes, until Ctrl-C.

    Watches the CPUs that take the packets of a device (DEV), or of those that feed a server (TARGET, as `napctl attach`
    takes it). When packets take such a CPU, threads that want it wait, and packets are dropped after the stack has
    worked on them, it makes one step after the other, the first within a second: NAPI threads instead of softirqs;
    nice 19 for them, so that what nobody has time for is dropped in the ring, for nothing; and, if that is allowed,
    storm control. All is taken back when the load that is offered has been under 70 % of what caused it for 10 s.

    If napctl is killed, its guard puts everything back. A server that is attached stays so: threads at nice 19 let its
    suspension hold.
    """
    meant = whom(what, netns)
    tell = _teller(as_json=as_json)
    options = ProtectOptions(
        devices=meant.devices, threshold=threshold / 100, storm_control_per_second=storm_control
    )  # fmt: skip
    if dry_run:
        nobody = myself()
        guard = Guard(pid=nobody.pid, started_ticks=nobody.started_ticks, deadline_boot_ns=0)
        _begin(Protection(meant.netns, options, guard, state_directory(), tell), tell, dry_run=True)
        tell("", "nothing was changed")
        return 0
    if missing := NEEDED - capabilities.held():
        raise NotPermitted(f"{what}: protecting it needs {' and '.join(sorted(missing))}")
    with never_waiting(lambda lines: tell("", missing_text(lines))) as queue:
        return _farewell(_until_asked(meant, options, tell, queue), tell)


def _until_asked(meant: Whom, options: ProtectOptions, tell: TellOf, queue: OutputQueue) -> list[Restored]:
    stop = Stop()
    with watched(None, state_directory()) as guard:
        protection = Protection(meant.netns, options, guard, state_directory(), tell)
        try:
            _begin(protection, tell, dry_run=False)
        except BaseException:
            protection.let_go()
            raise
        with KeptRunning(protection, tell) as kept:
            return follow([kept], queue.catching_up(stop.is_asked), [stop, queue])


def _teller(*, as_json: bool) -> TellOf:
    folds = sys.stdout.isatty()

    def tell(device: str, line: str, _kind: Decision | None = None, /) -> None:
        now = time.time_ns()
        if as_json:
            echo_json(ProtectionEvent(unix_ns=now, device=device, event=line))
            return
        clock = time.strftime("%H:%M:%S", time.localtime(now / 1e9))
        text = f"{device}: {line}" if device else line
        for each in event_lines(f"{clock}.{now // 10**6 % 1000:03}", text, folds=folds):
            echo(each)

    return tell


def _begin(protection: Protection, tell: TellOf, *, dry_run: bool) -> None:
    """Say what is watched, with storm control attached where it is to be. Raises Unsupported if that is nothing."""
    protection.look_for_devices()
    if dry_run:
        protection.leave_out_impossible()
    else:
        protection.mind_storm_control()
    if not protection.groups:
        raise Unsupported("; ".join(f"{name}: {why}" for name, why in protection.obstacles.items()))
    share = f"{protection.options.threshold * 100:.0f} %"
    for name, groups in _by_device(protection.groups):
        steps = dict.fromkeys(STEPS[each] for group in groups for each in group.steps)
        tell(name, f"watched: {_where(groups)}; when packets take {share} of a CPU and harm: {', then '.join(steps)}")
    protection.tell_obstacles()


def _by_device(groups: list[Protected]) -> Iterator[tuple[str, list[Protected]]]:
    for name in dict.fromkeys(each.device for each in groups):
        yield name, [each for each in groups if each.device == name]


def _where(groups: list[Protected]) -> str:
    count = sum(len(each.napis) for each in groups)
    instances = f"{count} NAPI instance{'s' * (count != 1)}"
    told = [each.cpus for each in groups]
    if None in told:
        return f"{instances}, on CPUs that nobody tells"
    return f"{instances}, on CPU {cpus_text(cpu for cpus in told if cpus is not None for cpu in cpus)}"


def _farewell(restored: list[Restored], tell: TellOf) -> int:
    """Exit status 5 if a setting was left alone."""
    back = sum(row.outcome in ("restored", "unchanged") for row in restored)
    what = f"{back} setting{'s' * (back > 1)} put back" if back else "nothing was to be put back"
    tell("", f"protection ends: {what}")
    return ChangedMeanwhile.exit_status if name_left(restored) else 0
