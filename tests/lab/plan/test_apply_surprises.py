"""Applying a plan when the world is not as it seemed: leavings, late interruptions, namesakes."""

import ctypes
import os
import subprocess
import threading
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from napctl.change.journal import Journal
from napctl.change.transaction import begun
from napctl.kernel import processes
from napctl.kernel.links import links
from napctl.kernel.namespaces import NetworkNamespace
from napctl.lab.bed import Lab
from napctl.model.change import CoalescingChange
from napctl.model.machine import Coalescing
from tests.lab.helpers import PROGRAM, Napctl, Sampled, at, at_server, in_namespace, machine_of, until, victims
from tests.lab.plans import HEAD, TUN, VETH, frames_of, set_frames, states, steps_of_apply, write_plan

pytestmark = pytest.mark.lab

CLONE_NEWUTS = 0x04000000  # unshare(2)
LIBC = ctypes.CDLL(None)


def left_half_done(napctl: Napctl) -> None:
    """As if the last napctl had been killed before it recorded its success."""
    (made,) = napctl.live()
    with Journal(napctl.state) as journal:
        journal.set_state(made.number, "changing")


def test_over_the_leavings_of_a_killed_apply_the_same_plan_becomes_true(bed: Lab, napctl: Napctl, plan: Path) -> None:
    before = machine_of(bed.server)
    assert napctl("apply", plan, *at_server(bed)).status == 0
    left_half_done(napctl)

    again = napctl("apply", plan, *at_server(bed))

    assert again.status == 0, again
    assert states(napctl) == ["restored", "applied"]
    assert frames_of(bed.server.namespace) == 16
    assert napctl("rollback").status == 0
    assert machine_of(bed.server) == before


def test_over_the_leavings_of_a_killed_apply_another_plan_leads_back_to_the_start(
    bed: Lab, napctl: Napctl, tmp_path: Path
) -> None:
    before = machine_of(bed.server)
    assert napctl("apply", write_plan(tmp_path / "plan.toml"), *at_server(bed)).status == 0
    left_half_done(napctl)

    assert napctl("apply", write_plan(tmp_path / "plan.toml", frames=32), *at_server(bed)).status == 0

    assert {each.settings.defer_hard_irqs for each in bed.server.napis()} == {10}
    assert napctl("rollback").status == 0
    assert machine_of(bed.server) == before


