"""napctl doctor: what costs or endangers here, what shows it, and what to do."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

import click

from napctl.advise.lower import look_below
from napctl.advise.rules import diagnosis
from napctl.advise.seen import some
from napctl.cli.options import Seconds, devices_argument, json_option, netns_option
from napctl.cli.table import number, wrapped
from napctl.cli.terminal import echo, echo_json, note, write_over
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.finding import Diagnosis, Finding
from napctl.observe.checkup import take_checkup

WITHOUT_A_WORD = 2.0
"""So long a command may be silent, s."""
MANY = 3
"""So many findings alike are still told one by one."""
MOST_LINES = 8
"""Of evidence or of commands of one finding."""


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
    """Look for what wastes CPU time, delays packets or loses them, and say what to do.

    Watches the devices (all but loopback by default) for a while, best under the usual load. Changes nothing. Each
    finding comes with the figures that show it and where they were read, and with commands that are ready to run. Exit
    status 0: no finding; 1: there are findings.
    """
    with _progress(seconds) as tell:
        found = diagnosis(take_checkup(netns, devices, seconds, tell))
    with NetworkNamespace.current() as ours:
        elsewhere = ours.inode != netns.inode
    if as_json:
        echo_json(found)
    else:
        for line in _lines(found, elsewhere):
            echo(line)
    return 1 if found.findings else 0


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
        yield tell if seconds > WITHOUT_A_WORD else nothing
    finally:
        if begun and sys.stderr.isatty():
            write_over("")


def _lines(found: Diagnosis, elsewhere: bool) -> Iterator[str]:
    first = 1
    for alike in grouped(found.findings):
        for shown in [alike] if len(alike) > MANY else [[each] for each in alike]:
            yield from _finding_lines(first, shown)
            yield ""
            first += len(shown)
    if elsewhere and any(finding.commands for finding in found.findings):
        yield from wrapped("Run the commands in the network namespace that was looked at (nsenter --net=…).")
    yield from wrapped(_looked_at(found))
    devices = found.checkup.machine.devices
    for device in devices:
        if below := look_below(device, "doctor", seen=[each.name for each in devices]):
            yield from wrapped(below, rest=" " * 15)
    for each in found.unjudged:
        where = f"{some(each.devices)}: " if each.devices else ""
        rules = each.rules[0] if len(each.rules) == 1 else f"{len(each.rules)} rules"
        yield from _told("not judged", f"{where}{each.why} ({rules})")
    for lack in dict.fromkeys((*found.checkup.machine.lacks, *found.checkup.window.lacks)):
        yield from _told("not known", lack)


def grouped(findings: Iterable[Finding]) -> list[list[Finding]]:
    """Of one rule, about one device (or processes of one name, or CPUs) together, in the order of the first of each."""
    groups: dict[tuple[str, ...], list[Finding]] = {}
    for each in findings:
        what = (each.where.partition(" of ")[2] or each.where).split()[0]
        groups.setdefault((each.rule, each.severity, each.certainty, what), []).append(each)
    return list(groups.values())


def _finding_lines(first: int, alike: Sequence[Finding]) -> Iterator[str]:
    """One finding, or many alike: of those the first, and the names of some others."""
    finding, others = alike[0], alike[1:]
    numbers = f"{first}-{first + len(others)}" if others else str(first)
    yield from wrapped(f"{numbers}. {_titled(finding)}", rest="   ")
    yield f"   {finding.severity}, {finding.certainty} ({finding.rule})"
    for text in _shortened([f"{evidence.text} [{evidence.source}]" for evidence in finding.evidence]):
        yield from _told("evidence", text)
    if others:
        yield from _told("alike", f"{len(others)} more: {some(each.where for each in others)} (all: --json)")
    yield from _told("means", finding.consequence)
    yield from _told("remedy", finding.remedy)
    for command in _shortened(finding.commands):
        yield f"                 {command}"
    yield from _told("basis", finding.basis)


def _shortened(lines: Sequence[str]) -> list[str]:
    """All of some; of many the first few, how many more, and the last, which may be of another kind."""
    if len(lines) <= MOST_LINES:
        return list(lines)
    left_out = len(lines) - MANY - 1
    return [*lines[:MANY], f"… {left_out} more (all: --json)", lines[-1]]


def _titled(finding: Finding) -> str:
    """The object first, unless the title names it."""
    return finding.title if finding.where in finding.title else f"{finding.where}: {finding.title}"


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
