"""What the tests of NAPI threads share: a veth of two queues, one of which a softirq polls, and a plan for both."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from napctl.kernel import napi_threads
from napctl.lab.bed import Lab
from napctl.model.change import ThreadChange
from napctl.model.settings import NapiSettings, ThreadSettings
from napctl.plan.diff import thread_change
from tests.lab.helpers import machine_of, set_napi
from tests.lab.plans import HEAD

SOFTIRQ = NapiSettings(threaded="disabled")
NICE = ThreadSettings(threaded="enabled", nice=19, cpus="0")
PLAN = (
    '[server0]\ndriver = "veth"\nrx-queues = 2\ntx-queues = 2\n'
    '[server0.thread.0]\nthreaded = "enabled"\nnice = 19\ncpus = "0"\n'
    '[server0.thread.1]\nthreaded = "enabled"\nnice = 12\n'
)
BEFORE: list[tuple[int, str] | None] = [None, (3, "1")]
APPLIED = [(19, "0"), (12, "1")]


@contextmanager
def softirq_and_thread() -> Iterator[Lab]:
    """Two instances: queue 0 is polled by a softirq, queue 1 by a thread at nice 3 on the second CPU."""
    with Lab.build(queues=2) as lab:
        softirq, thread = lab.server.napis()
        set_napi(lab, softirq.napi_id, SOFTIRQ)
        assert thread.thread_pid is not None
        os.setpriority(os.PRIO_PROCESS, thread.thread_pid, 3)
        os.sched_setaffinity(thread.thread_pid, {1})
        yield lab


def write_threads(path: Path) -> Path:
    """A plan."""
    path.write_text(HEAD + PLAN)
    return path


def scheduled(lab: Lab) -> list[tuple[int, str] | None]:
    """(nice, CPUs) of the thread of each instance; None: it has none."""
    pids = [napi.thread_pid for napi in lab.server.napis()]
    return [napi_threads.scheduled(pid) if pid is not None else None for pid in pids]


def pid_of(lab: Lab, place: int) -> int:
    pid = lab.server.napis()[place].thread_pid
    assert pid is not None
    return pid


def change_to(lab: Lab, wanted: ThreadSettings) -> ThreadChange:
    (device,) = machine_of(lab.server).devices
    found = thread_change(device, device.napis[0], lab.server.namespace.inode, wanted)
    assert found is not None
    return found
