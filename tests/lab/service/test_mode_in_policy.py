"""The mode of a policy: made true, told in the metrics, and exchanged for another, also by a later service."""

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.modes import mode_of
from tests.lab.helpers import Napctl, at_server, state_of, until
from tests.lab.ports import free_port
from tests.lab.service.services import scraped, serving, write

pytestmark = pytest.mark.lab


def test_the_mode_of_an_entry_is_kept_and_exchanged(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    port, before, path = free_port(), state_of(lab.server), tmp_path / "policy.toml"
    end = f'[service]\non-stop = "keep"\nmetrics = "127.0.0.1:{port}"\n'
    entry = f'[[attach]]\ntarget = "pid:{server.pid}"\n'

    def told(mode: str) -> bool:
        with suppress(OSError):  # it does not listen yet
            return scraped(port).get(f'napctl_target_mode{{mode="{mode}",target="pid:{server.pid}"}}') == 1
        return False

    with serving(napctl, write(path, f'{entry}mode = "defer"\ndefer-us = 50\n{end}')) as it:
        it.told("attached memcached")
        assert mode_of(napctl.live()[0].changes) == "defer"
        until(lambda: told("defer"), "its mode in the metrics")
        assert napctl("policy", "drift", path, *at_server(lab)).status == 0
        write(path, f'{entry}mode = "thread"\n{end}')
        os.kill(it.pid, signal.SIGHUP)
        until(lambda: [mode_of(each.changes) for each in napctl.live()] == ["thread"], "its thread")
        assert it.end(signal.SIGTERM) == 0

    write(path, f'{entry}mode = "defer"\ndefer-us = 50\n{end}'.replace('on-stop = "keep"\n', ""))
    with serving(napctl, path) as it:
        it.told("its mode is thread, and the policy wants defer")
        it.told("attached memcached")
        assert it.end(signal.SIGTERM) == 0
    assert state_of(lab.server) == before
