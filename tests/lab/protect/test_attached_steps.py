"""Steps of protection on what is attached: a thread and its nice value beside suspension, each put back by its own."""

import os
import socket
from collections.abc import Iterator, Sequence

import pytest

from napctl.change.guard import myself
from napctl.change.transaction import never
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.change import Guard
from napctl.model.settings import DISABLED, ENABLED, NapiSettings
from napctl.observe.machine import take_napi_devices, with_switches
from napctl.protect.groups import Protected, groups_of
from napctl.protect.protect_options import ProtectOptions
from napctl.protect.steps_in_force import StepsInForce
from tests.lab.helpers import SUSPENDED, Napctl, answers, params_of, set_napi

pytestmark = pytest.mark.lab


@pytest.fixture
def steps(lab: Lab, napctl: Napctl) -> Iterator[StepsInForce]:
    """Of a device without NAPI threads."""
    (napi,) = lab.server.napis()
    if napi.settings.threaded is None:
        pytest.skip("this kernel has NAPI threads for all instances of a device or for none")
    set_napi(lab, napi.napi_id, NapiSettings(threaded=DISABLED))
    me = myself()
    guard = Guard(pid=me.pid, started_ticks=me.started_ticks, deadline_boot_ns=0)
    steps = StepsInForce(
        lab.server.namespace, None, guard, napctl.state, lambda *_: None, lambda *_: None, entry=""
    )  # fmt: skip
    yield steps
    steps.put_back()


def groups(lab: Lab) -> Sequence[Protected]:
    netns = lab.server.namespace
    return groups_of(with_switches(netns, take_napi_devices(netns)), ProtectOptions(devices=("server0",)))


def state(lab: Lab, server: Server) -> tuple[dict[str, object], object, int | None]:
    """Settings of the one instance, who polls, and the nice value of its thread."""
    (napi,) = lab.server.napis()
    settings = {name: getattr(napi.settings, name) for name in NapiSettings.__struct_fields__}
    nice = None if napi.thread_pid is None else os.getpriority(os.PRIO_PROCESS, napi.thread_pid)
    return settings, params_of(server.pid), nice


@pytest.mark.parametrize("detached_first", [True, False])
def test_what_is_suspended_gets_a_thread_at_nice_19_and_each_takes_back_its_own(
    detached_first: bool, lab: Lab, server: Server, client: socket.socket, steps: StepsInForce, napctl: Napctl
) -> None:
    (plain, unset, none) = state(lab, server)
    napctl.attach_quickly(server.pid)
    (attached, polling, _) = state(lab, server)
    assert (none, attached) == (None, {**SUSPENDED, "threaded": DISABLED})

    for step in ("threads", "nice"):
        assert len(steps.make(step, groups(lab), never)) == 1
    assert state(lab, server) == ({**attached, "threaded": ENABLED}, polling, 19)
    assert answers(client)

    if detached_first:
        assert napctl("detach", server.pid).status == 0
        assert state(lab, server) == ({**plain, "threaded": ENABLED}, unset, 19)
        steps.put_back()
    else:
        steps.put_back()
        assert state(lab, server) == (attached, polling, None)
        assert napctl("detach", server.pid).status == 0
    assert state(lab, server) == (plain, unset, None)
    assert napctl.live() == []
    assert answers(client)


def test_a_thread_that_an_attachment_holds_is_left_to_it(
    lab: Lab, server: Server, client: socket.socket, steps: StepsInForce, napctl: Napctl
) -> None:
    assert napctl("attach", server.pid, "--mode", "thread", "--window", 0).status == 0
    held = state(lab, server)
    for step in ("threads", "nice"):
        assert steps.make(step, groups(lab), never) == ()
    assert state(lab, server) == held
    assert [each.kind for each in napctl.live()] == ["attach"]
    assert napctl("detach", server.pid).status == 0
