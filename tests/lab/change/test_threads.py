"""NAPI threads, their nice values and their CPUs: made, read back, put back, whoever ends napctl or else has a hand in
it. On a veth of two queues, which the lab gives threads: one of them loses its thread first, and is a softirq's."""

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.change.journal import Journal
from napctl.change.objects import Places
from napctl.change.one_change import make, undo
from napctl.change.transaction import apply, begun, restore
from napctl.kernel.sysfs import DeviceAttributes
from napctl.lab.bed import Lab
from napctl.model.change import ThreadChange
from napctl.model.errors import ChangedMeanwhile
from napctl.model.machine import Machine, Napi
from napctl.model.settings import NapiSettings
from napctl.plan.diff import thread_change
from tests.lab.change.threads import (
    APPLIED,
    BEFORE,
    NICE,
    SOFTIRQ,
    change_to,
    pid_of,
    scheduled,
)
from tests.lab.helpers import (
    Napctl,
    Sampled,
    at,
    at_server,
    in_namespace,
    machine_of,
    set_napi,
    until,
    victims,
    without,
)
from tests.lab.plans import states

pytestmark = pytest.mark.lab


def softirq(lab: Lab) -> Napi:
    """The instance, as status has it."""
    (device,) = machine_of(lab.server).devices
    return device.napis[0]


def test_a_plan_gives_threads_nice_and_cpus_and_rollback_takes_them(
    threads: Lab, napctl: Napctl, threads_plan: Path
) -> None:
    before = machine_of(threads.server)
    assert scheduled(threads) == BEFORE

    done = napctl("apply", threads_plan, *at_server(threads))

    assert done.status == 0, done
    assert scheduled(threads) == APPLIED
    assert softirq(threads).settings.threaded == "enabled"
    assert "NAPI thread" in done.stdout
    assert napctl("rollback", "1").status == 0
    assert scheduled(threads) == BEFORE
    assert machine_of(threads.server) == before
    again = napctl("apply", threads_plan, *at_server(threads))
    assert again.status == 0, again
    said = napctl("apply", threads_plan, *at_server(threads)).stdout
    assert said == "nothing to change: the plan is in force already\n"


@pytest.mark.trials
@pytest.mark.timeout(600)
def test_apply_killed_at_any_step_leaves_a_way_back(
    threads: Lab, napctl: Napctl, threads_plan: Path, tmp_path: Path, sampled: Sampled
) -> None:
    before = machine_of(threads.server)
    trial = Napctl(napctl.state / "trial")
    steps = trial.steps(tmp_path / "trace", "apply", threads_plan, *at_server(threads))
    assert scheduled(threads) == APPLIED
    assert trial("rollback").status == 0
    assert {"sendto", "setpriority", "sched_setaffinity", "fdatasync"} <= {name for name, _ in steps}

    # How many descriptors it copies and asks to see who polls depends on what else runs on the machine.
    half_done, picked = 0, sampled([step for step in steps if step[0] not in ("pidfd_getfd", "ioctl")], 6)
    for step, victim in victims(napctl, picked):
        done = victim("apply", threads_plan, *at_server(threads), under=at(step, "signal=SIGKILL"))
        assert done.status == -9, (step, done)
        half_done += scheduled(threads) not in (BEFORE, APPLIED)
        assert victim("recover").status == 0
        if victim.live():
            assert [each.state for each in victim.live()] == ["applied"]
            assert scheduled(threads) == APPLIED, step
            assert victim("rollback").status == 0
        assert machine_of(threads.server) == before, step
    assert half_done or picked != steps, "some of the kills came between the first and the last change"


@pytest.mark.trials
@pytest.mark.timeout(600)
def test_rollback_killed_at_any_step_can_be_repeated(
    threads: Lab, napctl: Napctl, threads_plan: Path, tmp_path: Path, sampled: Sampled
) -> None:
    before = machine_of(threads.server)
    trial = Napctl(napctl.state / "trial")
    assert trial("apply", threads_plan, *at_server(threads)).status == 0
    for step, victim in victims(napctl, sampled(trial.steps(tmp_path / "trace", "rollback"), 4)):
        assert victim("apply", threads_plan, *at_server(threads)).status == 0
        killed = victim("rollback", under=at(step, "signal=SIGKILL"))
        assert killed.status == -9, (step, killed)
        assert victim("recover").status == 0
        if victim.live():  # it was killed before it began
            assert victim("rollback").status == 0
        assert machine_of(threads.server) == before, step
        assert victim.live() == []


