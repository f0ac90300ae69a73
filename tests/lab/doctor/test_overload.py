"""The whole way from a flood to words: watch and doctor name the CPU while it lasts."""

import pytest

from napctl.lab.bed import Lab
from napctl.lab.flood import FloodSpec, peak_per_second, started_flood, udp_server
from tests.lab.flooded import let_packets_take_the_cpu
from tests.lab.helpers import Napctl

pytestmark = [pytest.mark.lab, pytest.mark.alone]


@pytest.mark.long
def test_watch_and_doctor_name_the_cpu_that_packets_take(napctl: Napctl) -> None:
    with Lab.build(server_cpu=1, client_cpu=0) as lab, udp_server(lab) as server:
        let_packets_take_the_cpu(lab.server)
        peak = peak_per_second(lab)
        netns = f"pid:{server.pid}"
        calm = napctl("watch", "server0", "--netns", netns, "--seconds", 1)
        with started_flood(lab, FloodSpec(rate_per_second=4 * peak, seconds=8)) as running:
            running.wait_until_sending()
            watched = napctl("watch", "server0", "--netns", netns, "--seconds", 1)
            found = napctl("doctor", "server0", "--netns", netns, "--seconds", 2)
            running.stop()
    assert "CPU 1" not in calm.stdout
    length, top, *_ = watched.stdout.splitlines()
    assert length.endswith(" s")
    assert top.startswith("CPU 1 overloaded: packets take 9")
    assert "dropped after the stack worked on them" in " ".join(watched.stdout.split())
    assert found.status == 1
    assert "(overload)" in found.stdout
    assert f"napctl attach {server.pid}" in found.stdout
    assert "renice -n 19 -p " in found.stdout
