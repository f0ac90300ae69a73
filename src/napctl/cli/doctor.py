"""napctl doctor: what costs or endangers here, what shows it, and what to do."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress

import click
from msgspec.structs import replace

from napctl.census.pollers.watch import PollerWatch
from napctl.change.journal import Journal, state_directory
from napctl.change.recovery import orphaned
from napctl.change.same_process import running
from napctl.cli.netns import netns_option, netns_words
from napctl.cli.options import Seconds, devices_argument, json_option
from napctl.cli.terminal import SILENT_SECONDS, echo, echo_json, note, write_over
from napctl.cli.text.table import number, wrapped
from napctl.doctor.facts import some
from napctl.doctor.rules import diagnosis
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import InstanceChange, Transaction
from napctl.model.errors import NapctlError
from napctl.model.finding import Diagnosis, Finding, Follower
from napctl.model.other_manager import held_by
from napctl.observe.checkup import take_checkup
from napctl.observe.machine import WHO_POLLS
from napctl.plan.lower_devices import look_below

MANY = 3
"""So many findings alike are still told one by one."""
MOST_LINES = 8
"""Of evidence or of commands of one finding."""
LOOKS_INTO_NETNS = ("apply", "plan", "status")
"""Commands of napctl that findings advise, and that look into one network namespace."""


@click.command(
    epilog="\b\nExamples:\n  napctl doctor\n  napctl doctor eth0 --seconds 30\n"
    "  napctl doctor --netns pid:1234 --json | jq '.findings[].title'"
)
@devices_argument
@click.option("--seconds", type=Seconds(min=0.1, max=86400), default=10.0, show_default=True,
              help="How long to look.")  # fmt: skip
@netns_option
@json_option("One JSON object")
def doctor(devices: tuple[str, ...], seconds: float, netns: NetworkNamespace, as_json: bool) -> int:
    """Find what wastes CPU time, delays packets or loses them, and say what to do.

    Watches the devices (all but loopback by default) for a while, best under the usual load. Changes nothing. Each
    finding comes with the figures that show it and where they were read, and with commands that are ready to run. Exit
    status 0: no finding; 1: there are findings.
    """
    with PollerWatch(state_directory(), netns.inode) as watch, _progress(seconds) as tell:
        watch.begin()
        checkup = take_checkup(netns, devices, seconds, tell)
        pollers = watch.end()
    standing = _standing()
    held = held_by((change for each in standing for change in each.changes), netns.inode)
    found = diagnosis(replace(checkup, followers=tuple(_followers(standing)), held=held, pollers=pollers))
    with NetworkNamespace.current() as ours:
        elsewhere = ours.inode != netns.inode
    if as_json:
        echo_json(found)
    else:
        for line in _lines(found, elsewhere=elsewhere, netns=netns_words()):
            echo(line)
    return 1 if found.findings else 0


def _standing() -> list[Transaction]:
    """By the journal; none where it cannot be read, as by a user to whom nothing of it belongs."""
    with suppress(NapctlError, OSError):
        return Journal.read(live=True)
    return []


def _followers(standing: Iterable[Transaction]) -> Iterator[Follower]:
    for each in standing:
        kept = each.keeper is not None and running(each.keeper)
        if each.keeper and kept and each.kind == "attach" and each.state == "attached" and not orphaned(each):
            ids = tuple(change.napi_id for change in each.changes if isinstance(change, InstanceChange))
            yield Follower(pid=each.keeper.pid, server=each.title, napi_ids=ids)


@contextmanager
def _progress(seconds: float) -> Iterator[Callable[[float], None]]:
    """Says on standard error how long it takes: counting down on a terminal, once elsewhere."""
    begun = False

    def tell(left: float) -> None:
        nonlocal begun
        if sys.stderr.isatty():
            write_over(f"looking for {left:.0f} s more")
        elif not begun:
            note(f"looking for {seconds:g} s")
        begun = True

    def nothing(left: float) -> None:
        """So short a look needs no word."""

    try:
        yield tell if seconds > SILENT_SECONDS else nothing
    finally:
        if begun and sys.stderr.isatty():
            write_over("")


def _lines(found: Diagnosis, *, elsewhere: bool, netns: str) -> Iterator[str]:
    """`elsewhere`: another network namespace than ours was looked at; `netns`: as netns_words()."""
    first = 1
    for alike in grouped(found.findings):
        for shown in [alike] if len(alike) > MANY else [[each] for each in alike]:
            yield from _finding_lines(first, shown, netns)
            yield ""
            first += len(shown)
    for finding in found.mended:
        yield from _told("mended", f"{finding.title}. {finding.remedy} ({finding.rule})")
    others = any(not each.startswith("napctl ") for finding in found.findings for each in finding.commands)
    if elsewhere and others:
        yield from wrapped(
            "Run commands of other programs than napctl in the network namespace that was looked at (ip netns exec, or "
            "nsenter --net --mount)."
        )
    yield from wrapped(_looked_at(found))
    devices = found.checkup.machine.devices
    for device in devices:
        if below := look_below(device, "doctor", seen=[each.name for each in devices]):
            yield from wrapped(below, rest=" " * 15)
    yield from _not_judged(found)
    for lack in dict.fromkeys((*found.checkup.machine.lacks, *found.checkup.window.lacks)):
        if any(device.napis for device in devices) or not lack.startswith(WHO_POLLS):
            yield from _told("not known", lack)


def _not_judged(found: Diagnosis) -> Iterator[str]:
    """What somebody else drives, and what rules lacked."""
    for sentence in found.left_alone:
        yield from _told("left alone", sentence)
    for each in found.unjudged:
        where = f"{some(each.devices)}: " if each.devices else ""
        rules = each.rules[0] if len(each.rules) == 1 else f"{len(each.rules)} rules"
        yield from _told("not judged", f"{where}{each.why} ({rules})")


def grouped(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Of one rule, about one device (or processes of one name, or CPUs) together, in the order of the first of each."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for each in findings:
        what = (each.where.partition(" of ")[2] or each.where).split()[0]
        groups.setdefault((each.rule, each.severity, each.certainty, what), []).append(each)
    return list(groups.values())


def _finding_lines(first: int, alike: Sequence[Finding], netns: str) -> Iterator[str]:
    """One finding, or many alike: of those the first, and the names of some others."""
    finding, others = alike[0], alike[1:]
    numbers = f"{first}-{first + len(others)}" if others else str(first)
    where = "" if finding.where in finding.title else f"{finding.where}: "
    yield from wrapped(f"{numbers}. {where}{finding.title}", rest="   ")
    yield f"   {finding.severity}, {finding.certainty} ({finding.rule})"
    for text in _shortened([f"{evidence.text} [{evidence.source}]" for evidence in finding.evidence]):
        yield from _told("evidence", text)
    if others:
        yield from _told("alike", f"{len(others)} more: {some(each.where for each in others)} (all: --json)")
    yield from _told("means", finding.consequence)
    yield from _told("remedy", finding.remedy)
    for command in _shortened([_there(each, netns) for each in finding.commands]):
        yield f"                 {command}"
    yield from _told("basis", finding.basis)


def _there(command: str, netns: str) -> str:
    """With --netns where the command needs it: `attach` finds a process wherever it is."""
    words = command.split()
    return f"{command}{netns}" if words[0] == "napctl" and words[1] in LOOKS_INTO_NETNS else command


def _shortened(lines: Sequence[str]) -> list[str]:
    """All of some; of many the first few, how many more, and the last, which may be of another kind."""
    if len(lines) <= MOST_LINES:
        return list(lines)
    left_out = len(lines) - MANY - 1
    return [*lines[:MANY], f"… {left_out} more (all: --json)", lines[-1]]


def _told(label: str, text: str) -> list[str]:
    return wrapped(text, first=f"   {label:<12}", rest=" " * 15)


def _looked_at(found: Diagnosis) -> str:
    """What was looked at, so that "no finding" means something."""
    seen = found.checkup
    names = ", ".join(device.name for device in seen.machine.devices) or "none"
    received = [counts.rx_packets for counts in seen.window.devices]
    packets = number(None if None in received else sum(filter(None, received)))
    count = len(found.findings)
    result = "no finding" if not count else "1 finding" if count == 1 else f"{count} findings"
    down = [device.name for device in seen.machine.devices if not device.up]
    devices = f"{names} ({', '.join(down)} down)" if down else names
    return f"{result}: {len(found.rules)} rules over {devices}; {seen.window.seconds:.1f} s, {packets} packets received"