def test_what_nobody_confirms_the_guard_puts_back(threads: Lab, napctl: Napctl, threads_plan: Path) -> None:
    before = machine_of(threads.server)
    assert napctl("apply", threads_plan, "--confirm-within", "2s", *at_server(threads)).status == 0
    assert scheduled(threads) == APPLIED or states(napctl) == ["restored"]  # a busy machine may let this test wait
    until(lambda: states(napctl) == ["restored"], "the guard")
    assert machine_of(threads.server) == before


# Another hand


def test_a_nice_value_that_somebody_else_has_set_is_left_and_named(
    threads: Lab, napctl: Napctl, threads_plan: Path
) -> None:
    assert napctl("apply", threads_plan, *at_server(threads)).status == 0
    os.setpriority(os.PRIO_PROCESS, pid_of(threads, 1), 7)

    done = napctl("rollback")

    assert done.status == 5
    assert "nice is now 7; somebody else changed it" in done.stderr
    assert scheduled(threads) == [None, (7, "1")]


def test_a_thread_that_ends_takes_with_it_what_others_have_made_of_it(
    threads: Lab, napctl: Napctl, threads_plan: Path
) -> None:
    assert napctl("apply", threads_plan, *at_server(threads)).status == 0
    os.setpriority(os.PRIO_PROCESS, pid_of(threads, 0), 7)

    done = napctl("rollback", "--json")

    assert done.status == 0
    outcomes = {(row["where"], row["setting"]): row["outcome"] for row in done.json["settings"]}
    where = f"NAPI thread {threads.server.napis()[0].napi_id} of server0"
    assert outcomes[where, "threaded"] == "restored"
    assert outcomes[where, "nice"] == "gone"
    assert outcomes[where, "cpus"] == "restored"
    assert scheduled(threads) == BEFORE


def test_a_thread_that_somebody_else_has_ended_is_as_it_was(threads: Lab, napctl: Napctl, threads_plan: Path) -> None:
    assert napctl("apply", threads_plan, *at_server(threads)).status == 0
    set_napi(threads, threads.server.napis()[0].napi_id, SOFTIRQ)
    assert napctl("rollback").status == 0
    assert scheduled(threads) == BEFORE


def test_a_thread_begun_anew_by_somebody_else_has_another_pid_and_is_ended_all_the_same(
    threads: Lab, napctl: Napctl, threads_plan: Path
) -> None:
    assert napctl("apply", threads_plan, *at_server(threads)).status == 0
    first = pid_of(threads, 0)
    for threaded in ("disabled", "enabled"):
        set_napi(threads, threads.server.napis()[0].napi_id, NapiSettings(threaded=threaded))
    assert pid_of(threads, 0) != first
    assert napctl("rollback").status == 0
    assert scheduled(threads) == BEFORE


def test_what_has_changed_since_napctl_looked_is_not_overwritten(threads: Lab) -> None:
    change = change_to(threads, NICE)
    set_napi(threads, change.napi_id, NapiSettings(threaded="enabled"))
    with Places() as places, pytest.raises(ChangedMeanwhile, match="threaded is now enabled"):
        make(change, places)


# What it cannot be made on


def test_a_thread_that_spins_is_refused_where_the_kernel_has_none(
    threads: Lab, napctl: Napctl, threads_plan: Path
) -> None:
    """Linux 6.19 has."""
    before = machine_of(threads.server)
    threads_plan.write_text(threads_plan.read_text().replace('"enabled"', '"busy-poll"'))
    done = napctl("apply", threads_plan, *at_server(threads))
    if done.status == 0:
        assert softirq(threads).settings.threaded == "busy-poll"
        assert napctl("rollback").status == 0
    else:
        assert done.failed_with(3, "threaded busy-poll")
    assert machine_of(threads.server) == before


def test_without_the_capability_to_put_a_nice_value_back_none_is_set(
    threads: Lab, napctl: Napctl, threads_plan: Path
) -> None:
    before = machine_of(threads.server)
    done = napctl("apply", threads_plan, *at_server(threads), under=without("sys_nice"))
    assert done.status in (4, 6)
    assert "CAP_SYS_NICE" in done.stderr
    assert machine_of(threads.server) == before


