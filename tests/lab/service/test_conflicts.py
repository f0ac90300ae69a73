"""Somebody else at the settings of an attached target: noticed at once, set again, and left to him in the end."""

import signal
import socket
import time
from pathlib import Path
from statistics import median

import pytest
from msgspec.structs import replace

from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from tests.lab.following import all_unset, attached_in_kernel, killed, settings_of
from tests.lab.helpers import Napctl, machine_of, set_napi, until
from tests.lab.ports import free_port
from tests.lab.service.services import HURRIED, policy_of, scraped, serving

pytestmark = pytest.mark.lab

PROMPTLY_SECONDS = 2.0
"""A cheap check comes each second."""


def figure(port: int, name: str) -> float | None:
    try:
        return scraped(port).get(name)
    except OSError:  # not served yet
        return None


def test_what_he_had_set_before_is_named_when_it_is_overwritten_and_is_back_in_the_end(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    (napi,) = lab.server.napis()
    set_napi(lab, napi.napi_id, replace(napi.settings, defer_hard_irqs=3, gro_flush_timeout_ns=777_000))
    before = machine_of(lab.server)
    with serving(napctl, policy_of(tmp_path, server.pid)) as it:
        it.told("attached memcached")
        had = "had defer-hard-irqs 3, gro-flush-timeout 777us, which comes back in the end"
        it.told(f"NAPI {napi.napi_id} of server0 {had}")
        assert it.end(signal.SIGTERM) == 0
    assert machine_of(lab.server) == before


@pytest.mark.alone
def test_what_he_puts_back_thrice_is_left_to_him_and_counted_until_it_is_asked_for(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    before, (napi,), port, name = machine_of(lab.server), lab.server.napis(), free_port(), f"pid:{server.pid}"
    policy = policy_of(tmp_path, server.pid, service=f'metrics = "127.0.0.1:{port}"')
    taken = []
    with serving(napctl, policy, before=HURRIED) as it:
        it.told("attached memcached")
        for _ in range(3):
            until(lambda: attached_in_kernel(lab, server), "it to be set")
            put_back = time.time()
            set_napi(lab, napi.napi_id, napi.settings)
            taken.append(it.told("lost its settings", since=put_back).seconds - put_back)
        it.told(f"NAPI {napi.napi_id} of server0: somebody else keeps changing it; left to him", since=put_back)
        until(lambda: all_unset(server.pid), "what it feeds to be let go")
        until(lambda: figure(port, f'napctl_target_conflicts{{target="{name}"}}') == 1, "a metric that tells")
        assert figure(port, 'napctl_decisions_total{decision="yield"}') == 1
        assert machine_of(lab.server) == before
        killed(it)
    assert median(taken) < PROMPTLY_SECONDS, taken
    with serving(napctl, policy) as it:
        it.told("waiting: memcached")
        time.sleep(1)
        assert machine_of(lab.server) == before, "also over a restart"
        assert "NAPI" in napctl("policy", "apply").stdout
        it.told("attached memcached")
        assert it.end(signal.SIGTERM) == 0
    assert machine_of(lab.server) == before


def test_a_value_of_his_own_is_told_once_and_stays_his(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    (napi,), port = lab.server.napis(), free_port()
    policy = policy_of(tmp_path, server.pid, service=f'metrics = "127.0.0.1:{port}"')
    with serving(napctl, policy, before=HURRIED) as it:
        it.told("attached memcached")
        (ours,) = settings_of(lab)
        time.sleep(2)
        changed = time.time()
        set_napi(lab, napi.napi_id, replace(ours, gro_flush_timeout_ns=777_000))
        line = (
            f"NAPI {napi.napi_id} of server0: gro-flush-timeout is now 777us, as somebody else has set it; left to him"
        )
        it.told(line, since=changed)
        conflicts = f'napctl_target_conflicts{{target="pid:{server.pid}"}}'
        until(lambda: figure(port, conflicts) == 1, "a metric that tells")
        assert [line in each for each in it.since(changed)] == [True]
        set_napi(lab, napi.napi_id, ours)
        until(lambda: figure(port, conflicts) == 0, "the end of it")
        set_napi(lab, napi.napi_id, replace(ours, gro_flush_timeout_ns=888_000))
        it.told(line.replace("777us", "888us"))
        assert it.end(signal.SIGTERM) == 5
    (left,) = settings_of(lab)
    assert left.gro_flush_timeout_ns == 888_000
