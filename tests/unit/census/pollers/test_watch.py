"""Promises about finding what spins, among real processes of this machine."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napctl.census.pollers import watch
from napctl.census.pollers.detection import Detected, Statement
from napctl.census.pollers.spinning import Spin, ThreadTimes, spins, thread_times
from napctl.census.pollers.suspects import Suspect
from napctl.census.pollers.thread_counters import ThreadCounters
from napctl.census.pollers.watch import PollerWatch
from napctl.kernel.packet_rings import PacketRing
from napctl.kernel.processes import Process
from napctl.model.census import Poller
from tests.lab.helpers import until

SPINNER = """
import os, threading
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
print("ready", flush=True)
while True:
    pass
"""
SLEEPER = "print('ready', flush=True); input()"


@contextmanager
def running(script: str, count: int = 1) -> Iterator[list[subprocess.Popen[str]]]:
    started = [
        subprocess.Popen([sys.executable, "-S", "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    try:
        for each in started:
            assert each.stdout is not None
            assert each.stdout.readline() == "ready\n"
        yield started
    finally:
        for each in started:
            each.kill()
            each.communicate()


def looked(tmp_path: Path, seconds: float = 0.5) -> dict[int, Poller]:
    with PollerWatch(tmp_path) as looking:
        looking.begin()
        time.sleep(seconds)
        return {each.pid: each for each in looking.end()}


def times(ran_ms: int, waited_ms: int = 0, sleeps: int = 0, *, ready: bool = False) -> dict[int, ThreadTimes]:
    return {9: ThreadTimes(9, "poll", ran_ms * 10**6, waited_ms * 10**6, sleeps, "3", ready)}


def test_a_thread_spins_that_runs_or_waits_for_its_cpu_all_the_time() -> None:
    assert spins(9, times(0), times(950), 1.0) == (Spin(9, "poll", 3, pinned=True, run_share=0.95),)
    assert [each.run_share for each in spins(9, times(0), times(500, waited_ms=450), 1.0)] == [0.5]
    assert spins(9, times(0), times(890), 1.0) == ()
    assert spins(9, times(0), times(990, sleeps=3), 1.0) == ()
    assert spins(9, {}, times(990), 1.0) == ()


def test_a_thread_spins_that_others_keep_from_its_cpu() -> None:
    def found(sleeps: int, *, begins: bool = True, ends: bool = True) -> bool:
        return bool(spins(9, times(0, ready=begins), times(20, sleeps=sleeps, ready=ends), 1.0))

    assert found(sleeps=0)
    assert not found(sleeps=1)
    assert not found(sleeps=0, begins=False)
    assert not found(sleeps=0, ends=False)


def test_the_times_of_a_thread_are_its_own() -> None:
    assert thread_times(os.getpid())[os.getpid()].ran_ns > 0
    assert thread_times(2**22 + 1) == {}


def test_what_spins_is_told_and_not_called_a_bypass_and_what_sleeps_is_not(tmp_path: Path) -> None:
    with running(SPINNER) as (spinner,), running(SLEEPER) as (sleeper,):
        found = looked(tmp_path)
        while spinner.pid not in found:  # others have most of its CPU
            found = looked(tmp_path)
    assert sleeper.pid not in found
    poller = found[spinner.pid]
    assert (poller.kind, poller.really, poller.devices) == ("busy, no NIC", None, ())
    (thread,) = poller.threads
    assert (thread.cpu, thread.work_share, thread.most_work_share) == (min(os.sched_getaffinity(0)), None, None)
    assert any("may run on CPU" in text for text in poller.evidence)


def test_a_process_that_ends_meanwhile_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "DETECTORS", (lambda _: Detected(kind="RDMA", evidence=()),))
    with PollerWatch(tmp_path) as looking, running(SPINNER) as (spinner,):
        looking.begin()
        spinner.kill()
        spinner.wait()
        assert spinner.pid not in {each.pid for each in looking.end()}


def test_the_socket_of_a_dead_dpdk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "dpdk" / "rte\x1b[2J"
    directory.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as left:
        left.bind(os.fspath(directory / "dpdk_telemetry.v2"))
    monkeypatch.setattr(watch, "RUN", tmp_path)
    with PollerWatch(tmp_path) as looking:
        looking.begin()
    (line,) = (each for each in looking.missing if "dpdk_telemetry" in each)
    assert line.endswith("rte\\x1b[2J/dpdk_telemetry.v2: nobody listens there: its process has ended")


@pytest.mark.long
def test_500_processes_cost_far_less_than_a_second(tmp_path: Path) -> None:
    with running(SLEEPER, 500):
        begun = time.process_time()
        looked(tmp_path, 0.2)
        assert time.process_time() - begun < 0.7


def test_of_very_many_that_listen_some_are_asked() -> None:
    many = [Suspect(process=Process(pid, "server", 1), mapped=frozenset(), listens=("/x",)) for pid in range(100)]
    asked = list(watch._some_may_talk(many))
    assert sum(bool(one.listens) for one in asked) == watch.MOST_ASKED
    assert asked[-1].trouble == "not asked: 64 others listen as well"


@pytest.mark.parametrize(
    ("shares", "behind"),
    [
        ({7: 0.4, 8: 0.0}, False),
        ({7: 0.5, 8: 0.0}, True),
        ({7: 0.5, 8: None}, True),
        ({7: 0.4, 8: None}, None),
        ({7: 0.4}, None),
    ],
    ids=["free", "half full", "half full and not mapped", "not mapped", "no ring of frames"],
)
def test_of_rings_that_cannot_be_read_it_is_not_known_whether_they_are_full(
    shares: dict[int, float | None], behind: bool | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = Suspect(process=Process(9, "server", 1), mapped=frozenset(), packet_sockets={7: 2, 8: 2})
    monkeypatch.setattr(watch, "waiting_share", lambda _pid, inode, _ring: shares[inode])
    assert watch._is_behind(one, dict.fromkeys(shares, PacketRing(4096, 64, 2048))) is behind


def test_a_program_that_hangs_shifts_no_time_of_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging:
        source = ""

        def read(self) -> Statement:
            time.sleep(0.3)
            return Statement()

        def key(self, thread: Spin, pid: int) -> str | None:
            return None

    def detect(one: Suspect) -> Detected | None:
        if one.process.pid not in pids:
            return None
        return Detected(kind="RDMA", evidence=(), account=Hanging() if one.process.pid == pids[0] else None)

    monkeypatch.setattr(watch, "DETECTORS", (detect,))
    with PollerWatch(tmp_path) as looking, running(SPINNER, 2) as started:
        pids = [each.pid for each in started]
        looking.begin()
        at = {each.suspect.process.pid: now.at for each, now in zip(looking._tracked, looking._before, strict=True)}
    assert at[pids[0]] - at[pids[1]] > 0.2


@pytest.mark.parametrize(
    ("told", "bypass", "counted"),
    [
        (Statement(received=5), True, True),
        (Statement(cycles={"worker": (1, 2)}), True, False),
        (Statement(shares={"worker": (0.5, "its mean")}), True, False),
        (Statement(received=5), False, False),
    ],
)
def test_counters_are_asked_for_only_where_a_program_that_takes_packets_tells_nothing_of_its_time(
    told: Statement, bypass: bool, counted: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Account:
        source = ""

        def read(self) -> Statement:
            return told

        def key(self, thread: Spin, pid: int) -> str | None:
            return None

    asked: list[int] = []

    class Counters(ThreadCounters):
        def begin(self, tids: Iterable[int]) -> None:
            asked.extend(tids)

    monkeypatch.setattr(watch, "ThreadCounters", Counters)
    with running(SPINNER) as (spinner,), PollerWatch(tmp_path) as looking:

        def detect(one: Suspect) -> Detected | None:
            ours = one.process.pid == spinner.pid
            return Detected(kind="RDMA", evidence=(), account=Account(), bypass=bypass) if ours else None

        monkeypatch.setattr(watch, "DETECTORS", (detect,))

        def begun() -> bool:
            looking.begin()
            return bool(looking._tracked)

        until(begun, "it to have the most of its CPU")
    assert asked == [spinner.pid] * counted
