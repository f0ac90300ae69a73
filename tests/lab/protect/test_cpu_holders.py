"""Programs that never wait for anything are found, and told from those that packets may be for."""

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from napctl.model.limits import MOST_NICE
from napctl.protect.cpu_holders import CpuHolders
from napctl.protect.starved import CpuHolder, why_it_would
from tests.lab.helpers import until

pytestmark = pytest.mark.lab

SPINS = "while True: pass"
LISTENS = "import socket\nheld = socket.create_server(('127.0.0.1', 0))\n"
IDLES = f"import os\nos.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))\n{SPINS}"
SLEEPS = "import time\nwhile True:\n    sum(range(1000))\n    time.sleep(0.0001)"


@contextmanager
def running(code: str) -> Iterator[int]:
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            yield process.pid
        finally:
            process.kill()


def found(looking: CpuHolders, pid: int) -> CpuHolder | None:
    time.sleep(0.1)
    return next((each for each in looking.read() if each.pid == pid), None)


def test_one_that_spins_holds_its_cpu_and_one_with_a_socket_may_be_a_server() -> None:
    looking = CpuHolders()
    with running(SPINS) as spinning, running(LISTENS + SPINS) as serving:
        own = until(lambda: found(looking, spinning), "the one that spins", 60)
        other = until(lambda: found(looking, serving), "the one with a socket", 60)
    assert own is not None
    assert other is not None
    assert (own.has_sockets, other.has_sockets) == (False, True)
    assert own.name.startswith("python")
    assert own.ran >= 0.2


def test_one_that_sleeps_now_and_then_holds_none() -> None:
    looking = CpuHolders()
    with running(SLEEPS) as sleeping, running(SPINS) as spinning:
        until(lambda: found(looking, spinning), "the one that spins", 60)
        assert found(looking, sleeping) is None


def test_one_that_comes_after_all_others_is_no_reason_to_keep_threads_from_being_nice() -> None:
    """SCHED_IDLE: it has less than what is at nice 19, though its own nice value is 0."""
    looking = CpuHolders()
    with running(IDLES) as idling:
        own = until(lambda: found(looking, idling), "the one that has what others leave", 60)
    assert own is not None
    assert own.nice > MOST_NICE
    assert why_it_would({own.cpu}, [own]) == ""
    assert why_it_would({own.cpu}, [replace(own, nice=0)])
