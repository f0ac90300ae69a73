"""An hour of reloads and link resets: the service does not grow. NAPCTL_SOAK_MINUTES: another time."""

import os
import signal
import socket
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import pytest

from napctl.kernel.cpu_time import clock_seconds
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.lab.webservers import nginx
from tests.lab.following import flap, get
from tests.lab.helpers import Napctl, at_server, in_namespace, until
from tests.lab.ports import free_port
from tests.lab.service.services import memory_bytes, open_files, policy_of, serving

pytestmark = [pytest.mark.lab, pytest.mark.alone]

MINUTES = float(os.environ.get("NAPCTL_SOAK_MINUTES", "60"))
WORKERS = 4
ROUND_SECONDS = 10.0
"""From one reload to the next link reset."""
BUSY_SHARE = 0.1
"""Of one CPU at most: nothing of this is settled, and whoever is new is on trial."""


@dataclass(frozen=True)
class Size:
    """Of the service, at one moment."""

    at: float
    cpu_seconds: float
    memory_bytes: int
    open_files: int
    journal_bytes: int


@pytest.mark.long
@pytest.mark.timeout(MINUTES * 60 + 600)
def test_over_an_hour_of_reloads_and_link_resets_nothing_grows(napctl: Napctl, tmp_path: Path) -> None:
    """Memory, descriptors and the journal: the median of a quarter, as some have a trial or a look for findings."""
    with Lab.build(queues=WORKERS) as lab, ExitStack() as stack:
        server = nginx(lab, workers=WORKERS, reuseport=True)
        stack.callback(server.stop)
        policy = policy_of(tmp_path, (f":{server.port}", 200), service=f'metrics = "127.0.0.1:{free_port()}"')
        policy.write_text(policy.read_text().replace("defer-us = 200\n", "defer-us = 200\nsteer = true\n"))
        it = stack.enter_context(serving(napctl, policy, *at_server(lab)))

        def size() -> Size:
            journal = sum(each.stat().st_size for each in napctl.state.glob("journal*"))
            return Size(time.monotonic(), clock_seconds(it.pid), memory_bytes(it.pid), open_files(it.pid), journal)

        sizes, began = [size()], time.monotonic()
        while (due := began + len(sizes) * ROUND_SECONDS) < began + MINUTES * 60:
            connection = connected(lab, server)
            if len(sizes) % 2:
                flap(lab)
            else:
                in_namespace(lab.server.namespace, "kill", "-HUP", str(server.pid))
            connection.close()
            time.sleep(max(0.0, due - time.monotonic()))
            sizes.append(size())
            assert it.process.poll() is None, it.since()
        until(napctl.live, "an attachment")
        quarter = len(sizes) // 4
        second, last = sizes[quarter : 2 * quarter], sizes[-quarter:]
        share = (last[-1].cpu_seconds - last[0].cpu_seconds) / (last[-1].at - last[0].at)
        print(f"{share:.2%} of a CPU in the last quarter")
        for field, most in (("memory_bytes", 5e6), ("open_files", 8), ("journal_bytes", 25e6)):
            before, now = (median(getattr(each, field) for each in sample) for sample in (second, last))
            print(f"{field}: {before:,.0f} in the second quarter, {now:,.0f} in the last, of {len(sizes)} rounds")
            assert now <= before + most, field
        assert share < BUSY_SHARE
        assert it.end(signal.SIGTERM, 20) == 0


def connected(lab: Lab, server: Server) -> socket.socket:
    """A connection that has had an answer, once the server answers again."""
    found: list[socket.socket] = []

    def answered() -> bool:
        try:
            found.append(get(lab, server, 5))
        except OSError:
            return False
        return True

    until(answered, "an answer")
    return found[0]