def test_a_guard_finds_its_journal_by_a_relative_path(bed: Lab, napctl: Napctl, plan: Path) -> None:
    before = machine_of(bed.server)
    napctl.state.parent.mkdir(exist_ok=True)
    done = subprocess.run(
        [PROGRAM, "apply", plan, "--confirm-within", "1s", *at_server(bed)],
        env=napctl.environment | {"NAPCTL_STATE_DIR": napctl.state.name},
        cwd=napctl.state.parent,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0
    until(lambda: machine_of(bed.server) == before, "the former settings")


@pytest.mark.trials
@pytest.mark.timeout(600)
def test_an_interruption_leaves_no_plan_without_its_guard(
    bed: Lab,
    napctl: Napctl,
    plan: Path,
    tmp_path: Path,
    sampled: Sampled,
) -> None:
    before = machine_of(bed.server)
    steps = steps_of_apply(bed, napctl, plan, tmp_path / "trace")
    in_force = 0
    some = [*sampled(steps[:-6], 2), *sampled(steps[-6:], 2)]  # all is made before the last ones
    for step, victim in victims(napctl, some):
        under = [word for word in at(step, "signal=SIGTERM") if word != "-f"]  # the guard goes its own way
        victim("apply", plan, "--confirm-within", "60s", *at_server(bed), under=under)
        for each in victim.live():
            in_force += 1
            assert each.state == "unconfirmed", step
            assert each.guard is not None
            assert processes.process(each.guard.pid) is not None, step
            assert victim("rollback").status == 0
        assert machine_of(bed.server) == before, step
    assert in_force >= 2 or some != steps, "some of the interruptions came when all was made"


def test_detaching_everything_leaves_plans_in_force(bed: Lab, napctl: Napctl, plan: Path) -> None:
    assert napctl("apply", plan, *at_server(bed)).status == 0
    assert napctl("detach", "--all").stdout == "nothing was attached\n"
    assert napctl("detach", "tun0, server0").failed_with(2, "nothing is attached")
    assert states(napctl) == ["applied"]
    assert frames_of(bed.server.namespace) == 16
    assert napctl("rollback").status == 0


def test_a_namesake_in_a_namespace_with_the_same_inode_number_is_left_alone(napctl: Napctl, tmp_path: Path) -> None:
    """The kernel gives the inode number of a namespace that has gone to one of the next; unless somebody else has got
    it: then once more."""
    (tmp_path / "plan.toml").write_text(HEAD + TUN.format(frames=16))
    for _ in range(5):
        with NetworkNamespace.create() as netns:
            inode = netns.inode
            in_namespace(netns, "ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
            where = f"/proc/{os.getpid()}/fd/{netns.fd}"
            assert napctl("apply", tmp_path / "plan.toml", "--netns", where).status == 0
            left_half_done(napctl)
        with ExitStack() as others:
            if (namesake := with_inode(inode, others)) is not None:
                in_namespace(namesake, "ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
                set_frames(namesake, 7)
            recovered = napctl("recover", "--json")
            assert {row["outcome"] for row in recovered.json["settings"]} == {"gone"}
            if namesake is not None:
                assert frames_of(namesake) == 7
                return
    pytest.fail("no namespace got the inode number of one that had gone")


def with_inode(inode: int, others: ExitStack) -> NetworkNamespace | None:
    """A new network namespace with that inode number, or None if it is not free within 10 s: somebody else has got it.

    The kernel gives the least number that is free (proc_alloc_inum), and a network namespace takes dozens more for its
    files in /proc/net, any of which may get this one. A UTS namespace takes one only: such are made until one has it,
    and that one is let go for the network namespace."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        filler = uts_namespace()
        if (got := os.fstat(filler).st_ino) < inode:
            others.callback(os.close, filler)
            continue
        os.close(filler)
        if got == inode:
            found = others.enter_context(NetworkNamespace.create())
            if found.inode == inode:
                return found
        time.sleep(0.01)  # the kernel removes namespaces, and threads that have ended, when it has time
    return None


def uts_namespace() -> int:
    """A descriptor of a new UTS namespace that nothing else holds."""
    found: list[int] = []

    def make() -> None:
        assert LIBC.unshare(CLONE_NEWUTS) == 0
        found.append(os.open("/proc/thread-self/ns/uts", os.O_RDONLY | os.O_CLOEXEC))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return found[0]


def test_a_namesake_where_napctl_runs_is_left_alone(bed: Lab, napctl: Napctl, tmp_path: Path) -> None:
    """Only NICs come back when their namespace ends; a virtual device ends with it."""
    (tmp_path / "plan.toml").write_text(HEAD + TUN.format(frames=16))
    with NetworkNamespace.create() as ours:
        in_namespace(ours, "ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
        set_frames(ours, 16)
        with NetworkNamespace.create() as other:
            in_namespace(other, "ip", "tuntap", "add", "dev", "tun0", "mode", "tun")
            where = f"/proc/{os.getpid()}/fd/{other.fd}"
            assert napctl("apply", tmp_path / "plan.toml", "--netns", where).status == 0
        with ours.entered():
            done = napctl("rollback", "--json")
        assert frames_of(ours) == 16, done
        assert {row["outcome"] for row in done.json["settings"]} == {"gone"}


def test_confirming_does_not_depend_on_the_leavings_of_others(bed: Lab, napctl: Napctl, tmp_path: Path) -> None:
    plan = tmp_path / "tun.toml"
    plan.write_text(HEAD + TUN.format(frames=16))
    veth = tmp_path / "veth.toml"
    veth.write_text(HEAD + VETH.format(defer=10, flush="50us"))
    assert napctl("apply", veth, *at_server(bed)).status == 0
    left_half_done(napctl)
    in_namespace(bed.server.namespace, "ip", "link", "set", "server0", "down")
    assert napctl("apply", plan, "--confirm-within", "60s", *at_server(bed)).status == 0
    confirmed = napctl("confirm")
    assert confirmed.status == 0, confirmed
    in_namespace(bed.server.namespace, "ip", "link", "set", "server0", "up")


def test_what_cannot_be_put_back_does_not_keep_the_rest_from_it(bed: Lab, napctl: Napctl, tmp_path: Path) -> None:
    (tmp_path / "tun.toml").write_text(HEAD + TUN.format(frames=16))
    (tmp_path / "veth.toml").write_text(HEAD + VETH.format(defer=10, flush="50us"))
    for name in ("tun", "veth"):
        assert napctl("apply", tmp_path / f"{name}.toml", *at_server(bed)).status == 0
    for each in napctl.live():
        with Journal(napctl.state) as journal:
            journal.set_state(each.number, "changing")
    in_namespace(bed.server.namespace, "ip", "link", "set", "server0", "down")

    recovered = napctl("recover")

    assert recovered.status == 3
    assert "server0 is down" in recovered.stderr
    assert frames_of(bed.server.namespace) == 0
    assert states(napctl) == ["restored", "changing"]
    in_namespace(bed.server.namespace, "ip", "link", "set", "server0", "up")
    assert napctl("recover").status == 0
    assert napctl.live() == []


def test_nothing_is_applied_upon_what_waits_for_a_confirmation(bed: Lab, napctl: Napctl, tmp_path: Path) -> None:
    """Or its guard would find settings of the later one, leave them alone, and be gone."""
    before = machine_of(bed.server)
    plan = write_plan(tmp_path / "plan.toml")
    assert napctl("apply", plan, "--confirm-within", "60s", *at_server(bed)).status == 0
    write_plan(plan, frames=32)
    assert napctl("apply", plan, *at_server(bed)).failed_with(2, "apply 1", "napctl confirm 1", "napctl rollback 1")
    assert napctl("rollback").status == 0
    assert machine_of(bed.server) == before


def test_what_lies_below_a_later_plan_is_not_rolled_back_first(bed: Lab, napctl: Napctl, tmp_path: Path) -> None:
    """The later one would lead back to values of a plan that is no longer in force."""
    before = machine_of(bed.server)
    plan = tmp_path / "tun.toml"
    for frames in (16, 32):
        plan.write_text(HEAD + TUN.format(frames=frames))
        assert napctl("apply", plan, *at_server(bed)).status == 0
    (tmp_path / "veth.toml").write_text(HEAD + VETH.format(defer=10, flush="50us"))
    assert napctl("apply", tmp_path / "veth.toml", *at_server(bed)).status == 0

    assert napctl("rollback", "1").failed_with(2, "apply 2 on tun0", "napctl rollback 2")

    assert frames_of(bed.server.namespace) == 32
    for number in (2, 1, 3):
        assert napctl("rollback", number).status == 0
    assert machine_of(bed.server) == before


def test_after_a_kill_only_the_change_that_was_being_made_is_put_back_as_a_whole(napctl: Napctl) -> None:
    """What was not begun yet is somebody else's, if it is not as it was."""
    with NetworkNamespace.create() as netns:
        for name in ("tun0", "tun1"):
            in_namespace(netns, "ip", "tuntap", "add", "dev", name, "mode", "tun")
        indexes = {link.name: link.ifindex for link in links(netns)}
        changes = tuple(
            CoalescingChange(
                netns=netns.inode,
                device=name,
                ifindex=indexes[name],
                before=Coalescing(rx_max_frames=0),
                after=Coalescing(rx_max_frames=16),
            )
            for name in ("tun0", "tun1")
        )
        with Journal(napctl.state) as journal:
            journal.begin(begun("apply", "tun0, tun1", changes))
        for name in ("tun0", "tun1"):
            in_namespace(netns, "ethtool", "-C", name, "rx-frames", "7")

        recovered = napctl("recover", "--json")

        assert recovered.status == 5
        outcomes = {row["where"]: row["outcome"] for row in recovered.json["settings"]}
        assert outcomes == {"tun0": "restored", "tun1": "left"}
