"""A flood that comes from outside the machine, to a device with real interrupts: what protection keeps of a server's
goodput."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import pytest

from napctl.lab.compiled import compiled
from napctl.lab.flood import dear_rules
from tests.lab.following import Following, ended_by
from tests.lab.helpers import Napctl, until
from tests.tries import in_one_of
from tests.vm.outside import ADDRESS, DEVICE, OUTSIDE_ADDRESS, PORT, flooded
from tests.vm.test_protect import FLOODED_CPU, PATIENCE_S, napi_of, on, taken_on_its_cpu
from tests.vm.wire import Wire, run

SERVED_US = 60
RULES = 150
"""Emulated, a packet costs about as much with them as answering it does."""
FIRST_RATE = 1000.0
"""Packets/s, far below what an emulated server answers."""
PAST_PEAK = 1.5
TIMES = 4
"""What comes, of the peak."""
SETTLING_SECONDS = 1.0
"""From the second second on."""
LEAST_CPU_SHARE = 0.6
ROUNDS = 3


@pytest.fixture
def napctl(state: Path) -> Napctl:
    """It is started, and runs for a while."""
    return Napctl(state)


@pytest.fixture
def server() -> Iterator[None]:
    """Where the packets come to, which are dear, over a wire that leads out of the machine."""
    if not Path(f"/sys/class/net/{DEVICE}").exists():
        pytest.skip("nobody is outside: scripts/run-in-vm was started without --outside")
    with ExitStack() as undo:
        run("sysctl", "-qw", f"net.ipv6.conf.{DEVICE}.disable_ipv6=1")
        run("ip", "address", "add", f"{ADDRESS}/24", "dev", DEVICE)
        undo.callback(run, "ip", "address", "flush", "dev", DEVICE)
        run("ip", "link", "set", DEVICE, "up")
        undo.callback(run, "ip", "link", "set", DEVICE, "down")
        until(lambda: Path(f"/sys/class/net/{DEVICE}/carrier").read_text().strip() == "1", "a link")
        run("ping", "-q", "-c", "1", "-W", "10", OUTSIDE_ADDRESS)
        keep_neighbour()
        undo.enter_context(taken_on_its_cpu(Wire(device=DEVICE)))
        subprocess.run(["nft", "-f", "-"], input=dear_rules(RULES), text=True, check=True)
        undo.callback(run, "nft", "delete", "table", "ip", "dear")
        undo.enter_context(
            on(FLOODED_CPU, str(compiled("floodserver")), ADDRESS, str(PORT), str(SERVED_US * 1000), "recv")
        )
        until(lambda: f"{ADDRESS}:{PORT}" in run("ss", "-Hlun"), "the server")
        yield


def keep_neighbour() -> None:
    """Who is outside is not asked for his address again: in a flood the answer would be lost."""
    (known,) = run("ip", "neighbour", "show", OUTSIDE_ADDRESS, "dev", DEVICE).splitlines()
    mac = known.split("lladdr ")[1].split()[0]
    run("ip", "neighbour", "replace", OUTSIDE_ADDRESS, "lladdr", mac, "dev", DEVICE, "nud", "permanent")


@dataclass(frozen=True)
class Round:
    """Answers in each second that the guest's CPU had."""

    peak: float
    default: float
    protected: float
    beside_napctl: float
    """The same of the time that napctl left."""

    def __str__(self) -> str:
        each = (self.default / self.peak, self.protected / self.peak, self.beside_napctl / self.peak)
        shares = "default {:.0%}, protected {:.0%}, of the time that napctl left {:.0%}".format(*each)
        return f"peak {self.peak:.0f}/s; at {TIMES} times that: {shares}"


def peak() -> float:
    """Of the default: the most, at whatever is offered, up to what it cannot answer."""
    rate, best = FIRST_RATE, 0.0
    while rate < PAST_PEAK * max(best, FIRST_RATE):
        best = max(best, flooded(rate, seconds=1.5, settling_seconds=0.3).goodput)
        rate *= 1.3
    return best


def goodput(rate: float, seconds: float) -> float:
    """Of a flood that was one, while the guest had most of a CPU of the host's."""
    found = flooded(rate, seconds, SETTLING_SECONDS)
    print(f"flood of {rate:.0f}/s: {found}")
    assert found.flood.sent > 0.9 * rate * seconds, "the flood had no CPU"
    assert found.guest_cpu_seconds > LEAST_CPU_SHARE * (seconds - SETTLING_SECONDS), "the guest had no CPU"
    return found.goodput


def cpu_seconds(pid: int) -> float:
    """What a process has had."""
    return sum(map(int, Path(f"/proc/{pid}/stat").read_text().split()[13:15])) / os.sysconf("SC_CLK_TCK")


def keep_on_its_cpu(it: Following) -> None:
    """The NAPI thread that protection makes. One thread emulates both CPUs: on the other one a NAPI thread would take
    half of the server's time, nice or not."""
    it.told("overload: NAPI threads for NAPI", patience_s=20)
    pid = napi_of(DEVICE).thread_pid
    assert pid is not None
    os.sched_setaffinity(pid, {FLOODED_CPU})


def protected(napctl: Napctl, rate: float) -> tuple[float, float]:
    """Under a protection that itself switches the device from softirqs to NAPI threads, and back after the flood: as it
    is, and had napctl taken nothing, which has a third of the time here, as it is emulated."""
    with ended_by(signal.SIGINT, Following(napctl.start("protect", DEVICE, "--json"))) as it:
        it.told("watched: ", patience_s=PATIENCE_S)
        it.told("napctl runs", patience_s=PATIENCE_S)
        assert (napi_of(DEVICE).settings.threaded, napctl.live()) == ("disabled", [])
        with ThreadPoolExecutor(1) as beside:
            beside.submit(keep_on_its_cpu, it)
            before = cpu_seconds(it.pid)
            began = time.monotonic()
            found = goodput(rate, seconds=10)
            taken = (cpu_seconds(it.pid) - before) / (time.monotonic() - began)
        (transaction,) = napctl.live()
        assert (transaction.kind, transaction.state) == ("protect", "applied")
        after = [(each.after.threaded, each.after.nice) for each in transaction.changes]  # type: ignore[union-attr]
        assert after == [("enabled", None), (None, 19)]
        it.told("overload is over: nice and threads put back", patience_s=PATIENCE_S)
        assert (napi_of(DEVICE).settings.threaded, napi_of(DEVICE).thread_pid) == ("disabled", None)
        assert napctl.live() == []
        assert it.end(signal.SIGINT, patience_s=PATIENCE_S) == 0
    assert it.errors == ""
    print(f"napctl had {taken:.0%} of the time\n" + "\n".join(it.since()))
    return found, found / (1 - taken)


@pytest.mark.long
@pytest.mark.timeout(1200)
@pytest.mark.usefixtures("server")
def test_at_four_times_the_peak_a_protected_server_answers_as_many_as_at_the_peak_without(napctl: Napctl) -> None:
    found = []
    for _ in range(ROUNDS):
        most = peak()
        rate = TIMES * most
        default = in_one_of(partial(goodput, rate, seconds=5))
        found.append(Round(most, default, *in_one_of(partial(protected, napctl, rate))))
        print(found[-1])
    assert median(each.default / each.peak for each in found) < 0.9, "a flood that does no harm"
    assert median(each.beside_napctl / each.peak for each in found) >= 1, [str(each) for each in found]
