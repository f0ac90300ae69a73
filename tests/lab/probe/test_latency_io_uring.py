"""Server-side latency of servers that read by io_uring: its recv is seen, its splice is not, and that is said."""

import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from napctl.lab.bed import Lab
from napctl.lab.load import LoadResult, LoadSpec, started
from napctl.lab.servers import Server
from napctl.model.latency import ProcessLatency, ServerLatency
from napctl.observe.server_latency import LatencyMeter
from tests.lab.helpers import Napctl, until
from tests.lab.other_servers import echoed
from tests.lab.uring_server import uring
from tests.tries import in_one_of

pytestmark = [pytest.mark.lab, pytest.mark.alone]

LOAD = LoadSpec(rate_per_second=3_000, seconds=20, warmup_seconds=0.3, protocol="http")
FEW = replace(LOAD, connections=3, rate_per_second=500)
"""A blocking splice takes a kernel thread, of which there are few."""
NOTHING = "server-side latency: it read nothing by recv in this window"


def seen_under_load(lab: Lab, server: Server, spec: LoadSpec = LOAD) -> tuple[ServerLatency, LoadResult]:
    """Of a second; and what the client saw."""
    with LatencyMeter([server.pid]) as meter, started(lab, server, spec) as load:
        load.wait_for_warmup()
        meter.restart()
        time.sleep(1)
        window, result = meter.window(), load.stop()
    return window, result


def test_what_is_read_by_io_uring_over_tcp_is_seen(lab: Lab, uring_program: Path) -> None:
    def attempt() -> None:
        window, client = seen_under_load(lab, server)
        assert client.p50_us is not None
        assert window.together is not None, window.lacks
        assert window.lacks == ()
        assert [each.pid for each in window.processes] == [server.pid]
        read, reply = window.together.until_read, window.together.until_reply
        assert read.samples >= 250, "of 750 in the slices one in two"
        p50, replied = read.percentile_ns(0.5), reply.percentile_ns(0.5)
        assert p50 is not None
        assert replied is not None
        assert 0 < p50 <= replied <= 1.2 * client.p50_us * 1e3

    with uring(lab, uring_program, "tcp") as server:
        in_one_of(attempt)


def test_what_is_read_by_io_uring_over_udp_is_seen(lab: Lab, uring_program: Path) -> None:
    with uring(lab, uring_program, "udp") as server, LatencyMeter([server.pid]) as meter:
        assert echoed(lab, server, 20) == 20
        meter.restart()

        def enough() -> ProcessLatency | None:
            assert echoed(lab, server, 500) == 500
            meter.window()
            found = meter.since_start().together
            return found if found and found.until_reply.samples >= 50 else None

        found = until(enough, "replies that were looked at")
    assert found is not None
    assert found.until_read.samples >= 50


def test_what_io_uring_splices_is_said_not_to_be_seen(lab: Lab, uring_program: Path, napctl: Napctl) -> None:
    with uring(lab, uring_program, "splice") as server:
        window, _ = seen_under_load(lab, server, FEW)
        assert window.together is None
        assert window.lacks == (NOTHING,)
        with started(lab, server, FEW) as load:
            load.wait_for_warmup()
            shown = napctl("watch", "--target", server.pid, "--seconds", 1)
    assert shown.status == 0
    words = " ".join(shown.stdout.split())
    assert f"not known: {NOTHING}" in words
    assert "read p50" not in words
