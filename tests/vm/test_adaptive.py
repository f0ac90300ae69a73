"""Levels for adaptive RX in a real driver: virtio_net takes them, its own adaptation obeys, and all of it is undone."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from napctl.cli.plan_reading import read_plan
from napctl.kernel.ethtool import Ethtool
from napctl.model.machine import Coalescing, DimProfile
from tests.lab.helpers import Napctl, until
from tests.vm.test_apply import coalescing_of, ifindex_of, written
from tests.vm.vduse_nic import Done
from tests.vm.wire import Wire, run

BUSY, QUIET = 1000, 1
"""Packets a second. An emulated CPU has time for that many, but for little else meanwhile."""
NAME = "napctl-dim"
Level = tuple[int, int]
"""µs, packets."""
QUICK = ("--window", "0")
KERNELS = tuple(DimProfile(usecs=usecs, pkts=256) for usecs in (1, 8, 64, 128, 256))
LEVELS = tuple(DimProfile(usecs=usecs, pkts=64) for usecs in (5, 8, 14, 24, 40))
LONG = ("--adaptive", "--range", "8ms..10ms", "--max-added-latency", "10ms", "--speed", "10M", *QUICK)
"""Of 1,000 packets/s about 500 come: each of these levels gathers three at least, and none of the kernel's does."""


@dataclass(frozen=True)
class Moderated:
    """The device that tests.vm.vduse_nic is."""

    device: str
    process: subprocess.Popen[str]

    def done(self, rate: int) -> Done:
        """What it did since it began. `rate`: of its packets from now on."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(rate, file=self.process.stdin, flush=True)
        return msgspec.json.decode(self.process.stdout.readline(), type=Done)

    def adapting(self) -> tuple[list[Level], float]:
        """The levels that DIM asks for as the load changes, and packets per interrupt then."""
        first = self.done(BUSY)
        until(lambda: len(self.done(BUSY).asked) > len(first.asked), "another level")
        second = self.done(BUSY)
        time.sleep(1)
        last = self.done(QUIET)
        assert last.interrupts > second.interrupts
        ratio = (last.packets - second.packets) / (last.interrupts - second.interrupts)
        return last.asked[len(first.asked) :], ratio


@pytest.fixture(scope="module")
def nic() -> Iterator[Moderated]:
    before = set(devices())
    command = [sys.executable, "-m", "tests.vm.vduse_nic", NAME, str(QUIET)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        run("vdpa", "dev", "add", "name", NAME, "mgmtdev", "vduse")
        try:
            (device,) = set(devices()) - before
            run("sysctl", "-qw", f"net.ipv6.conf.{device}.disable_ipv6=1")
            run("ip", "link", "set", device, "up")
            yield Moderated(device, process)
        finally:
            run("vdpa", "dev", "del", NAME)
            assert process.stdin is not None
            process.stdin.close()


@pytest.fixture
def moderated(nic: Moderated) -> Iterator[Moderated]:
    """Its settings are put back."""
    yield nic
    with Ethtool() as ethtool:
        ethtool.set_coalescing(ifindex_of(nic.device), Coalescing(use_adaptive_rx=False, rx_profile=KERNELS))


def by_hand(moderated: Moderated, directory: Path) -> Path:
    """A plan of LEVELS and adaptation."""
    levels = ", ".join(f"{{ usecs = {level.usecs}, pkts = {level.pkts} }}" for level in LEVELS)
    return written(
        directory,
        f'[{moderated.device}]\ndriver = "virtio_net"\nrx-queues = 1\ntx-queues = 1\n'
        f"[{moderated.device}.coalescing]\nuse-adaptive-rx = true\nrx-profile = [{levels}]\n",
    )


def devices() -> list[str]:
    return [path.name for path in Path("/sys/class/net").iterdir()]


def test_levels_are_applied_obeyed_by_the_drivers_own_adaptation_and_rolled_back(
    moderated: Moderated, napctl: Napctl, tmp_path: Path
) -> None:
    before = coalescing_of(moderated.device)
    assert (before.use_adaptive_rx, before.rx_profile) == (False, KERNELS)
    run("ethtool", "-C", moderated.device, "adaptive-rx", "on")
    asked, kernels = moderated.adapting()
    print(f"{kernels:.1f} packets an interrupt at the kernel's own levels; DIM asked for {asked}")
    assert set(asked) <= {(level.usecs, level.pkts) for level in KERNELS}
    run("ethtool", "-C", moderated.device, "adaptive-rx", "off")

    file = tmp_path / "plan.toml"
    planned = napctl("plan", moderated.device, "--goal", "efficiency", *LONG, "--output", file, timeout_s=120)
    assert planned.status == 0, planned
    (plan,) = read_plan(file).devices
    assert plan.coalescing is not None
    wanted = plan.coalescing.rx_profile
    assert wanted is not None
    assert [level.usecs for level in wanted] == [8000, 8459, 8944, 9457, 10_000]

    applied = napctl("apply", file, timeout_s=120)
    assert applied.status == 0, applied
    now = coalescing_of(moderated.device)
    assert (now.use_adaptive_rx, now.rx_profile) == (True, wanted)
    asked, ours = moderated.adapting()
    print(f"{ours:.1f} packets an interrupt at ours; DIM asked for {asked}")
    assert set(asked) <= {(level.usecs, level.pkts) for level in wanted}
    assert ours > 1.5 * kernels
    assert "nothing to propose" in napctl("plan", moderated.device, "--goal", "efficiency", *LONG, timeout_s=120).stdout

    assert napctl("rollback", timeout_s=120).status == 0
    assert coalescing_of(moderated.device) == before


def test_levels_that_the_driver_took_from_an_apply_that_was_killed_are_undone(
    moderated: Moderated, napctl: Napctl, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = coalescing_of(moderated.device)
    kernel_takes = Ethtool.set_coalescing

    def killed(ethtool: Ethtool, ifindex: int, wanted: Coalescing) -> None:
        kernel_takes(ethtool, ifindex, wanted)
        os.kill(os.getpid(), signal.SIGKILL)

    with monkeypatch.context() as patched:
        patched.setattr(Ethtool, "set_coalescing", killed)
        applied = napctl("apply", by_hand(moderated, tmp_path), timeout_s=120)
    assert applied.status == -signal.SIGKILL, applied
    assert coalescing_of(moderated.device).rx_profile == LEVELS

    assert napctl("recover", timeout_s=120).status == 0
    assert coalescing_of(moderated.device) == before
    assert napctl.live() == []


def test_verify_says_that_levels_read_back_and_what_it_cannot_see(
    moderated: Moderated, napctl: Napctl, tmp_path: Path
) -> None:
    before = coalescing_of(moderated.device)
    plan = by_hand(moderated, tmp_path)
    (found,) = napctl("verify", plan, "--settings", "rx-profile", "--json", timeout_s=120).json["verdicts"]
    text = "5/64 8/64 14/64 24/64 40/64"
    assert (found["outcome"], found["wanted"], found["read_back"]) == ("accepted", text, text)
    assert "which of the levels" in found["reason"]
    assert coalescing_of(moderated.device) == before


def test_a_driver_without_levels_is_refused_in_one_line(wire: Wire, napctl: Napctl) -> None:
    refused = napctl("plan", wire.device, "--adaptive", *QUICK, timeout_s=120)
    assert refused.failed_with(3, f"{wire.device} (e1000e): takes no steps for adaptive RX")
