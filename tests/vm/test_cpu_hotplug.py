"""CPUs that go offline and come again while the service runs, under load: it stays true, and no count falls."""

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path

import pytest

from napctl.kernel.namespaces import NetworkNamespace
from napctl.lab.webservers import nginx
from napctl.observe.checkup import take_checkup
from napctl.observe.window import Observer
from napctl.probe.softirq_parts import SoftirqPartsProbe
from napctl.probe.softirq_time import SoftirqTimeProbe
from tests.lab.following import Clients, attached, settings_of
from tests.lab.helpers import PREFERS, Napctl, at_server, params_of, until
from tests.lab.ports import free_port
from tests.lab.service.services import policy_of, scraped, serving
from tests.vm.nics_lab import lab_of_nics
from tests.vm.wire import Wire, run

ONLINE = Path("/sys/devices/system/cpu/cpu1/online")
PATIENCE_S = 120
COUNTED = re.compile(r"_(total|count|sum|bucket)(\{|$)")
BACKLOG = 0
"""The id of who polls what loopback delivers."""


@contextmanager
def offline() -> Iterator[None]:
    """The second of two CPUs."""
    ONLINE.write_text("0")
    try:
        yield
    finally:
        ONLINE.write_text("1")


@pytest.fixture
def napctl(state: Path) -> Napctl:
    """A program of its own, as a service is."""
    return Napctl(state)


@pytest.mark.long
def test_who_is_attached_stays_so_and_no_metric_falls(napctl: Napctl, tmp_path: Path) -> None:
    port = free_port()
    with (
        lab_of_nics(queues=1) as lab,
        nginx(lab, workers=1, patience_s=60) as server,
        Clients(lab, server, count=4, requests=1000) as clients,
        serving(
            napctl, policy_of(tmp_path, (server.pid, 2000), service=f'metrics = "127.0.0.1:{port}"'), *at_server(lab)
        ) as it,
    ):
        (worker,) = server.workers
        it.told("attached nginx", patience_s=PATIENCE_S)
        seen = [await_snapshot(port, after=float("-inf"))]
        for turn in (offline, online, offline, online):
            with turn():
                answers_go_on(clients)
                seen.append(await_snapshot(port, after=taken(seen[-1])))
                assert PREFERS in params_of(worker).values()
                assert any(map(attached, settings_of(lab)))
        assert it.end(signal.SIGTERM, patience_s=60) == 0
        assert it.errors == ""
        assert not any("again in" in line or "detached" in line for line in it.since()), it.since()
    for then, now in pairwise(seen):
        fell = {name: (then[name], now.get(name)) for name in then if COUNTED.search(name) and falls(then, now, name)}
        assert fell == {}
        assert now[f'napctl_target_attached{{target="pid:{server.pid}"}}'] == 1
    assert min(value for each in seen for value in each.values()) >= 0
    assert seen[-1]["napctl_machine_interrupts_total"] > seen[0]["napctl_machine_interrupts_total"]


def answers_go_on(clients: Clients) -> None:
    before = clients.answered
    until(lambda: clients.answered > before + 20, "answers", PATIENCE_S)


@contextmanager
def online() -> Iterator[None]:
    """As it is between two times."""
    assert ONLINE.read_text().strip() == "1"
    yield


def falls(then: dict[str, float], now: dict[str, float], name: str) -> bool:
    return name not in now or now[name] < then[name]


def taken(sample: dict[str, float]) -> float:
    """When the snapshot was taken of which a scrape tells, of time.monotonic()."""
    return sample["at"] - sample["napctl_snapshot_age_seconds"]


def await_snapshot(port: int, *, after: float) -> dict[str, float]:
    """A scrape of the next one."""

    def next_one() -> dict[str, float] | None:
        with suppress(OSError):
            sample = scraped(port) | {"at": time.monotonic()}
            if "napctl_snapshot_age_seconds" in sample and taken(sample) > after + 1:
                return sample
        time.sleep(0.5)
        return None

    found = until(next_one, "the next snapshot", PATIENCE_S)
    assert found is not None
    return found


def test_time_in_softirqs_is_a_sum_that_never_falls() -> None:
    with SoftirqTimeProbe.load(()) as probe:
        run("taskset", "--cpu-list", "1", "ping", "-q", "-c", "30", "-i", "0.01", "127.0.0.1")
        before = probe.read()
        with offline():
            during = probe.read()
        after = probe.read()
    assert 0 < before.ns <= during.ns <= after.ns


def test_so_is_what_of_it_belongs_to_a_part() -> None:
    with SoftirqPartsProbe.load([([BACKLOG], [])]) as probe:
        run("taskset", "--cpu-list", "1", "ping", "-q", "-c", "30", "-i", "0.01", "127.0.0.1")
        (before,) = probe.read()
        with offline():
            (during,) = probe.read()
        (after,) = probe.read()
    assert 0 < before.polled_ns <= during.polled_ns <= after.polled_ns


def test_windows_and_checkups_bear_it(wire: Wire) -> None:
    """A CPU that comes or goes amid one has a gap, and neither a negative count nor more than the time there was."""
    with NetworkNamespace.current() as netns:
        with Observer(netns, [wire.device]) as observer:
            for turn in (offline, online, offline):
                with turn():
                    wire.ping(20)
                    window = observer.window()
                assert counts_of(window.cpus) >= 0
                assert counts_of(window.devices) >= 0
        for change in ("0", "1"):
            timer = threading.Timer(0.5, ONLINE.write_text, [change])
            timer.start()
            checkup = take_checkup(netns, [wire.device], 1.5, lambda _left: None)
            timer.join()
            assert all(0 <= cpu.busy_share <= 1 for cpu in checkup.cpus)
            assert {cpu.cpu for cpu in checkup.cpus} <= {0, 1}
        assert ONLINE.read_text().strip() == "1"


def counts_of(rows: object) -> float:
    """The least of all that is counted; what has a gap is None."""
    assert isinstance(rows, tuple)
    values = [getattr(row, name) for row in rows for name in row.__struct_fields__]
    return min(value for value in values if isinstance(value, int | float))


def test_the_second_cpu_can_go(wire: Wire) -> None:
    """Else none of the above says anything."""
    with offline():
        assert Path("/sys/devices/system/cpu/online").read_text().strip() == "0"
        wire.ping(3)
    assert Path("/sys/devices/system/cpu/online").read_text().strip() == "0-1"
