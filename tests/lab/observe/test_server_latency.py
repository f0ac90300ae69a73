"""What the machine of a server sees of its latency is what its clients see, whichever way packets are taken."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import pytest

from napctl.kernel.processes import threads
from napctl.lab.bed import Lab
from napctl.lab.load import LoadResult, LoadSpec, started
from napctl.lab.servers import Server
from napctl.model.latency import LatencyHistogram, ServerLatency
from napctl.model.settings import EpollParams, NapiSettings
from napctl.observe.server_latency import LatencyMeter
from napctl.probe.suspension import SuspensionProbe
from tests.lab.conftest import LoadStarter
from tests.lab.helpers import PREFERS, UNSET, Napctl, ending, params_of, set_napi, set_params, until
from tests.meanwhile import again_and_again
from tests.tries import in_one_of

pytestmark = pytest.mark.lab

INTERRUPTS = (NapiSettings(defer_hard_irqs=0, gro_flush_timeout_ns=0, irq_suspend_timeout_ns=0), UNSET)
DEFERRAL = (NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=200_000, irq_suspend_timeout_ns=0), UNSET)
SUSPENSION = (
    NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=200_000, irq_suspend_timeout_ns=20_000_000),
    PREFERS,
)
WAYS = {"interrupts": INTERRUPTS, "deferral": DEFERRAL, "suspension": SUSPENSION}
ATTEMPTS = 4
"""Other work of the machine disturbs the load generator; what it tells then is not the server's latency."""
LATE = 0.002
"""Share of requests that it may send late: well below the hundredth that makes the p99."""


def take(lab: Lab, server: Server, way: tuple[NapiSettings, EpollParams]) -> None:
    napi, params = way
    for fd in params_of(server.pid):
        set_params(server.pid, fd, params)
    for each in lab.server.napis():
        set_napi(lab, each.napi_id, napi)


def exchange(lab: Lab, server: Server, rate: float, seconds: float = 1.5) -> tuple[LoadResult, ServerLatency]:
    with LatencyMeter([server.pid]) as meter:
        spec = LoadSpec(rate_per_second=rate, seconds=seconds, warmup_seconds=0.3)
        with started(lab, server, spec) as load:
            load.wait_for_warmup()
            meter.restart()
            result = load.result()
        return result, meter.window()


def us(histogram: LatencyHistogram, share: float) -> float:
    found = histogram.percentile_ns(share)
    assert found is not None
    return found / 1000


def replied_us(latency: ServerLatency, share: float) -> float:
    assert latency.together
    return us(latency.together.until_reply, share)


@pytest.fixture
def beside_us(lab: Lab, server: Server) -> float:
    """What a client waits more than the server's machine sees. Not idle: who sleeps is slow to wake."""
    found = []
    for _ in range(3):
        result, latency = exchange(lab, server, 5_000, 0.7)
        found.append((result.p50_us or 0) - replied_us(latency, 0.5))
    return max(0.0, min(found))


@pytest.mark.alone
@pytest.mark.long
@pytest.mark.parametrize("rate", [5_000, 40_000])
@pytest.mark.parametrize("way", WAYS)
def test_its_percentiles_are_the_clients(lab: Lab, server: Server, beside_us: float, way: str, rate: float) -> None:
    take(lab, server, WAYS[way])
    seen = []
    for _ in range(ATTEMPTS):
        result, latency = exchange(lab, server, rate)
        if result.late_share > LATE:
            continue
        assert result.p50_us
        assert result.p99_us
        p50, p99 = ((replied_us(latency, share) + beside_us) for share in (0.5, 0.99))
        seen.append((round(p50 / result.p50_us, 2), round(p99 / result.p99_us, 2)))
        if 0.8 <= seen[-1][0] <= 1.25 and 0.7 <= seen[-1][1] <= 1.43:
            return
    if not seen:
        pytest.skip("other work of the machine disturbed the load generator each time")
    pytest.fail(f"server's by client's p50, p99: {seen}")


LONG_WAYS = {
    "poll": NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=10_000_000, irq_suspend_timeout_ns=0),
    "server": INTERRUPTS[0],
}
"""Who makes requests wait for milliseconds, beside which what disturbs a client is little."""


@pytest.mark.alone
@pytest.mark.parametrize("cause", LONG_WAYS)
def test_of_long_waits_its_percentiles_are_the_clients(lab: Lab, server: Server, cause: str) -> None:
    """Coarser than the test above, and sure on a machine that others use: it fails if one is twice the other."""
    take(lab, server, (LONG_WAYS[cause], UNSET))
    seen = []
    for _ in range(ATTEMPTS):
        with pausing(server.pid) if cause == "server" else nullcontext():
            result, latency = exchange(lab, server, 2_000)
        client = [result.p50_us or 0, result.p99_us or 0]
        ratios = [replied_us(latency, share) / us for share, us in zip((0.5, 0.99), client, strict=True)]
        seen.append((client, [round(each, 2) for each in ratios]))
        if all(0.7 <= each <= 1.4 for each in ratios):
            return
    pytest.fail(f"client's p50 and p99 in µs, server's by client's: {seen}")