def test_a_cpu_that_is_not_there_is_refused_before_anything_is_changed(
    threads: Lab, napctl: Napctl, threads_plan: Path
) -> None:
    threads_plan.write_text(threads_plan.read_text().replace('cpus = "0"', 'cpus = "0,4095"'))
    done = napctl("apply", threads_plan, *at_server(threads))
    assert done.failed_with(2, "NAPI instance 0", "CPU 4095, which is not online here")
    assert scheduled(threads) == BEFORE


# A reset, and a device that goes


def test_after_a_reset_of_the_device_nothing_is_left_of_threads(
    threads: Lab, napctl: Napctl, threads_plan: Path
) -> None:
    """veth makes its instances anew, and they begin as the device has it, which is with threads in the lab."""
    assert napctl("apply", threads_plan, *at_server(threads)).status == 0
    in_namespace(threads.server.namespace, "ip", "link", "set", "server0", "down")
    down = napctl("rollback")
    assert down.status == 3
    assert "down" in down.stderr
    in_namespace(threads.server.namespace, "ip", "link", "set", "server0", "up")
    assert [each[0] for each in scheduled(threads) if each] == [0, 0]

    done = napctl("rollback", "--json")

    assert done.status == 0
    assert {row["outcome"] for row in done.json["settings"]} == {"gone"}
    assert states(napctl) == ["restored"]


def test_a_device_that_is_gone_leaves_nothing_to_restore(threads: Lab, napctl: Napctl, threads_plan: Path) -> None:
    assert napctl("apply", threads_plan, *at_server(threads)).status == 0
    in_namespace(threads.server.namespace, "ip", "link", "delete", "server0")
    done = napctl("rollback", "--json")
    assert done.status == 0
    assert {row["outcome"] for row in done.json["settings"]} == {"gone"}


# Switched for a whole device, as before Linux 6.17


@pytest.fixture
def whole(threads: Lab) -> tuple[Lab, tuple[ThreadChange, ...]]:
    """No instance has a thread, and all get one by the switch that is in sysfs."""
    switch(threads, "0")
    (device,) = machine_of(threads.server).devices
    found = (thread_change(device, napi, threads.server.namespace.inode, NICE) for napi in device.napis)
    return threads, tuple(replace(each, whole_device=True) for each in found if each is not None)


def switch(lab: Lab, value: str | None = None) -> str | None:
    with DeviceAttributes(lab.server.namespace) as attributes:
        if value is not None:
            attributes.write("server0", "threaded", value)
        return attributes.read("server0", "threaded")


def test_the_threads_of_a_whole_device_are_switched_as_one(
    whole: tuple[Lab, tuple[ThreadChange, ...]], napctl: Napctl
) -> None:
    lab, changes = whole
    before = machine_of(lab.server)
    with Journal(napctl.state) as journal:
        made = apply(journal, begun("apply", "server0", changes), then="applied")
        assert (switch(lab), scheduled(lab)) == ("1", [(19, "0"), (19, "0")])
        assert {row.outcome for row in restore(journal, made)} == {"restored", "unchanged"}
    assert machine_of(lab.server) == before


def test_the_switch_of_a_whole_device_is_put_back_after_a_reset(
    whole: tuple[Lab, tuple[ThreadChange, ...]], napctl: Napctl
) -> None:
    """It outlives the instances, and would give their successors threads."""
    lab, changes = whole
    with Journal(napctl.state) as journal:
        made = apply(journal, begun("apply", "server0", changes), then="applied")
        for state in ("down", "up"):
            in_namespace(lab.server.namespace, "ip", "link", "set", "server0", state)
        assert scheduled(lab) != [None, None]
        restore(journal, made)
    assert (switch(lab), scheduled(lab)) == ("0", [None, None])


def test_undoing_twice_is_harmless(threads: Lab) -> None:
    before: Machine = machine_of(threads.server)
    with Places() as places:
        made = make(change_to(threads, NICE), places)
        assert [row.outcome for row in undo(made, places)] == ["restored"] * 3
        assert [row.outcome for row in undo(made, places)] == ["unchanged"] * 3
    assert machine_of(threads.server) == before
