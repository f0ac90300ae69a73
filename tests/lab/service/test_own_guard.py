"""The guard of a running daemon may go, and another one come: there is always one that would restore."""

import os
import signal
import socket
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from tests.lab.following import killed
from tests.lab.helpers import Napctl, machine_of, until
from tests.lab.service.services import HURRIED, guarding, guards_gone, policy_of, serving

pytestmark = pytest.mark.lab

SHORTLY = 'guard-wait = "1s"'


def test_a_guard_that_has_ended_is_followed_by_another_one(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before = machine_of(lab.server)
    with serving(napctl, policy_of(tmp_path, server.pid, service=SHORTLY), before=HURRIED) as it:
        it.told("attached memcached")
        (first,) = until(napctl.guards, "its guard to have its name")
        os.kill(first, signal.SIGKILL)
        until(lambda: guards_of_what_is_in_force(napctl) - {first}, "another guard")
        until(lambda: guards_of_what_is_in_force(napctl) == set(napctl.guards()), "it alone, under its name")
        killed(it)
    until(lambda: not napctl.live(), "the other guard to restore")
    assert machine_of(lab.server) == before
    guards_gone(napctl)


def test_the_guards_unit_that_comes_later_takes_the_place_of_the_daemons_own(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before = machine_of(lab.server)
    with serving(napctl, policy_of(tmp_path, server.pid, service=SHORTLY), before=HURRIED) as it:
        it.told("attached memcached")
        assert len(until(napctl.guards, "its guard to have its name")) == 1
        with guarding(napctl) as told:
            until(lambda: guards_of_what_is_in_force(napctl) == {0}, "the guard's unit to be named")
            guards_gone(napctl)
            killed(it)
            until(lambda: not napctl.live(), "the guard's unit to restore")
    assert [each.startswith("put back memcached") for each in told] == [True]
    assert machine_of(lab.server) == before


def guards_of_what_is_in_force(napctl: Napctl) -> set[int]:
    """Pids; 0 is the guard's unit."""
    return {each.guard.pid for each in napctl.live() if each.guard is not None}
