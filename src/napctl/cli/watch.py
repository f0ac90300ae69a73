"""napctl watch: what happens, as it happens, and a summary at the end."""

import sys
import time
from collections.abc import Callable, Collection, Iterator
from itertools import count

import click

from napctl.cli.options import Seconds, devices_argument, json_option, netns_option
from napctl.cli.stop import Stop
from napctl.cli.table import wrapped
from napctl.cli.terminal import echo, echo_json, live, note
from napctl.cli.windowtext import machine_lines, napi_lines
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.errors import ChangedMeanwhile
from napctl.model.window import NapiWindow, Window
from napctl.observe.machine import DISAPPEARED
from napctl.observe.window import Observer


@click.command(
    epilog="\b\nExamples:\n  napctl watch eth0\n  napctl watch --seconds 10 --json | jq .napis\n"
    "  napctl watch --netns pid:1234 --interval 0.5"
)
@devices_argument
@click.option("--seconds", type=Seconds(min=0.001, max=10**9), help="Stop after that long (default: Ctrl-C).")
@click.option(
    "--interval", type=Seconds(min=0.01, max=3600), default=1.0, show_default=True, help="Length of a window, s."
)
@click.option("--all-namespaces", is_flag=True, help="Polls of every network namespace's devices.")
@netns_option
@json_option("One JSON object per interval")
def watch(
    devices: tuple[str, ...],
    seconds: float | None,
    interval: float,
    all_namespaces: bool,
    netns: NetworkNamespace,
    as_json: bool,
) -> None:
    """Show packets per poll, who polls, interrupts, softirqs and drops, live.

    Counts every poll of a NAPI instance with a BPF program, where this kernel and this user may; otherwise says what is
    missing. Ends with a summary of the whole time, and with the last of the named devices (exit status 5).
    """
    stop = Stop()
    with Observer(netns, devices) as observer:
        observer.restart()
        named = {device.ifindex for device in observer.devices} if devices else None
        chosen = _choose(netns.inode, named, all_namespaces)
        if as_json:
            for window in _windows(observer, stop, seconds, interval):
                echo_json(chosen(window))
                sys.stdout.flush()
            _tell_gone(observer)
            return
        _show_live(observer, stop, seconds, interval, chosen)
        show(chosen(observer.since_start()))
        _tell_gone(observer)


def show(window: Window) -> None:
    """Print a window: each NAPI instance that polled or may poll, then the machine."""
    for line in _lines(window):
        echo(line)


def _lines(window: Window) -> Iterator[str]:
    yield f"{window.seconds:.1f} s"
    for napi in window.napis:
        yield from napi_lines(napi, window.seconds)
    yield from machine_lines(window)
    for lack in window.lacks:
        yield from wrapped(f"not known: {lack}")


def _show_live(
    observer: Observer, stop: Stop, seconds: float | None, interval: float, chosen: Callable[[Window], Window]
) -> None:
    if not sys.stdout.isatty():
        note(f"watching {'until Ctrl-C' if seconds is None else f'for {seconds:g} s'}; the summary follows")
        for _ in _windows(observer, stop, seconds, interval):
            pass
        return
    with live() as show_now:
        show_now(["watching; Ctrl-C ends it with a summary"])
        for window in _windows(observer, stop, seconds, interval):
            show_now(_lines(chosen(window)))


def _windows(observer: Observer, stop: Stop, seconds: float | None, interval: float) -> Iterator[Window]:
    """One window per interval, without drift, until the time is over or Ctrl-C; the last may be shorter."""
    start = time.monotonic()
    end = None if seconds is None else start + seconds
    for number in count(1):
        due = start + number * interval
        last = end is not None and due > end - interval / 1000  # not one more for a rounding error
        stop.sleep_until(end if last and end is not None else due)
        yield observer.window()
        if last or stop.asked or (observer.gone and not observer.devices):
            return


def _tell_gone(observer: Observer) -> None:
    """Raises ChangedMeanwhile: there is nothing left to watch, or not all that was asked for."""
    if observer.gone:
        raise ChangedMeanwhile(f"{', '.join(observer.gone)}: {DISAPPEARED}")


def _choose(netns: int, named: Collection[int] | None, everywhere: bool) -> Callable[[Window], Window]:
    """Leave out what was not asked for: other namespaces' devices, devices not named (by index; None: none is)."""

    def wanted(napi: NapiWindow) -> bool:
        if everywhere:
            return True
        return napi.netns in (netns, 0) if named is None else napi.netns == netns and napi.ifindex in named

    def chosen(window: Window) -> Window:
        fields = {name: getattr(window, name) for name in Window.__struct_fields__}
        return Window(**fields | {"napis": tuple(napi for napi in window.napis if wanted(napi))})

    return chosen
