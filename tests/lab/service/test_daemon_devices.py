"""The devices of a running daemon: what a hand, a kill and another policy make of them."""

import os
import signal
import time
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from tests.lab.helpers import Napctl, machine_of, until
from tests.lab.kernel_writes import TRACED, writes_in
from tests.lab.plans import frames_of, set_frames, states
from tests.lab.service.device_keeping import daemon, deferral_of, is_set

pytestmark = pytest.mark.lab

POLICY = (
    '[[device]]\nname = "tun0"\ncoalescing.rx-max-frames = {frames}\n'
    '[[device]]\nname = "server0"\ndeferral = {{ defer-hard-irqs = 2, gro-flush-timeout = "50us" }}\n'
)


def written(path: Path, frames: int) -> Path:
    path.write_text(POLICY.format(frames=frames))
    path.chmod(0o644)
    return path


def test_what_was_rolled_back_is_named_by_who_asks_for_the_policy(bed: Lab, napctl: Napctl, tmp_path: Path) -> None:
    before = machine_of(bed.server)
    with daemon(napctl, written(tmp_path / "policy.toml", 16), bed.server.namespace) as it:
        it.told("rx-max-frames 0 → 16, as the policy wants")
        (in_force,) = napctl.live()
        done = napctl("rollback", in_force.number)
        assert (done.status, "was the service's" in done.stderr) == (0, True)
        it.told("somebody has rolled their settings back")
        assert napctl("policy", "apply").stdout == "devices: tried anew\n"
        until(lambda: frames_of(bed.server.namespace) == 16, "it to be set anew")
        assert it.end() == 0, it.lines
    assert machine_of(bed.server) == before


def test_killed_and_started_again_it_adopts_and_remembers_what_it_has_left_to_others(
    bed: Lab, napctl: Napctl, tmp_path: Path
) -> None:
    before, netns = machine_of(bed.server), bed.server.namespace
    policy, trace = written(tmp_path / "policy.toml", 16), tmp_path / "trace"
    with daemon(napctl, policy, netns) as it:
        it.told("rx-max-frames 0 → 16, as the policy wants")
        for frames in (20, 21):
            set_frames(netns, frames)
            it.told(f"rx-max-frames {frames} → 16, as somebody else had changed it")
        set_frames(netns, 22)
        it.told("tun0 rx-max-frames: somebody else keeps changing it; left to him")
        until(lambda: "tun0 rx-max-frames" in (napctl.state / "service.json").read_text(), "it to be recorded")
        it.end(signal.SIGKILL)
    with daemon(napctl, policy, netns, under=[*TRACED, str(trace)]) as it:
        it.told("took over the settings of")
        time.sleep(2)
        assert writes_in(trace) == set()
        assert len(it.lines) == 1
        assert (is_set(bed), frames_of(netns)) == (True, 22)
        asked = napctl("policy", "apply")
        assert (asked.status, asked.stdout) == (0, "tun0 rx-max-frames: tried anew\n")
        it.told("rx-max-frames 22 → 16")
        assert writes_in(trace) == {"ethtool set"}
        assert it.end() == 0, it.lines
    assert machine_of(bed.server) == before
    assert set(states(napctl)) == {"restored"}


def test_another_policy_changes_only_what_differs(bed: Lab, napctl: Napctl, tmp_path: Path) -> None:
    before, netns = machine_of(bed.server), bed.server.namespace
    policy, trace = written(tmp_path / "policy.toml", 16), tmp_path / "trace"
    with daemon(napctl, policy, netns, under=[*TRACED, str(trace)]) as it:
        it.told("rx-max-frames 0 → 16")
        until(lambda: is_set(bed), "the deferral")
        time.sleep(0.5)
        size, count = trace.stat().st_size, len(it.lines)
        os.kill(it.pid, signal.SIGHUP)
        time.sleep(0.7)
        assert it.lines[count:] == []
        written(policy, 32)
        os.kill(it.pid, signal.SIGHUP)
        it.told("rx-max-frames 16 → 32")
        rest = tmp_path / "rest"
        rest.write_text(trace.read_bytes()[size:].decode())
        assert writes_in(rest) == {"ethtool set"}
        policy.write_text(POLICY.format(frames=32).partition("\n[[device]]")[0])
        os.kill(it.pid, signal.SIGHUP)
        it.told("gro-flush-timeout put back to 0, as the policy no longer names it")
        assert (frames_of(netns), deferral_of(bed)) == (32, {(0, 0)})
        assert it.end() == 0, it.lines
    assert machine_of(bed.server) == before
