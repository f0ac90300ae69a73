"""The load generator against closed forms, and against servers that pause, die or answer wrongly."""

import math
import os
import re
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.lab.bed import Lab
from napctl.lab.compiled import compiled
from napctl.lab.load import LoadSpec, run, started
from napctl.lab.servers import Server, memcached
from napctl.model.errors import NapctlError, Unsupported
from tests.lab.helpers import until
from tests.tries import in_one_of

pytestmark = pytest.mark.lab

PAUSE_S = 0.2


@pytest.fixture
def idle_server(shared_lab: Lab) -> Iterator[Server]:
    with memcached(shared_lab) as server:
        yield server
        server.process.kill()  # asked kindly, memcached takes a second


@pytest.mark.alone
def test_every_request_is_answered_at_about_the_rate_asked_for(shared_lab: Lab, idle_server: Server) -> None:
    def attempt() -> None:
        result = run(shared_lab, idle_server, LoadSpec(rate_per_second=5000, seconds=1, warmup_seconds=0.2))
        assert result.unanswered == 0
        assert result.sent == result.answered == sum(count for _, count in result.histogram)
        assert abs(result.sent - 5000) < 5 * math.sqrt(5000)  # Poisson: five standard deviations
        assert result.achieved_per_second == pytest.approx(result.sent / result.seconds, rel=0.05)
        assert result.seconds == 1

    in_one_of(attempt)


def test_the_seed_fixes_the_schedule(shared_lab: Lab, idle_server: Server) -> None:
    def sent(seed: int) -> int:
        spec = LoadSpec(rate_per_second=3000, seconds=0.3, warmup_seconds=0, seed=seed)
        return run(shared_lab, idle_server, spec).sent

    assert sent(7) == sent(7)
    assert len({sent(seed) for seed in (7, 8, 9, 10)}) > 1


def stop_for(pid: int, seconds: float) -> float:
    """Stop a process; how long it stood in fact, seconds."""
    start = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        time.sleep(seconds)
    finally:
        os.kill(pid, signal.SIGCONT)
    return time.monotonic() - start


@pytest.mark.alone
@pytest.mark.parametrize("rate", [pytest.param(2000, marks=pytest.mark.long), 20000])
def test_a_pause_is_charged_to_every_request_that_fell_due_in_it(
    shared_lab: Lab, idle_server: Server, rate: float
) -> None:
    in_one_of(lambda: pause_is_charged(shared_lab, idle_server, rate))


def pause_is_charged(lab: Lab, server: Server, rate: float) -> None:
    with started(lab, server, LoadSpec(rate_per_second=rate, seconds=2, warmup_seconds=0.2)) as load:
        load.wait_for_warmup()
        time.sleep(0.5)
        pause_s = stop_for(server.pid, PAUSE_S)
        result = load.result()
    assert result.unanswered == 0
    longest_us = result.histogram[-1][0]
    assert pause_s * 1e6 * 0.95 < longest_us < pause_s * 1e6 * 1.5
    # A request due u after the pause began waits for the rest of it, and for the u * rate requests before it:
    # pause - u * (1 - load), where load = rate / capacity. So (pause - t) / (1 - load) / 2 s of all requests wait for
    # longer than t; the capacity is not known, but the load is far below 1/2. A closed loop would show one each.
    for t in (0.02, 0.05, 0.1, 0.15):
        share = sum(count for upper, count in result.histogram if upper > t * 1e6) / result.answered
        assert (pause_s - t) / 2 - 0.02 < share < (pause_s - t) / (1 - 0.5) / 2 + 0.02


@pytest.mark.alone
def test_more_than_the_server_can_do_shows_as_latency_that_grows_and_as_unanswered(
    shared_lab: Lab, idle_server: Server
) -> None:
    spec = LoadSpec(rate_per_second=1_000_000, seconds=0.5, warmup_seconds=0, drain_seconds=0.05, keys_per_get=10)
    result = run(shared_lab, idle_server, spec)
    assert result.achieved_per_second < 900_000
    assert result.unanswered > 0
    assert result.p99_us is not None
    assert result.p99_us > 50_000


def test_one_that_sleeps_makes_the_same_requests_and_leaves_its_cpu_to_others(
    shared_lab: Lab, idle_server: Server
) -> None:
    """Beside others one that is awake has a part of its CPU only."""
    spec = LoadSpec(rate_per_second=2000, seconds=1, warmup_seconds=0.1, drain_seconds=10)
    awake, asleep = (run(shared_lab, idle_server, replace(spec, sleeps=sleeps)) for sleeps in (False, True))
    assert asleep.unanswered == 0
    assert asleep.sent == asleep.answered == awake.sent
    assert asleep.cpu_share < max(0.4 * awake.cpu_share, 0.2)


