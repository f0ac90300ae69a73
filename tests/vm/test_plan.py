"""Plans for real drivers: what is proposed is taken, and then there is nothing left to propose."""

import re
import subprocess
from pathlib import Path

import pytest

from napctl.cli.plan_reading import read_plan
from napctl.model.machine import Coalescing
from napctl.model.plan import Advice, Deferral
from napctl.model.value import from_json
from tests.lab.helpers import Napctl
from tests.vm.wire import Wire, run

QUICK = ("--window", "0")


@pytest.mark.parametrize("goal", ["latency", pytest.param("efficiency", marks=pytest.mark.long)])
def test_e1000e_takes_what_is_proposed_and_then_nothing_is_left_to_propose(
    goal: str, wire: Wire, napctl: Napctl, tmp_path: Path
) -> None:
    """Its 3 of the beginning is a moderation of its own, and no delay of 3 µs."""
    file = tmp_path / "plan.toml"
    plan = ("plan", wire.device, "--goal", goal, *QUICK, "--output", file)
    done = napctl(*plan, timeout_s=120)
    assert done.status == 0, done
    usecs = {"latency": 10, "efficiency": 200}[goal]
    assert read_plan(file).devices[0].coalescing == Coalescing(rx_usecs=usecs)

    applied = napctl("apply", file, timeout_s=300)
    assert applied.status == 0, applied
    assert re.search(rf"^rx-usecs:\s+{usecs}$", run("ethtool", "-c", wire.device), re.MULTILINE)
    assert "nothing to propose" in napctl(*plan, timeout_s=120).stdout
    assert napctl("rollback", timeout_s=120).status == 0


@pytest.mark.parametrize(("budget", "usecs"), [("5us", 0), pytest.param("333us", 333, marks=pytest.mark.long)])
def test_e1000e_refuses_no_budget(budget: str, usecs: int, wire: Wire, napctl: Napctl, tmp_path: Path) -> None:
    """It knows no delay from 1 to 9 µs; a plan knows that."""
    file = tmp_path / "plan.toml"
    done = napctl("plan", wire.device, "--max-added-latency", budget, *QUICK, "--output", file, timeout_s=120)
    assert done.status == 0, done
    applied = napctl("apply", file, timeout_s=300)
    assert applied.status == 0, applied
    assert re.search(rf"^rx-usecs:\s+{usecs}$", run("ethtool", "-c", wire.device), re.MULTILINE)
    assert napctl("rollback", timeout_s=120).status == 0


def test_virtio_net_without_notification_coalescing_gets_deferral_and_takes_it(
    wire: Wire, napctl: Napctl, tmp_path: Path
) -> None:
    file = tmp_path / "plan.toml"
    plan = ("plan", wire.peer, *QUICK, "--output", file, "--netns", wire.peer_namespace)
    done = napctl(*plan, timeout_s=120)
    assert done.status == 0, done
    (device,) = read_plan(file).devices
    assert (device.coalescing, device.deferral) == (None, Deferral(defer_hard_irqs=2, gro_flush_timeout_ns=50_000))
    applied = napctl("apply", file, "--netns", wire.peer_namespace, timeout_s=300)
    assert applied.status == 0, applied
    assert "nothing to propose" in napctl(*plan, timeout_s=120).stdout
    assert napctl("rollback", timeout_s=120).status == 0


def test_without_names_the_hardware_that_is_up_is_planned_for(wire: Wire, napctl: Napctl) -> None:
    done = napctl("plan", *QUICK, "--json", timeout_s=120)
    advice = from_json(done.stdout, Advice)
    assert {proposal.device for proposal in advice.proposals} == {wire.device}
    assert {proposal.setting for proposal in advice.unsupported} == {"rx_max_frames", "tx_usecs", "tx_max_frames"}
    assert advice.plan.devices[0].speed_mbps == 1000


def test_the_exported_script_sets_e1000e_with_the_real_ethtool(wire: Wire, napctl: Napctl, tmp_path: Path) -> None:
    file, script = tmp_path / "plan.toml", tmp_path / "set.sh"
    assert napctl("plan", wire.device, *QUICK, "--output", file, timeout_s=120).status == 0
    assert napctl("export", file, "--format", "ethtool", "--output", script, timeout_s=120).status == 0
    subprocess.run(["sh", str(script)], check=True)
    assert "nothing to propose" in napctl("plan", wire.device, *QUICK, timeout_s=120).stdout
