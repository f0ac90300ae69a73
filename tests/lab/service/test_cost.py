"""What the service takes for itself, settled. Over reloads and link resets: test_soak.py."""

import signal
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from napctl.kernel.cpu_time import clock_seconds
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from tests.lab.attach.test_follow_cost import with_many_connections
from tests.lab.cost import Cost, traced_from_now
from tests.lab.helpers import Napctl, at_server, in_namespace
from tests.lab.ports import free_port
from tests.lab.service.services import memory_bytes, open_files, policy_of, scraped, serving

pytestmark = [pytest.mark.lab, pytest.mark.alone]

SECONDS = 300
TRACED_SECONDS = 70
"""Two deep looks, four scrapes."""
SCRAPE_SECONDS = 15


@pytest.mark.long
@pytest.mark.timeout(600)
def test_settled_it_takes_less_than_half_a_percent_of_a_cpu_and_60_mb(napctl: Napctl, tmp_path: Path) -> None:
    """With 10,000 connections, 64 queues, 200 other devices, metrics that are scraped, and a look for findings, which
    comes as often. What it calls is traced afterwards: each call that strace stops at takes its time."""
    with Lab.build(queues=64) as lab, ExitStack() as stack:
        for number in range(100):
            in_namespace(lab.server.namespace, "ip", "link", "add", f"v{number}", "type", "veth")
        server = stack.enter_context(with_many_connections(lab, "-t", "64", "-N", "64"))  # each has a queue of its own
        port = free_port()
        metrics = f'metrics = "127.0.0.1:{port}"\n[[device]]\nname = "server0"\ndeferral.defer-hard-irqs = 1'
        policy = policy_of(tmp_path, server.pid, service=metrics)
        it = stack.enter_context(serving(napctl, policy, *at_server(lab)))
        it.told("attached memcached")
        stack.enter_context(
            started(lab, server, LoadSpec(rate_per_second=2_000, seconds=SECONDS + TRACED_SECONDS + 40))
        ).wait_for_warmup()
        time.sleep(20)  # new connections are a change, the first snapshot loads the probes, and the last trial ends
        used, began = clock_seconds(it.pid), time.monotonic()
        age = oldest_scraped(port, SECONDS)
        share, memory = (clock_seconds(it.pid) - used) / (time.monotonic() - began), memory_bytes(it.pid)
        print(f"{share:.2%} of a CPU, {memory / 1e6:.0f} MB, {open_files(it.pid)} descriptors")
        assert age < 16
        assert share < 0.005
        assert memory < 60e6

        with traced_from_now(it.pid, tmp_path / "trace") as trace:
            cost = Cost(it, trace)
            oldest_scraped(port, TRACED_SECONDS)
            assert cost.reads > 0, "or nothing was seen"
            assert cost.long_looks == 0, "no system calls are traced"
            assert cost.programs == 0, "what looks for findings finds its probe loaded"
        assert it.end(signal.SIGTERM, 20) == 0


def oldest_scraped(port: int, seconds: float) -> float:
    """The greatest age of a snapshot scraped in the seconds from now on; there have been looks for findings."""
    began, age, looked = time.monotonic(), 0.0, False
    while (left := began + seconds - time.monotonic()) > 0:
        time.sleep(min(left, SCRAPE_SECONDS))
        seen = scraped(port)
        has_looked = "napctl_findings_age_seconds" in seen
        assert has_looked or not looked, "what was found stays until the next look"
        looked = has_looked
        age = max(age, seen["napctl_snapshot_age_seconds"])
    assert looked, "for findings, as often as it does"
    return age