@pytest.mark.alone
def test_at_rest_nothing_is_sent(shared_lab: Lab, idle_server: Server) -> None:
    spec = LoadSpec(rate_per_second=0, seconds=0.5, warmup_seconds=0.1)
    result = run(shared_lab, idle_server, spec)
    assert (result.sent, result.answered, result.histogram) == (0, 0, ())
    # Beside other work late answers of the warm-up, which has four requests for each connection, come after it.
    assert result.achieved_per_second * result.seconds <= 4 * spec.connections
    assert result.cpu_share < 0.1


@pytest.mark.alone
def test_a_closed_loop_finds_the_saturating_load(shared_lab: Lab, idle_server: Server) -> None:
    spec = LoadSpec(rate_per_second=0, closed_depth=4, seconds=0.5, warmup_seconds=0.1, connections=8)

    def attempt() -> None:
        result = run(shared_lab, idle_server, spec)
        assert result.achieved_per_second > 10_000
        mean_s = sum(upper * count for upper, count in result.histogram) / result.answered / 1e6
        # Little's law: what is outstanding = throughput * time in the system.
        assert result.achieved_per_second * mean_s == pytest.approx(4 * 8, rel=0.15)

    in_one_of(attempt)


@pytest.mark.alone
def test_stopped_early_it_still_reports(shared_lab: Lab, idle_server: Server) -> None:
    def attempt() -> None:
        with started(shared_lab, idle_server, LoadSpec(rate_per_second=2000, seconds=60, warmup_seconds=0.1)) as load:
            load.wait_for_warmup()
            time.sleep(0.5)
            result = load.stop()
        assert 0.4 < result.seconds < 5
        assert result.achieved_per_second == pytest.approx(2000, rel=0.2)

    in_one_of(attempt)


def test_stopped_during_the_warm_up_it_reports_that_nothing_was_measured(shared_lab: Lab, idle_server: Server) -> None:
    spec = LoadSpec(rate_per_second=2000, seconds=60, warmup_seconds=60)
    with started(shared_lab, idle_server, spec) as load:
        until(lambda: catches(load.process.pid, signal.SIGTERM), "it to listen to signals")
        opened = Path(f"/proc/{load.process.pid}/fd")
        until(lambda: len(list(opened.iterdir())) > 3 + spec.connections, "its connections, and an epoll instance")
        time.sleep(1)  # each waits for an answer first
        result = load.stop()
    assert (result.seconds, result.sent, result.answered) == (0, 0, 0)


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether it does something when that signal comes."""
    (mask,) = re.findall(r"^SigCgt:\s+([0-9a-f]+)", Path(f"/proc/{pid}/status").read_text(), re.M)
    return bool(int(mask, 16) >> (number - 1) & 1)


def test_leaving_the_block_ends_the_load(shared_lab: Lab, idle_server: Server) -> None:
    with started(shared_lab, idle_server, LoadSpec(rate_per_second=100, seconds=60)) as load:
        pass
    assert load.process.returncode == -signal.SIGKILL


def test_the_clients_device_is_as_before_after_a_load(shared_lab: Lab, idle_server: Server) -> None:
    before = shared_lab.client.napis()
    with started(shared_lab, idle_server, LoadSpec(rate_per_second=0, seconds=0.1, warmup_seconds=0)):
        assert shared_lab.client.napis() != before
    assert shared_lab.client.napis() == before


def test_a_server_that_dies_is_one_clear_line(shared_lab: Lab, idle_server: Server) -> None:
    with started(shared_lab, idle_server, LoadSpec(rate_per_second=2000, seconds=60, warmup_seconds=0.1)) as load:
        load.wait_for_warmup()
        idle_server.process.kill()
        with pytest.raises(NapctlError, match=r"^openloop: the server closed a connection") as raised:
            load.result()
    assert "\n" not in str(raised.value)


def test_a_server_that_is_not_there_is_one_clear_line(shared_lab: Lab) -> None:
    with memcached(shared_lab) as server:
        server.process.kill()
        server.process.wait()
        with pytest.raises(NapctlError, match=r"cannot connect to 10.199.0.1:11211: Connection refused"):
            run(shared_lab, server, LoadSpec(rate_per_second=100, seconds=1))


def test_keys_that_the_server_does_not_hold_are_reported(shared_lab: Lab) -> None:
    with memcached(shared_lab, keys=2) as server:
        with pytest.raises(NapctlError, match="holds 2 of the 3 keys"):
            run(shared_lab, server, LoadSpec(rate_per_second=100, seconds=1, keys_per_get=3))
        server.process.kill()


def test_without_a_compiler_the_packages_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAPCTL_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(Unsupported, match="apt-get install gcc libc6-dev"):
        compiled("openloop")


def test_it_is_compiled_once_also_by_several_at_the_same_time(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NAPCTL_CACHE_DIR", str(tmp_path))
    threads = [threading.Thread(target=compiled, args=("openloop",)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    made = list(tmp_path.iterdir())
    assert made == [compiled("openloop")]
    assert os.access(made[0], os.X_OK)
