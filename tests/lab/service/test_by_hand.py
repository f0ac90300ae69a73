"""What an administrator does beside the service: detach, pause, apply. It is heeded, also by the next daemon."""

import re
import signal
import socket
import time
from pathlib import Path

import pytest

from napctl.change.journal import Journal
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.service.control import Request, ask_service
from tests.lab.following import attached_in_kernel, killed
from tests.lab.helpers import Napctl, machine_of, until
from tests.lab.service.services import HURRIED, policy_of, serving

pytestmark = pytest.mark.lab


def test_what_is_detached_by_hand_stays_so_until_it_is_asked_for_or_the_policy_changes(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before, policy = machine_of(lab.server), policy_of(tmp_path, server.pid)
    with serving(napctl, policy) as it:
        it.told("attached memcached")
        done = napctl("detach", server.pid)
        assert done.status == 0
        assert f"memcached ({server.pid}) was the service's" in done.stderr
        it.told("detached by hand: left so until the policy is changed")
        killed(it)
    with serving(napctl, policy) as it:
        it.told("detached by hand: left so until the policy is changed")
        time.sleep(1)
        assert napctl.live() == []
        assert machine_of(lab.server) == before
        assert napctl("policy", "drift", policy).status == 1

        assert napctl("policy", "apply").stdout == f"pid:{server.pid}: tried anew\n"
        it.told("attached memcached")
        assert attached_in_kernel(lab, server)
        assert napctl("policy", "apply").stdout == "nothing was left out\n"

        assert napctl("detach", "--all").status == 0
        began = it.told("detached by hand", since=it.told("attached memcached").seconds).seconds
        policy_of(tmp_path, (server.pid, 50))
        it.told("attached memcached", since=began)
        told = ask_service(napctl.state, Request(what="why", about=f"pid:{server.pid}"))
        assert told is not None
        kinds = [each.kind for each in told.decisions if each.kind is not None]
        assert kinds == ["detach", "attach", "detach", "attach"]
        assert it.end(signal.SIGTERM) == 0
    assert machine_of(lab.server) == before


def test_a_pause_restores_all_outlives_the_daemon_and_ends_by_itself(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before, policy = machine_of(lab.server), policy_of(tmp_path, server.pid)
    with serving(napctl, policy) as it:
        it.told("attached memcached")
        assert napctl("pause", "1m").stdout == "paused for 1m: all is put back\n"
        assert it.told("put back memcached").text.endswith(": paused")
        assert napctl.live() == []
        assert machine_of(lab.server) == before
        killed(it)
    with serving(napctl, policy) as it:
        assert re.search(r"paused for (1m|[1-5]?\ds) more", it.told("paused for ").text)
        assert napctl("policy", "apply").failed_with(6, "paused for", "napctl pause --end")
        assert napctl.live() == []
        assert napctl("pause", "--end").stdout == "goes on\n"
        it.told("attached memcached")
        assert napctl("pause", "--end").stdout == "it is not paused\n"

        began = time.time()
        assert napctl("pause", "1s").status == 0
        it.told("goes on: the pause is over", since=began)
        it.told("attached memcached", since=began)
        assert napctl("pause", "1s").status == 0
        killed(it)
    time.sleep(1)
    with serving(napctl, policy) as it:
        it.told("attached memcached")
        answer = ask_service(napctl.state, Request(what="status"))
        assert answer is not None
        assert answer.lines == ("1 of 1 targets attached", f"pid:{server.pid}: attached"), "each target once"
        assert it.end(signal.SIGTERM) == 0
    until(lambda: machine_of(lab.server) == before, "the end")


def test_what_could_not_be_put_back_is_put_back_as_soon_as_it_can_be(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before = machine_of(lab.server)
    with serving(napctl, policy_of(tmp_path, server.pid), before=HURRIED) as it:
        it.told("attached memcached")
        with Journal(napctl.state):  # another napctl is at work, for longer than the service waits
            assert napctl("pause", "1m").stdout == "paused for 1m: not all is put back\n"
            assert "not all could be put back" in it.told("tried again in 5s").text
            assert attached_in_kernel(lab, server)
        assert it.told("put back memcached").text.endswith(": owed since before")
        assert napctl.live() == []
        assert machine_of(lab.server) == before
        assert it.end(signal.SIGTERM) == 0


def test_without_a_service_the_policy_is_made_true_once_and_what_is_not_is_said(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before, name = machine_of(lab.server), f"pid:{server.pid}"
    policy = policy_of(tmp_path, server.pid)
    ran = napctl("policy", "apply", policy)
    assert (ran.status, ran.stderr) == (0, "")
    assert ran.stdout.startswith(f"{name}: attached memcached ({server.pid}): 1 NAPI instance")
    assert attached_in_kernel(lab, server)
    assert napctl("policy", "drift", policy).status == 0
    assert napctl("policy", "apply", policy).stdout == f"{name}: attached already\n"

    policy_of(tmp_path, (server.pid, 50), "no-such-server-x")
    ran = napctl("policy", "apply", policy)
    assert ran.status == 1
    otherwise, absent = ran.stdout.splitlines()
    assert otherwise.startswith(f"{name}: attached, but NAPI ")
    assert "is 200us, policy wants 50us" in otherwise
    assert otherwise.endswith(f"`napctl detach {name}` first")
    assert absent == "no-such-server-x: no process has that name"

    assert napctl("detach", server.pid).status == 0
    assert machine_of(lab.server) == before
