"""Whatever ends a napctl that arms and limits, at any instruction: `recover` takes away what it has left."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from tests.lab.helpers import Napctl, Sampled, at, machine_of, steps_in, victims
from tests.lab.protect.conftest import ifindex_of, xdp_of

pytestmark = pytest.mark.lab

ARMING = """
import os, sys
from napctl.change.journal import Journal
from napctl.change.transaction import begun
from napctl.kernel import processes
from napctl.kernel.namespaces import NetworkNamespace
from napctl.model.change import Keeper
from napctl.model.storm import limits_of
from napctl.protect.storm_control import arm

started = processes.process(os.getpid()).started_ticks
with Journal() as journal, NetworkNamespace.open(sys.argv[1]) as netns:
    keeper = Keeper(pid=os.getpid(), started_ticks=started)
    here = arm(journal, netns, int(sys.argv[2]), begun("apply", "server0", (), keeper=keeper))
    limited = here.control.limit(journal, here.transaction, limits_of(100))
    here.control.disarm(journal, limited.transaction)
"""
CALLS = ("pwrite64", "fdatasync", "unlink", "sendto", "bpf")


def arming(napctl: Napctl, lab: Lab, *under: str) -> int:
    """The exit status of a process that arms, limits and disarms."""
    path = f"/proc/{os.getpid()}/fd/{lab.server.namespace.fd}"
    command = [*under, sys.executable, "-c", ARMING, path, str(ifindex_of(lab.server))]
    return subprocess.run(command, env=napctl.environment, check=False, timeout=60, capture_output=True).returncode


@pytest.mark.trials
@pytest.mark.timeout(600)
def test_killed_at_any_step_it_leaves_a_way_back(lab: Lab, napctl: Napctl, tmp_path: Path, sampled: Sampled) -> None:
    before = machine_of(lab.server)
    trace = tmp_path / "trace"
    traced = ["strace", "-f", "-qq", "-o", str(trace), "-e", f"trace={','.join(CALLS)},openat"]
    trial = Napctl(napctl.state / "trial")
    assert arming(trial, lab, *traced) == 0
    steps = steps_in(trace, f"{trial.state}/lock", CALLS)
    assert {"pwrite64", "sendto", "bpf"} <= {name for name, _ in steps}

    attached, picked = 0, sampled(steps, 5)
    for step, victim in victims(napctl, picked):
        assert arming(victim, lab, *at(step, "signal=SIGKILL")) == -9, step
        attached += bool(xdp_of(lab.server).programs)
        assert victim("recover").status == 0, step
        assert xdp_of(lab.server).programs == (), step
        assert machine_of(lab.server) == before, step
        assert victim.live() == [], step

    assert attached or picked != steps, "some of the kills came while it was attached"
