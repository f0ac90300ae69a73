"""What the service takes for itself: settled, and over an hour of reloads and link resets."""

import os
import signal
import socket
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server
from napctl.lab.webservers import nginx
from tests.lab.attach.test_follow_cost import with_many_connections
from tests.lab.cost import Cost, traced
from tests.lab.following import flap, get
from tests.lab.helpers import Napctl, at_server, in_namespace, until
from tests.lab.service.services import free_port, policy_of, serving

pytestmark = [pytest.mark.lab, pytest.mark.alone]

WORKERS = 4


def memory_bytes(pid: int) -> int:
    """Pss of /proc/PID/smaps_rollup: what others use as well counts in part."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    (line,) = (each for each in lines if each.startswith("Pss:"))
    return int(line.split()[1]) * 1024


def open_files(pid: int) -> int:
    return sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())


@pytest.mark.long
@pytest.mark.timeout(600)
def test_settled_it_takes_less_than_half_a_percent_of_a_cpu_and_60_mb(napctl: Napctl, tmp_path: Path) -> None:
    """With 10,000 connections, 64 queues, 200 other devices, metrics, and a look for findings, which comes as often."""
    seconds, trace = 300, tmp_path / "trace"
    with Lab.build(queues=64) as lab, ExitStack() as stack:
        for number in range(100):
            in_namespace(lab.server.namespace, "ip", "link", "add", f"v{number}", "type", "veth")
        server = stack.enter_context(with_many_connections(lab))
        metrics = f'metrics = "127.0.0.1:{free_port()}"\n[[device]]\nname = "server0"\ndeferral.defer-hard-irqs = 1'
        policy = policy_of(tmp_path, server.pid, service=metrics)
        it = stack.enter_context(serving(napctl, policy, *at_server(lab), under=traced(trace)))
        it.told(str(server.pid), patience_s=30)
        stack.enter_context(
            started(lab, server, LoadSpec(rate_per_second=2_000, seconds=seconds + 25))
        ).wait_for_warmup()
        time.sleep(12)  # the new connections of the load are a change, and the first snapshot loads the probes
        cost = Cost(it, trace)
        time.sleep(seconds)

        share, memory = cost.share, memory_bytes(it.pid)
        print(f"{share:.2%} of a CPU, {memory / 1e6:.0f} MB, {open_files(it.pid)} descriptors")
        assert share < 0.005
        assert memory < 60e6
        assert cost.programs == 0
        assert it.end(signal.SIGTERM, 20) == 0


@pytest.mark.long
@pytest.mark.timeout(2_400)
def test_over_reloads_and_link_resets_nothing_grows(napctl: Napctl, tmp_path: Path) -> None:
    """Memory, descriptors and the journal: from the end of the first quarter to the last, half an hour later."""
    rounds = int(os.environ.get("NAPCTL_TEST_ROUNDS", "180"))
    with Lab.build(queues=WORKERS) as lab, ExitStack() as stack:
        server = nginx(lab, workers=WORKERS, reuseport=True)
        stack.callback(server.stop)
        policy = policy_of(tmp_path, (f":{server.port}", 200), service=f'metrics = "127.0.0.1:{free_port()}"')
        policy.write_text(policy.read_text().replace("defer-us = 200\n", "defer-us = 200\nsteer = true\n"))
        it = stack.enter_context(serving(napctl, policy, *at_server(lab)))
        sizes: list[tuple[int, int, int]] = []
        for number in range(rounds):
            connection = connected(lab, server)
            if number % 2:
                flap(lab)
            else:
                in_namespace(lab.server.namespace, "kill", "-HUP", str(server.pid))
            connection.close()
            time.sleep(9)
            journal = sum(each.stat().st_size for each in napctl.state.glob("journal*"))
            sizes.append((memory_bytes(it.pid), open_files(it.pid), journal))
            assert it.process.poll() is None, it.since()
        until(napctl.live, "an attachment", 30)
        first, last = sizes[len(sizes) // 4], sizes[-1]
        print(f"{first} at first, {last} in the end, after {rounds} rounds")
        assert last[0] < 1.1 * first[0] + 2e6
        assert last[1] <= first[1] + 8
        assert last[2] < 25e6
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

    until(answered, "an answer", 20)
    return found[0]
