"""NAPI threads on real drivers, whose instances a softirq polls: on and off, over a reset, and threads that spin."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from napctl.kernel import napi_threads
from napctl.kernel.cpu_time import run_seconds
from napctl.kernel.netdev import Netdev
from napctl.model.machine import Napi
from napctl.plan.file import plan_of
from tests.lab.helpers import Napctl, until
from tests.lab.plans import HEAD
from tests.vm.test_apply import ifindex_of
from tests.vm.wire import Wire, run

THREAD = '[{device}.thread.0]\nthreaded = "{threaded}"\nnice = 19\ncpus = "0"\n'


def napi_of(device: str) -> Napi:
    """Its first one."""
    with Netdev() as netdev:
        return netdev.napis(ifindex_of(device))[0]


def planned(napctl: Napctl, device: str, directory: Path) -> Path:
    """What the goal proposes, all instances counted as busy."""
    path = directory / "threads.toml"
    done = napctl("plan", device, "--goal", "resilient", "--window", "0", "--output", path, timeout_s=120)
    assert done.status == 0, done
    return path


def scheduled(napi: Napi) -> tuple[int, str] | None:
    return napi_threads.scheduled(napi.thread_pid) if napi.thread_pid is not None else None


def test_a_softirq_device_gets_threads_and_loses_them_again(wire: Wire, napctl: Napctl, tmp_path: Path) -> None:
    before = napctl("status", wire.device, "--json", timeout_s=120).json["devices"]
    assert (napi_of(wire.device).settings.threaded, napi_of(wire.device).thread_pid) == ("disabled", None)
    plan = planned(napctl, wire.device, tmp_path)
    cpus = plan_of(plan.read_text(), "plan").devices[0].threads[0].thread.cpus

    assert napctl("apply", plan, timeout_s=120).status == 0

    now = napi_of(wire.device)
    assert (now.settings.threaded, scheduled(now)) == ("enabled", (19, cpus))
    assert now.thread_pid is not None
    ran = run_seconds(now.thread_pid)
    wire.ping(20)
    assert run_seconds(now.thread_pid) > ran, "the thread polls"
    assert napctl("rollback", timeout_s=120).status == 0
    assert (napi_of(wire.device).settings.threaded, napi_of(wire.device).thread_pid) == ("disabled", None)
    assert napctl("status", wire.device, "--json", timeout_s=120).json["devices"] == before
    wire.ping(5)


def test_killed_amid_the_change_the_softirq_comes_back(
    wire: Wire, napctl: Napctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = planned(napctl, wire.device, tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(os, "setpriority", lambda *_: os.kill(os.getpid(), signal.SIGKILL))
        done = napctl("apply", plan, timeout_s=120)
    assert done.status == -signal.SIGKILL, done
    assert napi_of(wire.device).settings.threaded == "enabled"
    assert napctl("recover", timeout_s=120).status == 0
    assert (napi_of(wire.device).settings.threaded, napi_of(wire.device).thread_pid) == ("disabled", None)


@pytest.fixture
def virtio1() -> Iterator[str]:
    """Up, and at the end as it was."""
    run("ip", "link", "set", "virtio1", "up")
    yield "virtio1"
    run("ip", "link", "set", "virtio1", "down")


def test_a_driver_that_keeps_its_configuration_gives_the_thread_back_after_a_reset(
    wire: Wire, virtio1: str, napctl: Napctl, tmp_path: Path
) -> None:
    """With the same id, so that it is still known and is taken back; but the new thread begins at nice 0."""
    plan = planned(napctl, virtio1, tmp_path)
    assert napctl("apply", plan, timeout_s=120).status == 0
    first = napi_of(virtio1)
    for state in ("down", "up"):
        run("ip", "link", "set", virtio1, state)
    until(lambda: napi_of(virtio1).napi_id == first.napi_id, "its NAPI instance")
    assert napctl("rollback", timeout_s=120).status == 0
    assert (napi_of(virtio1).settings.threaded, napi_of(virtio1).thread_pid) == ("disabled", None)


def test_a_thread_that_spins_takes_its_cpu_until_it_is_rolled_back(wire: Wire, napctl: Napctl, tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    device = f'[{wire.device}]\ndriver = "{wire.driver}"\nrx-queues = 1\ntx-queues = 1\n'
    plan.write_text(HEAD + device + THREAD.format(device=wire.device, threaded="busy-poll"))
    assert napctl("apply", plan, timeout_s=120).status == 0
    now = napi_of(wire.device)
    assert now.settings.threaded == "busy-poll"
    assert now.thread_pid is not None
    assert os.sched_getaffinity(now.thread_pid) == {0}
    try:
        wire.ping(5)  # it spins from its first packet on
        before = run_seconds(now.thread_pid)
        until(lambda: run_seconds(now.thread_pid or 0) - before > 0.2, "it to spin")
    finally:  # it would take the CPU from all tests to come
        assert napctl("rollback", timeout_s=120).status == 0
    assert (napi_of(wire.device).settings.threaded, napi_of(wire.device).thread_pid) == ("disabled", None)
    wire.ping(5)
