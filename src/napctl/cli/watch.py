"""napctl watch: what happens, as it happens, and a summary at the end."""

import sys
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import ExitStack
from itertools import count

import click
from msgspec.structs import replace

from napctl.attach.target import complete, parse, resolve
from napctl.cli.netns import GIVEN_NETNS, netns_option
from napctl.cli.options import Seconds, devices_argument, json_option
from napctl.cli.stop_signals import Stop
from napctl.cli.terminal import echo, echo_json, live, note
from napctl.cli.text.latency import latency_lines
from napctl.cli.text.table import wrapped
from napctl.cli.text.window import machine_lines, napi_lines
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.errors import ChangedMeanwhile
from napctl.model.overload import overloaded, overloaded_words
from napctl.model.window import NapiWindow, Window
from napctl.observe.machine import DISAPPEARED
from napctl.observe.server_latency import LatencyMeter
from napctl.observe.window import Observer


@click.command(
    epilog="\b\nExamples:\n  napctl watch eth0\n  napctl watch --seconds 10 --json | jq .napis\n"
    "  napctl watch --netns pid:1234 --interval 0.5\n  napctl watch --target nginx"
)
@devices_argument
@click.option("--seconds", type=Seconds(min=0.001, max=10**9), help="Stop after that long (default: Ctrl-C).")
@click.option(
    "--interval", type=Seconds(min=0.01, max=3600), default=1.0, show_default=True, help="Length of a window, s."
)
@click.option(
    "--target",
    shell_complete=lambda _context, _parameter, word: complete(word),
    help="Also how long data waits for this server, as `attach` takes it; in its network namespace.",
)
@click.option("--all-namespaces", is_flag=True, help="Polls of every network namespace's devices.")
@netns_option
@json_option("One JSON object per interval")
def watch(
    devices: tuple[str, ...],
    seconds: float | None,
    interval: float,
    target: str | None,
    all_namespaces: bool,
    netns: NetworkNamespace,
    as_json: bool,
) -> None:
    """Show packets per poll, who polls, interrupts, softirqs and drops, live.

    Counts every poll of a NAPI instance with a BPF program, where this kernel and this user may; otherwise says what is
    missing. A CPU that packets take from the threads that want it is named at the top (docs/settings.md). Ends with a
    summary of the whole time, and with the last of the named devices (exit status 5).

    With --target also the latency of a server as its own machine sees it: from when data may have come to the machine
    until the server has read it, and until it replies. docs/latency.md says what that is, and what it is not.
    """
    stop = Stop()
    meter = None
    with ExitStack() as open_:
        if target is not None:
            found = resolve(parse(target))
            if GIVEN_NETNS not in click.get_current_context().meta:
                netns = open_.enter_context(NetworkNamespace.of_process(found[0].pid))
            meter = open_.enter_context(LatencyMeter([process.pid for process in found]))
        observer = open_.enter_context(Observer(netns, devices))
        named = {device.ifindex for device in observer.devices} if devices else None
        watched = _Watched(observer, _choose(netns.inode, named, all_namespaces), meter)
        if as_json:
            for window in _windows(watched, stop, seconds, interval):
                echo_json(window)
                sys.stdout.flush()
        else:
            _show_live(watched, stop, seconds, interval)
            show(watched.since_start())
        _tell_gone(observer)


class _Watched:
    """Windows of what was asked for, which begin now."""

    def __init__(self, observer: Observer, chosen: Callable[[Window], Window], meter: LatencyMeter | None):
        self.observer = observer
        self._chosen = chosen
        self._meter = meter
        observer.restart()
        if meter:
            meter.restart()

    def window(self) -> Window:
        """Since the last one."""
        window = self._chosen(self.observer.window())
        if not self._meter:
            return window
        self._meter.add_workers()
        return replace(window, latency=self._meter.window().summary)

    def since_start(self) -> Window:
        """All of them."""
        window = self._chosen(self.observer.since_start())
        return replace(window, latency=self._meter.since_start().summary) if self._meter else window


def show(window: Window) -> None:
    """Print a window: each NAPI instance that polled or may poll, then the machine."""
    for line in _lines(window):
        echo(line)


def _lines(window: Window) -> Iterator[str]:
    yield f"{window.seconds:.1f} s"
    for found in overloaded(window.packet_load) if window.packet_load else ():
        yield from wrapped(overloaded_words(found), rest="  ")
    for sentence in latency_lines(window.latency) if window.latency else ():
        yield from wrapped(sentence, rest="  ")
    for napi in window.napis:
        yield from napi_lines(napi, window.seconds)
    yield from machine_lines(window)
    for lack in (*window.lacks, *(window.latency.lacks if window.latency else ())):
        yield from wrapped(f"not known: {lack}")


def _show_live(watched: _Watched, stop: Stop, seconds: float | None, interval: float) -> None:
    if not sys.stdout.isatty():
        note(f"watching {'until Ctrl-C' if seconds is None else f'for {seconds:g} s'}; the summary follows")
        for _ in _windows(watched, stop, seconds, interval):
            pass
        return
    with live() as show_now:
        show_now(["watching; Ctrl-C ends it with a summary"])
        for window in _windows(watched, stop, seconds, interval):
            show_now(_lines(window))


def _windows(watched: _Watched, stop: Stop, seconds: float | None, interval: float) -> Iterator[Window]:
    """One window per interval, without drift, until the time is over or Ctrl-C; the last may be shorter."""
    start = time.monotonic()
    end = None if seconds is None else start + seconds
    for number in count(1):
        due = start + number * interval
        last = end is not None and due > end - interval / 1000  # not one more for a rounding error
        stop.sleep_until(end if last and end is not None else due)
        yield watched.window()
        if last or stop.asked or (watched.observer.gone and not watched.observer.devices):
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
        return replace(window, napis=tuple(napi for napi in window.napis if wanted(napi)))

    return chosen
