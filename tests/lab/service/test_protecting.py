"""`[protect]` of a policy: what the service does in a real flood, and what is seen of it."""

import signal
import time
from pathlib import Path

import pytest

from napctl.lab.flood import AS_SOFTIRQ, started_flood
from tests.lab.flooded import FloodBed
from tests.lab.following import killed
from tests.lab.helpers import Napctl, at_server, until
from tests.lab.ports import free_port
from tests.lab.service.services import scraped, serving, write

pytestmark = [pytest.mark.lab, pytest.mark.alone]

PROTECT = '[protect]\ndevices = ["server0"]\n'


@pytest.fixture
def bed(shared_flood_bed: FloodBed) -> FloodBed:
    return shared_flood_bed


@pytest.mark.long
def test_the_service_protects_says_why_and_tells_its_metrics(bed: FloodBed, napctl: Napctl, tmp_path: Path) -> None:
    port = free_port()
    policy = write(tmp_path / "policy.toml", f'{PROTECT}[service]\nmetrics = "127.0.0.1:{port}"\n')
    assert "protect server0; from 90 % of a CPU on" in napctl("policy", "check", policy).stdout
    with serving(napctl, policy, *at_server(bed.lab)) as it:
        it.told("runs on CPU 0, where none of the packets come that may flood")
        with started_flood(bed.lab, bed.flooding) as running:
            running.wait_until_sending()
            began = time.time()
            assert it.told("server0: overload: nice 19 for the thread of NAPI").seconds - began < 1.0
            assert bed.nice == [19]
            assert "overload: nice 19" in napctl("why", "server0").stdout

            def steps() -> list[float]:
                found = scraped(port)
                step = [value for name, value in found.items() if name.startswith("napctl_protection_step{")]
                return [*step, found.get('napctl_protection_steps_total{step="nice"}', 0)]

            until(lambda: steps() == [2, 1], "metrics that show the step")
            write(policy, "[service]\n")
            it.told("protection ends: the policy wants another one, or none")
            assert bed.nice == [AS_SOFTIRQ]
            write(policy, PROTECT)
            it.told("overload: nice 19", since=time.time())
            assert it.end(signal.SIGTERM) == 0
            assert bed.nice == [AS_SOFTIRQ]
    assert napctl.live() == []


@pytest.mark.long
def test_killed_amid_a_flood_the_next_one_takes_over_and_takes_it_back_in_the_end(
    bed: FloodBed, napctl: Napctl, tmp_path: Path
) -> None:
    policy = write(tmp_path / "policy.toml", PROTECT)
    with started_flood(bed.lab, bed.flooding) as running:
        running.wait_until_sending()
        with serving(napctl, policy, *at_server(bed.lab)) as it:
            it.told("server0: overload: nice 19")
            killed(it)
        assert bed.nice == [19]
        with serving(napctl, policy, *at_server(bed.lab)) as it:
            it.told("took over the protection of server0")
            time.sleep(2)
            assert bed.nice == [19]
            running.stop()
            over = time.time()
            back = it.told("server0: overload is over: nice put back")
            assert 9.5 < back.seconds - over < 13
            assert bed.nice == [AS_SOFTIRQ]
            assert it.end(signal.SIGTERM) == 0
