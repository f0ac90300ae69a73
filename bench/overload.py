"""Goodput against offered load, setting by setting: what a server still answers when it is offered more than it can.

    python -m bench.overload FILE [--rounds N] [--seconds S] [--rules N] [--server udp|tcp]

All of the receiver is on one CPU: its packets, made dear by so many nftables rules, and its server. Settings and loads
take turns in random order; goodput counts from the second second on. FILE gets every reading, as JSON, one a line;
scripts/draw-overload draws it. By TCP it is new connections that are offered, of one request each: on connections that
stand nobody can send more than the server's windows let in.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from napctl.change.journal import STATE_VARIABLE
from napctl.cli.text.progress import progress_line
from napctl.kernel import epoll, processes
from napctl.kernel.netdev import Netdev
from napctl.kernel.open_files import open_files
from napctl.kernel.syscalls import end_with_parent
from napctl.lab.bed import Lab
from napctl.lab.flood import (
    AS_SOFTIRQ,
    FloodSpec,
    flood,
    make_packets_dear,
    peak_per_second,
    take_as_softirq,
    tcp_server,
    udp_server,
)
from napctl.lab.servers import Server
from napctl.model.errors import NapctlError
from napctl.model.settings import EpollParams, NapiSettings

TIMES = (0.5, 1.0, 2.0, 3.0, 4.0)
"""The offered load, by the peak of the default."""
SERVER_CPU, CLIENT_CPU = 1, 0
ARMED_SECONDS = 0.6
INTERRUPTS = NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0)
DEFER = NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=200_000, irq_suspend_timeout_ns=0)
SUSPEND = NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=200_000, irq_suspend_timeout_ns=20_000_000)

Kind = Literal["udp", "tcp"]


@dataclass(frozen=True)
class Setting:
    """How packets are taken under overload."""

    name: str
    nice: int = AS_SOFTIRQ
    """Of the NAPI thread, which at AS_SOFTIRQ leaves as little to others as a softirq does."""
    napi: NapiSettings = INTERRUPTS
    prefer: bool = False
    protected: bool = False


SETTINGS = (
    Setting("default"),
    Setting("deferral 200 µs", napi=DEFER),
    Setting("suspension", napi=SUSPEND, prefer=True),
    Setting("NAPI thread, nice 0", nice=0),
    Setting("NAPI thread, nice 19", nice=19),
    Setting("napctl protect", protected=True),
    Setting("suspension, protect", napi=SUSPEND, prefer=True, protected=True),
)
CELLS = [(setting, times) for setting in SETTINGS for times in TIMES]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--rules", type=int, default=600)
    parser.add_argument("--server", choices=("udp", "tcp"), default="udp")
    options = parser.parse_args()
    connects = options.server == "tcp"
    order = [cell for _ in range(options.rounds) for cell in random.sample(CELLS, len(CELLS))]
    with (
        options.file.open("w") as file,
        Lab.build(server_cpu=SERVER_CPU, client_cpu=CLIENT_CPU) as lab,
        started(lab, options.server) as server,
        progress_line(options.seconds + 1, str) as tell,
    ):
        make_packets_dear(lab.server, options.rules)
        with taken(lab, server, SETTINGS[0]):
            peak = peak_per_second(lab, past_stack=True, connects=connects)
        readings = []
        for number, (setting, times) in enumerate(order):
            tell(setting.name, f"at {times:g} times the peak", number, len(order))
            with taken(lab, server, setting):
                offered = FloodSpec(
                    rate_per_second=times * peak, seconds=options.seconds, past_stack=True, connects=connects
                )
                found = flood(lab, offered)
            goodput = found.answered_per_second(1.0)
            readings.append((setting.name, times, goodput / peak))
            row = {"number": SETTINGS.index(setting), "setting": setting.name, "times": times, "goodput": goodput}
            row |= {"sent": found.sent_per_second, "peak": peak, "server": options.server}
            print(json.dumps(row), file=file, flush=True)
    print(*table(readings, peak), sep="\n")


@contextmanager
def started(lab: Lab, kind: Kind) -> Iterator[Server]:
    """The server that is flooded: each request costs it 3 µs of work."""
    with udp_server(lab, waits_in="epoll") if kind == "udp" else tcp_server(lab) as server:
        yield server


@contextmanager
def taken(lab: Lab, server: Server, setting: Setting) -> Iterator[None]:
    """Let the server's packets be taken that way."""
    take_as_softirq(lab.server)
    _set(lab, server, setting)
    try:
        with protected(lab, server) if setting.protected else nullcontext():
            yield
    finally:
        _set(lab, server, SETTINGS[0])


def _set(lab: Lab, server: Server, setting: Setting) -> None:
    params = EpollParams(busy_poll_usecs=0, busy_poll_budget=64, prefer_busy_poll=setting.prefer)
    with processes.Handle(server.pid) as handle:
        for fd in open_files(server.pid).epolls:
            with handle.copy_of(fd) as copy:
                epoll.set_params(copy, params)
    with Netdev(lab.server.namespace) as netdev:
        for napi in lab.server.napis():
            netdev.set_napi(napi.napi_id, setting.napi)
            assert napi.thread_pid is not None
            os.setpriority(os.PRIO_PROCESS, napi.thread_pid, setting.nice)


@contextmanager
def protected(lab: Lab, server: Server) -> Iterator[None]:
    """With `napctl protect` of the server's device, and a journal of its own. Started on the flooded CPU, it has
    moved away and looked twice by then."""
    with tempfile.TemporaryDirectory(prefix="napctl-overload-") as state:
        napctl = [sys.executable, "-m", "napctl", "protect", lab.server.device, "--netns", f"pid:{server.pid}"]
        process = subprocess.Popen(
            ["taskset", "-c", str(lab.server.cpu), *napctl],
            stdout=subprocess.PIPE,
            env=os.environ | {STATE_VARIABLE: state},
            preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call, which needs no lock of another thread
        )
        try:
            assert process.stdout is not None
            while line := process.stdout.readline():
                if b"napctl runs" in line:
                    break
            else:
                raise NapctlError(f"napctl protect ended with {process.wait()}")
            time.sleep(ARMED_SECONDS)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=30)


def table(readings: Sequence[tuple[str, float, float]], peak: float) -> Iterator[str]:
    """Medians of all rounds, and the least and greatest, in % of the peak."""
    yield f"goodput in % of the default's peak, {peak:,.0f}/s; median (least to greatest)"
    yield f"{'setting':<22}" + "".join(f"{times:>16g}x" for times in TIMES)
    for setting in SETTINGS:
        cells = (
            [100 * share for name, at, share in readings if (name, at) == (setting.name, times)] for times in TIMES
        )
        words = (f"{median(each):.0f} ({min(each):.0f}-{max(each):.0f})" for each in cells)
        yield f"{setting.name:<22}" + "".join(f"{each:>17}" for each in words)


if __name__ == "__main__":
    main()
