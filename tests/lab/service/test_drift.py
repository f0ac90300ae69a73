"""policy drift: on a real device with a real server each difference is named, and none where there is none."""

import socket
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.settings import NapiSettings
from tests.lab.helpers import Napctl, at_server, in_namespace, params_of, set_napi, set_params
from tests.lab.plans import set_frames
from tests.lab.service.services import write

pytestmark = pytest.mark.lab


def test_what_is_not_attached_what_somebody_changes_and_what_the_policy_changes_is_named(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before = napctl.machine(lab.server)
    policy = write(tmp_path / "policy.toml", f'[[attach]]\ntarget = "pid:{server.pid}"\ndefer-us = 200\n')

    ran = napctl("policy", "drift", policy)
    assert (ran.status, ran.stderr) == (1, "")
    assert ran.stdout == f"pid:{server.pid}: not attached, and memcached ({server.pid}) runs ({policy}:1)\n"

    napctl("attach", server.pid, "--defer-us", "200", "--window", "0s")
    ran = napctl("policy", "drift", policy)
    assert (ran.status, ran.stdout) == (0, "as the policy wants it\n")

    (napi,) = lab.server.napis()
    set_napi(lab, napi.napi_id, NapiSettings(gro_flush_timeout_ns=1_000_000))
    ran = napctl("policy", "drift", policy)
    line = f"NAPI {napi.napi_id} of server0: gro-flush-timeout is 1ms, policy wants 200us ({policy}:1)"
    assert (ran.status, ran.stdout) == (1, f"{line}\n")
    ran = napctl("policy", "drift", policy, "--json")
    (only,) = ran.json["differences"]
    assert (ran.status, only["setting"], only["found"], only["wanted"]) == (1, "gro_flush_timeout_ns", 10**6, 200_000)
    shown = napctl("policy", "diff", policy)
    assert shown.status == 0
    assert shown.stdout.splitlines()[1].split() == [
        "NAPI",
        str(napi.napi_id),
        "of",
        "server0",
        "gro-flush-timeout",
        "1ms",
        "200us",
    ]

    set_napi(lab, napi.napi_id, NapiSettings(gro_flush_timeout_ns=200_000))
    (fd, params), *_ = [each for each in params_of(server.pid).items() if each[1].prefer_busy_poll]
    set_params(server.pid, fd, type(params)(busy_poll_usecs=7, busy_poll_budget=64, prefer_busy_poll=True))
    ran = napctl("policy", "drift", policy)
    assert (ran.status, ran.stdout) == (
        1, f"epoll {fd} of memcached ({server.pid}): busy_poll_usecs is 7, policy wants 0 ({policy}:1)\n",
    )  # fmt: skip
    set_params(server.pid, fd, params)

    write(policy, f'[[attach]]\ntarget = "pid:{server.pid}"\ndefer-us = 50\n')
    ran = napctl("policy", "drift", policy)
    assert ran.status == 1
    assert "gro-flush-timeout is 200us, policy wants 50us" in ran.stdout

    napctl("detach", server.pid)
    assert napctl.machine(lab.server) == before


def test_a_server_without_a_connection_and_one_that_does_not_run_are_waited_for(
    lab: Lab, server: Server, napctl: Napctl, tmp_path: Path
) -> None:
    policy = write(
        tmp_path / "policy.toml", f'[[attach]]\ntarget = "pid:{server.pid}"\n[[attach]]\ntarget = "no-such-server-x"\n'
    )
    ran = napctl("policy", "drift", policy)
    assert ran.status == 0, ran
    idle, absent, last = ran.stdout.splitlines()
    assert idle.startswith(f"waiting: pid:{server.pid}: memcached ({server.pid}): none of the ")
    assert "it has no connection yet" in idle
    assert absent == f"waiting: no-such-server-x: no process has that name ({policy}:3)"
    assert last == "as the policy wants it"


def test_devices_are_compared_with_the_last_entry_that_has_a_setting(bed: Lab, napctl: Napctl, tmp_path: Path) -> None:
    policy = write(
        tmp_path / "policy.toml",
        '[[device]]\ndriver = "tun"\ncoalescing.rx-max-frames = 8\n'
        '[[device]]\nname = "tun0"\ncoalescing.rx-max-frames = 16\n'
        '[[device]]\nname = "server0"\ndeferral = { defer-hard-irqs = 2, gro-flush-timeout = "50us" }\n'
        '[[device]]\nname = "later0"\nchannels = 4\n',
    )
    ran = napctl("policy", "drift", policy, *at_server(bed))
    assert (ran.status, ran.stderr) == (1, "")
    assert ran.stdout.splitlines() == [
        f"tun0: rx-max-frames is 0, policy wants 16 ({policy}:4)",
        f"server0: defer-hard-irqs is 0, policy wants 2 ({policy}:7)",
        f"server0: gro-flush-timeout is 0, policy wants 50us ({policy}:7)",
        f"waiting: later0: there is no such device ({policy}:10)",
    ]
    set_frames(bed.server.namespace, 16)
    for napi in bed.server.napis():
        set_napi(bed, napi.napi_id, NapiSettings(defer_hard_irqs=2, gro_flush_timeout_ns=50_000))
    assert napctl("policy", "drift", policy, *at_server(bed)).status == 0

    in_namespace(bed.server.namespace, "ip", "link", "set", "tun0", "down")
    ran = napctl("policy", "drift", policy, *at_server(bed))
    assert ran.status == 0
    assert "waiting: tun0: it is down" in ran.stdout.splitlines()


def test_a_policy_of_what_is_in_force_is_true(bed: Lab, napctl: Napctl, plan: Path, tmp_path: Path) -> None:
    napctl("apply", plan, *at_server(bed))
    policy = tmp_path / "policy.toml"
    written = napctl("policy", "init", "--output", policy, *at_server(bed))
    assert written.status == 0, written
    assert f"{policy}: 0 targets, 2 device entries; " in written.stdout
    assert napctl("policy", "drift", policy, *at_server(bed)).status == 0
    napctl("rollback", 1)
    ran = napctl("policy", "drift", policy, *at_server(bed))
    assert ran.status == 1
    assert "tun0: rx-max-frames is 0, policy wants 16" in ran.stdout


def test_a_policy_of_what_is_attached_is_true(
    server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    napctl("attach", server.pid, "--defer-us", "50", "--busy-poll-budget", "16", "--window", "0s")
    policy = tmp_path / "policy.toml"
    assert napctl("policy", "init", "--output", policy).status == 0
    text = policy.read_text()
    assert '[[attach]]\ntarget = "memcached"\ndefer-us = "50us"\nbusy-poll-budget = 16\n' in text
    write(policy, text.replace('"memcached"', f'"pid:{server.pid}"'))  # others may run on this machine
    ran = napctl("policy", "drift", policy)
    assert (ran.status, ran.stdout) == (0, "as the policy wants it\n")
    napctl("detach", server.pid)
