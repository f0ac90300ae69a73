"""A flood that comes from outside the machine, to a device with real interrupts: what protection keeps of a server's
goodput."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import pytest

from napctl.lab.compiled import compiled
from napctl.lab.flood import dear_rules, peak_of
from tests.lab.following import Following, ended_by
from tests.lab.helpers import Napctl, until
from tests.vm.outside import ADDRESS, DEVICE, OUTSIDE_ADDRESS, PORT, flooded
from tests.vm.test_cpu_hotplug import offline
from tests.vm.test_protect import PATIENCE_S, napi_of, on
from tests.vm.wire import run

SERVED_US = 60
FIRST_RATE = 500.0
"""Packets/s, far below what an emulated server answers."""
TIMES = 4
"""What comes, of the peak."""
ROUNDS = 3


@pytest.fixture
def napctl(state: Path) -> Napctl:
    """It is started, and runs for a while."""
    return Napctl(state)


@pytest.fixture
def server() -> Iterator[None]:
    """On the only CPU that is online; packets that are dear come to it, over a wire that leads out of the machine.

    With two that one thread emulates, what runs on the one would have half of the other's time, nice or not.
    """
    if not Path(f"/sys/class/net/{DEVICE}").exists():
        pytest.skip("nobody is outside: scripts/run-in-vm was started without --outside")
    with ExitStack() as undo:
        undo.enter_context(offline())
        run("sysctl", "-qw", f"net.ipv6.conf.{DEVICE}.disable_ipv6=1")
        run("ip", "address", "add", f"{ADDRESS}/24", "dev", DEVICE)
        undo.callback(run, "ip", "address", "flush", "dev", DEVICE)
        run("ip", "link", "set", DEVICE, "up")
        undo.callback(run, "ip", "link", "set", DEVICE, "down")
        until(lambda: Path(f"/sys/class/net/{DEVICE}/carrier").read_text().strip() == "1", "a link")
        run("ping", "-q", "-c", "1", "-W", "10", OUTSIDE_ADDRESS)
        keep_neighbour()
        subprocess.run(["nft", "-f", "-"], input=dear_rules(), text=True, check=True)
        undo.callback(run, "nft", "delete", "table", "ip", "dear")
        undo.enter_context(on(0, str(compiled("floodserver")), ADDRESS, str(PORT), str(SERVED_US * 1000), "recv"))
        until(lambda: f"{ADDRESS}:{PORT}" in run("ss", "-Hlun"), "the server")
        yield


def keep_neighbour() -> None:
    """Who is outside is not asked for his address again: in a flood the answer would be lost."""
    (known,) = run("ip", "neighbour", "show", OUTSIDE_ADDRESS, "dev", DEVICE).splitlines()
    mac = known.split("lladdr ")[1].split()[0]
    run("ip", "neighbour", "replace", OUTSIDE_ADDRESS, "lladdr", mac, "dev", DEVICE, "nud", "permanent")


@dataclass(frozen=True)
class Goodput:
    """Of one round: a second, from the second second of a flood on."""

    peak: float
    default: float
    protected: float

    def __str__(self) -> str:
        shares = f"default {self.default / self.peak:.0%}, protected {self.protected / self.peak:.0%}"
        return f"peak {self.peak:.0f}/s; at {TIMES} times that: {shares}"


def answered(rate: float, seconds: float) -> float:
    found = flooded(rate, seconds)
    assert found.left_out < 0.05 * found.sent, found
    return found.answered_per_second(after_seconds=1)


def protected(napctl: Napctl, rate: float) -> float:
    """Under a protection that itself switches the device from softirqs to NAPI threads, and back after the flood."""
    with ended_by(signal.SIGINT, Following(napctl.start("protect", DEVICE, "--json"))) as it:
        it.told("watched: ", patience_s=PATIENCE_S)
        it.told("napctl runs", patience_s=PATIENCE_S)
        assert (napi_of(DEVICE).settings.threaded, napctl.live()) == ("disabled", [])
        goodput = answered(rate, seconds=8)
        (transaction,) = napctl.live()
        assert (transaction.kind, transaction.state) == ("protect", "applied")
        after = [(each.after.threaded, each.after.nice) for each in transaction.changes]  # type: ignore[union-attr]
        assert after == [("enabled", None), (None, 19)]
        it.told("overload is over: nice and threads put back", patience_s=PATIENCE_S)
        assert (napi_of(DEVICE).settings.threaded, napi_of(DEVICE).thread_pid) == ("disabled", None)
        assert napctl.live() == []
        assert it.end(signal.SIGINT, patience_s=PATIENCE_S) == 0
    assert it.errors == ""
    print("\n".join(it.since()))
    return goodput


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("server")
def test_at_four_times_the_peak_a_protected_server_answers_as_many_as_at_the_peak_without(napctl: Napctl) -> None:
    found = []
    for _ in range(ROUNDS):
        peak = peak_of(partial(flooded, seconds=1.5), FIRST_RATE)
        rate = TIMES * peak
        found.append(Goodput(peak, answered(rate, seconds=5), protected(napctl, rate)))
        print(found[-1])
    assert median(each.protected / each.peak for each in found) >= 1, [str(each) for each in found]