@contextmanager
def pausing(pid: int) -> Iterator[None]:
    """Let the process run for 5 ms after 10 to 30 ms of standing still, again and again."""
    pauses = random.Random(1)

    def pause() -> None:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(pauses.uniform(0.01, 0.03))
        os.kill(pid, signal.SIGCONT)

    with again_and_again(pause, 0.005):
        yield


@pytest.mark.alone
def test_arrivals_are_spread_evenly_over_the_wait_for_a_poll(lab: Lab, server: Server, load: LoadStarter) -> None:
    timer_us = 5_000
    take(lab, server, (NapiSettings(defer_hard_irqs=100, gro_flush_timeout_ns=timer_us * 1000), UNSET))
    load(2_000)

    def attempt() -> None:
        with LatencyMeter([server.pid]) as meter:
            subprocess.run(["sleep", "1"], check=True)
            found = meter.window().together
        assert found
        assert us(found.waited_for_poll_bound, 0.5) == pytest.approx(timer_us, rel=0.2)
        assert us(found.until_read, 0.5) == pytest.approx(timer_us / 2, rel=0.3)
        assert us(found.until_read, 0.1) < timer_us / 4

    in_one_of(attempt)


@pytest.mark.alone
def test_a_server_that_gets_no_cpu_is_seen_though_its_packets_are_polled_at_once(
    lab: Lab, server: Server, load: LoadStarter
) -> None:
    for thread in threads(server.pid):  # a ninth of the weight of each of the others, about what so little load needs
        os.setpriority(os.PRIO_PROCESS, thread, min(19, os.getpriority(os.PRIO_PROCESS, thread) + 10))
    load(1_000)

    def attempt() -> None:
        with SuspensionProbe.load() as polls, LatencyMeter([server.pid]) as meter:
            with spinning(lab.server.cpu), spinning(lab.server.cpu):
                subprocess.run(["sleep", "1"], check=True)
            found = meter.window().together
            (waits,) = [each for each in polls.read() if each.netns == lab.server.namespace.inode]
        assert found
        assert us(found.until_read, 0.99) > 1_000
        assert (waits.wait_percentile_us(0.99) or 0) < 100, "by the wait for a poll nothing was wrong"

    in_one_of(attempt)


@contextmanager
def spinning(cpu: int) -> Iterator[None]:
    """Another program that wants all of that CPU, as it does where softirqs take it."""
    code = f"import os\nos.sched_setaffinity(0, {{{cpu}}})\nwhile True: pass"
    with subprocess.Popen([sys.executable, "-c", code]) as process:
        try:
            yield
        finally:
            process.kill()


def watched(napctl: Napctl, server: Server) -> Any:
    return napctl("watch", "--target", server.pid, "--seconds", 1, "--json").json["latency"]


def with_samples(latency: Any) -> Any:
    """It, if it stands on some: where the server has to wait for its CPU, a second shows few requests."""
    return latency if latency["together"] and latency["together"]["samples"] > 20 else None


def whole(latency: Any) -> Any:
    """It, if nothing is missing: where the server gets no CPU, more requests wait than the probe has places."""
    return latency if latency and not latency["lacks"] else None


def test_watch_tells_it_per_worker_and_together(lab: Lab, server: Server, load: LoadStarter, napctl: Napctl) -> None:
    load(5_000)
    found = until(lambda: whole(with_samples(watched(napctl, server))), "requests that were looked at, and none lost")
    (worker,) = found["processes"]
    assert worker["pid"] == server.pid
    assert found["together"] == {**worker, "pid": None}
    assert 0 < worker["until_read_p50_us"] <= worker["until_read_p99_us"]
    assert worker["until_reply_p50_us"] > 0  # of other requests: those whose reply fell into the window

    def words() -> str:
        told = napctl("watch", "--target", server.pid, "--seconds", 1).stdout
        return told if "server-side latency: read p50 " in told else ""

    assert all(len(line) <= 80 for line in until(words, "the same in words").splitlines())


def test_attached_tells_it(lab: Lab, server: Server, load: LoadStarter, napctl: Napctl) -> None:
    load(5_000)
    napctl.attach_quickly(server.pid)

    def told() -> Any:
        (standing,) = napctl("attached", "--json").json["attachments"]
        return with_samples(standing["latency"])

    until(told, "some requests that were looked at")
    until(lambda: "server-side latency: read p50 " in napctl("attached").stdout, "the same in words")


def test_two_servers_are_told_apart(lab: Lab, server: Server, load: LoadStarter) -> None:
    load(5_000)
    with ending(server), LatencyMeter([server.pid, os.getpid()]) as meter:
        window = until(lambda: (seen := meter.window()).together and seen, "a request that was looked at")
        assert window
    assert [each.pid for each in window.only([server.pid]).processes] == [server.pid]
    assert window.only([os.getpid()]).together is None
