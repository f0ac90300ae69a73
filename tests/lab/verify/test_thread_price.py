"""What NAPI threads cost at the load that is there, measured: for the lab's memcached, and beside a program that never
leaves their CPU."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napctl.cli.apply import Applied
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server
from napctl.model.change import ThreadChange
from napctl.model.settings import NapiSettings
from napctl.model.value import from_json
from napctl.verify.verify import Options
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import Napctl, at_server, machine_of, set_napi
from tests.lab.plans import HEAD
from tests.tries import in_one_of

pytestmark = [pytest.mark.lab, pytest.mark.alone]

PLAN = (
    '[server0]\ndriver = "veth"\nrx-queues = 1\ntx-queues = 1\n'
    '[server0.thread.0]\nthreaded = "enabled"\nnice = {nice}\ncpus = "{cpu}"\n'
)


def written(lab: Lab, path: Path, nice: int = 19) -> Path:
    """For an instance that has a thread at nice 0 already."""
    (napi,) = lab.server.napis()
    assert napi.thread_pid is not None
    os.setpriority(os.PRIO_PROCESS, napi.thread_pid, 0)
    path.write_text(HEAD + PLAN.format(cpu=lab.server.cpu, nice=nice))
    return path


@contextmanager
def occupied(cpu: int) -> Iterator[None]:
    """By a program at nice 0 that never waits."""
    with subprocess.Popen([sys.executable, "-c", "while True: pass"]) as spinning:
        os.setpriority(os.PRIO_PROCESS, spinning.pid, 0)
        os.sched_setaffinity(spinning.pid, {cpu})
        try:
            yield
        finally:
            spinning.kill()


@pytest.mark.parametrize("nice", [pytest.param(1, marks=pytest.mark.long), 19])
def test_at_a_normal_load_threads_are_affordable_and_applied(
    nice: int, lab: Lab, server: Server, napctl: Napctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load sleeps between its requests, and leaves the other CPU to whatever else the machine does. Beside that a
    thread at nice 19 may be too dear indeed: then that is what is found, and nothing is applied."""
    monkeypatch.setattr("napctl.cli.apply.Options", lambda: Options(seconds=0.5))
    plan = written(lab, tmp_path / "plan.toml", nice=nice)
    before = machine_of(lab.server)

    def attempt() -> None:
        done = napctl("apply", plan, "--verify", "--json", *at_server(lab), timeout_s=90)

        applied = from_json(done.stdout, Applied)
        assert applied.verification is not None
        (price,) = applied.verification.prices
        assert price.waited_us is not None
        assert price.cpu is not None
        assert price.cpu.ratio > 0
        assert price.goodput is not None
        if nice == 19 and price.bad:
            assert (done.status, applied.transaction) == (1, None)
            assert machine_of(lab.server) == before
            return
        assert done.status == 0, done
        assert napctl("rollback").status == 0
        assert applied.transaction is not None
        (change,) = applied.transaction.changes
        assert isinstance(change, ThreadChange)
        assert change.after.nice == nice
        assert price.goodput.ratio > 0.9

    with started(lab, server, LoadSpec(rate_per_second=5_000, seconds=100, sleeps=True)) as load:
        load.wait_for_warmup()
        in_one_of(attempt)


@pytest.mark.long
def test_beside_a_program_that_never_leaves_the_cpu_they_are_too_dear_and_not_applied(
    lab: Lab, server: Server, napctl: Napctl, tmp_path: Path
) -> None:
    plan = written(lab, tmp_path / "plan.toml")
    before = machine_of(lab.server)
    closed = LoadSpec(rate_per_second=0, seconds=60, connections=16, warmup_seconds=0.1, closed_depth=1)
    with occupied(lab.server.cpu), started(lab, server, closed):
        done = napctl("apply", plan, "--verify", *at_server(lab), timeout_s=90)

    assert done.status == 1, done
    assert "too dear" in done.stdout
    assert "not applied: everything is as it was before" in done.stdout
    assert machine_of(lab.server) == before
    assert napctl.live() == []


@pytest.mark.long
def test_a_thread_in_the_place_of_a_softirq_has_a_price_too(
    lab: Lab, server: Server, load: LoadStarter, napctl: Napctl, tmp_path: Path
) -> None:
    plan = written(lab, tmp_path / "plan.toml")
    set_napi(lab, lab.server.napis()[0].napi_id, NapiSettings(threaded="disabled"))
    load(rate_per_second=5_000, seconds=60)

    done = napctl("verify", plan, "--settings", "threads", "--pairs", "2", *at_server(lab), timeout_s=90)

    assert done.status in (0, 1), done
    assert "server0 threads of NAPI instance 0:" in done.stdout
    assert "waits" in done.stdout
    assert lab.server.napis()[0].settings.threaded == "disabled"
