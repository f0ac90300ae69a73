"""What Prometheus is told: parsed by its own parser, as documented, and no more series than promised."""

import json
import math
import os
import re
import select
import socket
import stat
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families

from napctl.model.errors import BadInput, NapctlError
from napctl.model.snapshot import PollTotals
from napctl.service.metrics import (
    LONGEST_SCRAPE_SECONDS,
    MOST_SCRAPES,
    MetricsServer,
    SnapshotCollector,
    most_series,
    text_of,
    write_textfile,
)
from tests.unit.service.snapshot_samples import HISTOGRAMS, POLLS, device, snapshot, target

ROOT = Path(__file__).parents[3]
ROW = re.compile(r"^\| `(napctl_\w+)` \| (\w+) \| ([^|]*) \| (.*) \|$", re.MULTILINE)
OF_PLACES = {"device", "netns", "napi", "target"}
"""Labels that the headings of docs/metrics.md name."""


def showing(found: object, *, per_napi: bool = False, now_ns: int = 8 * 10**9) -> SnapshotCollector:
    collector = SnapshotCollector(per_napi=per_napi, clock_ns=lambda: now_ns)
    collector.show(found)  # type: ignore[arg-type]
    return collector


def families(collector: SnapshotCollector) -> dict[str, Metric]:
    """As a Prometheus reads them."""
    return {each.name: each for each in text_string_to_metric_families(text_of(collector).decode())}


def series(collector: SnapshotCollector) -> list[tuple[str, tuple[tuple[str, str], ...]]]:
    return [
        (sample.name, tuple(sorted(sample.labels.items())))
        for family in families(collector).values()
        for sample in family.samples
    ]


def exposed() -> dict[str, tuple[str, str, set[str]]]:
    """By name: type, help, and labels."""
    found = {}
    for each in families(showing(snapshot())).values():
        name = f"{each.name}_total" if each.type == "counter" else each.name
        labels = {label for sample in each.samples for label in sample.labels} - {"le"}
        found[name] = (each.type, each.documentation, labels)
    return found


def test_the_page_documents_what_is_exposed_and_nothing_else() -> None:
    page = (ROOT / "docs/metrics.md").read_text()
    documented = {
        name: (kind, words, set(re.findall(r"`(\w+)`", labels))) for name, kind, labels, words in ROW.findall(page)
    }
    found = {
        name: (kind, words, labels if name == "napctl_findings" else labels - OF_PLACES)
        for name, (kind, words, labels) in exposed().items()
    }
    assert documented == found


def test_every_query_of_the_dashboard_and_the_alerts_is_of_documented_metrics() -> None:
    documented = {name for name, *_ in ROW.findall((ROOT / "docs/metrics.md").read_text())}
    documented |= {
        f"{name}_{part}" for name, (kind, *_) in exposed().items() if kind == "histogram"
        for part in ("bucket", "sum", "count")
    }  # fmt: skip
    board = json.loads((ROOT / "deploy/grafana/napctl.json").read_text())
    queries = [each["expr"] for panel in board["panels"] for each in panel.get("targets", ())]
    assert len(queries) > 25
    queries += [each["definition"] for each in board["templating"]["list"] if each["type"] == "query"]
    queries.append((ROOT / "deploy/prometheus/rules.yml").read_text())
    assert {name for each in queries for name in re.findall(r"\bnapctl_\w+", each)} <= documented


def test_panels_of_the_dashboard_do_not_overlap_and_each_says_what_it_shows() -> None:
    board = json.loads((ROOT / "deploy/grafana/napctl.json").read_text())
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        cells = {(place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])}
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= 24
        assert panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids)


@pytest.mark.parametrize(("devices", "targets"), [(1, 1), (2, 1), (1, 2), (5, 7), (0, 0), (200, 20)])
def test_there_are_no_more_series_than_promised(devices: int, targets: int) -> None:
    full = snapshot(
        tuple(device(f"eth{each}") for each in range(devices)),
        tuple(target(f"server{each}") for each in range(targets)),
        findings=10_000,
    )
    found = series(showing(full))
    assert len(set(found)) == len(found)
    assert len(found) == most_series(devices, targets)
    assert most_series(devices, targets) <= 150 + 60 * max(0, devices - 1) + 50 * max(0, targets - 1)


def test_napi_instances_on_request_are_as_many_series_as_told() -> None:
    full = snapshot((device("eth0", queues=64), device("eth1", queues=3)), findings=10_000)
    found = series(showing(full, per_napi=True))
    assert len(set(found)) == len(found) <= most_series(2, 1, napis=67)
    assert sum(name == "napctl_polls_total" for name, _ in found) == 4 * 67


def test_a_histogram_has_at_most_ten_buckets_that_grow_to_its_count() -> None:
    for family in families(showing(snapshot())).values():
        if family.type != "histogram":
            continue
        buckets = [each for each in family.samples if each.name.endswith("_bucket")]
        (count,) = (each.value for each in family.samples if each.name.endswith("_count"))
        assert len(buckets) <= 10
        assert [each.value for each in buckets] == sorted(each.value for each in buckets)
        bounds = [float(each.labels["le"]) for each in buckets]
        assert bounds == sorted(bounds)
        assert (bounds[-1], buckets[-1].value) == (math.inf, count)


@given(HISTOGRAMS)
def test_packets_per_poll_are_counted_exactly(polls: object) -> None:
    assert isinstance(polls, type(POLLS.softirq))
    totals = PollTotals(softirq=polls)
    found = families(showing(snapshot((replace(device("eth0"), polls=totals),))))["napctl_packets_per_poll"]
    values = {(each.name, each.labels.get("le")): each.value for each in found.samples}
    assert values["napctl_packets_per_poll_count", None] == polls.polls
    assert values["napctl_packets_per_poll_sum", None] == pytest.approx(polls.packets)
    assert values["napctl_packets_per_poll_bucket", "0.0"] == polls.empty
    assert values["napctl_packets_per_poll_bucket", "8.0"] == sum(polls.counts[:9])


@given(st.text(min_size=1), st.text(min_size=1))
def test_foreign_names_are_made_safe_and_the_text_stays_readable(name: str, server: str) -> None:
    collector = showing(snapshot((device(name),), (target(server),)))
    text = text_of(collector).decode()
    assert all(line.isprintable() for line in text.splitlines())
    up = families(collector)["napctl_device_up"]
    assert [each.value for each in up.samples] == [1.0]


def test_a_name_with_a_newline_forges_no_line() -> None:
    text = text_of(showing(snapshot((), (target('x"} 1\nnapctl_up 0\n\x1b[2J'),)))).decode()
    assert text.count("\nnapctl_up") == 1
    assert "\x1b" not in text


def test_devices_of_two_namespaces_with_one_name_are_two_series() -> None:
    found = series(showing(snapshot((device("eth0"), device("eth0", netns=4026532001)))))
    assert len(set(found)) == len(found)


def test_before_the_first_snapshot_it_says_so_and_no_more() -> None:
    assert text_of(SnapshotCollector()).decode().splitlines()[-1] == "napctl_up 0.0"


def test_the_age_is_that_of_the_snapshot_when_it_is_asked_for() -> None:
    (age,) = families(showing(snapshot(), now_ns=65 * 10**9))["napctl_snapshot_age_seconds"].samples
    assert age.value == 60.0


def test_a_scrape_touches_neither_the_kernel_nor_the_journal() -> None:
    """By what Python tells of files, sockets and databases (sys.addaudithook())."""
    collector, touched, armed = showing(snapshot()), list[str](), [False]
    text_of(collector)  # imports what it needs
    kinds = ("open", "os.", "socket.", "sqlite3.", "fcntl.", "mmap.", "subprocess.")
    me = threading.get_ident()  # what an earlier test has started may still end

    def hear(event: str, _: object) -> None:
        if armed[0] and threading.get_ident() == me and event.startswith(kinds):
            touched.append(event)

    sys.addaudithook(hear)
    armed[0] = True
    try:
        text = text_of(collector)
    finally:
        armed[0] = False
    assert (touched, b"napctl_polls_total" in text) == ([], True)


def test_what_a_probe_would_count_is_missing_without_it_and_it_says_which() -> None:
    without = replace(
        snapshot((replace(device("eth0"), polls=None, suspension=None),), (replace(target("nginx"), until_read=None),)),
        probes={"napi": False, "suspension": True},
    )
    found = families(showing(without))
    assert {each.labels["probe"]: each.value for each in found["napctl_probe_up"].samples} == {
        "napi": 0.0, "suspension": 1.0,
    }  # fmt: skip
    for name in ("napctl_polls", "napctl_packets_per_poll", "napctl_poll_wait_seconds", "napctl_target_read_seconds"):
        assert name not in found
    assert "napctl_packets" in found


@pytest.mark.parametrize(
    ("verdict", "active"), [("active", [1.0]), ("not active", [0.0]), ("starving", [0.0]), ("quiet", []), ("", [])]
)
def test_active_is_told_only_where_it_can_be_told(verdict: str, active: list[float]) -> None:
    found = families(showing(snapshot((), (target("nginx", verdict),))))
    samples = found["napctl_target_active"].samples if "napctl_target_active" in found else []
    assert [each.value for each in samples] == active


def scrape(port: int, host: str = "127.0.0.1") -> str:
    with urllib.request.urlopen(f"http://{host}:{port}/metrics", timeout=10) as answer:
        return str(answer.read().decode())


@pytest.mark.parametrize(("address", "host"), [("127.0.0.1", "127.0.0.1"), ("::1", "[::1]")])
def test_it_serves_at_the_given_address_alone(address: str, host: str) -> None:
    if address == "::1" and not socket.has_dualstack_ipv6():
        pytest.skip("no IPv6 here")
    with MetricsServer(showing(snapshot()), address, 0) as server:
        assert "napctl_polls_total" in scrape(server.port, host)
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", server.port), timeout=1)
    with pytest.raises(OSError, match="refused"):
        socket.create_connection((address, server.port), timeout=1)


def test_a_port_in_use_is_one_line() -> None:
    with MetricsServer(SnapshotCollector(), "127.0.0.1", 0) as first, pytest.raises(BadInput) as raised:
        MetricsServer(SnapshotCollector(), "127.0.0.1", first.port)
    assert re.fullmatch(r"metrics at 127\.0\.0\.1:\d+: another process listens there; .*", str(raised.value))


def test_an_address_of_another_machine_is_one_line() -> None:
    for address in ("203.0.113.7", "no such address"):
        with pytest.raises(BadInput, match="this machine has no such address"):
            MetricsServer(SnapshotCollector(), address, 9000)


def threads() -> set[threading.Thread]:
    return set(threading.enumerate())


def test_it_stops_amid_a_scrape_and_a_client_that_says_nothing_holds_nobody_up() -> None:
    before = threads()
    server = MetricsServer(showing(snapshot()), "127.0.0.1", 0)
    with (
        socket.create_connection(("127.0.0.1", server.port)) as silent,
        socket.create_connection(("127.0.0.1", server.port)) as half,
    ):
        half.sendall(b"GET /metrics HTTP/1.1\r\nHost:")
        assert "napctl_up 1.0" in scrape(server.port)
        began = time.monotonic()
        server.close()
        assert time.monotonic() - began < 0.8 * LONGEST_SCRAPE_SECONDS
        silent.shutdown(socket.SHUT_RDWR)
    deadline = time.monotonic() + 60
    while threads() - before:
        assert time.monotonic() < deadline, threads() - before
        time.sleep(0.01)


def test_while_nobody_scrapes_it_sleeps() -> None:
    with MetricsServer(showing(snapshot()), "127.0.0.1", 0) as server:
        scrape(server.port)
        status = Path(f"/proc/self/task/{server._thread.native_id}/status")
        assert any(not wakes_of(status) for _ in range(10)), "at first it may still begin to wait"


def wakes_of(status: Path) -> int:
    """How often a thread goes to sleep of its own accord in a second."""

    def count() -> int:
        (found,) = re.findall(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.M)
        return int(found)

    before = count()
    time.sleep(1.1)
    return count() - before


class SlowCollector(SnapshotCollector):
    """One whose answer takes a third of a second."""

    def __init__(self) -> None:
        super().__init__()
        self.asked = threading.Event()

    def collect(self) -> Iterator[Metric]:
        self.asked.set()
        time.sleep(0.3)
        yield from super().collect()


def test_a_scrape_that_is_being_answered_is_answered_before_it_has_stopped() -> None:
    """Its thread ends with the process, amid the answer."""
    collector, found = SlowCollector(), list[str]()
    server = MetricsServer(collector, "127.0.0.1", 0)
    scraping = threading.Thread(target=lambda: found.append(scrape(server.port)))
    scraping.start()
    assert collector.asked.wait(10)
    server.close()
    assert not server._server.scraping
    scraping.join(10)
    assert "napctl_up 0.0" in found[0]


BEYOND = 4


def test_who_says_nothing_on_many_connections_takes_no_more_than_so_many() -> None:
    """Each takes a descriptor of the service."""
    with MetricsServer(showing(snapshot()), "127.0.0.1", 0) as server, ExitStack() as stack:
        place = ("127.0.0.1", server.port)
        silent, hung_up, deadline = list[socket.socket](), select.poll(), time.monotonic() + 60
        for number in range(MOST_SCRAPES + BEYOND):
            silent.append(stack.enter_context(socket.create_connection(place)))
            hung_up.register(silent[-1], select.POLLIN)
            while len(server._server.scraping) < min(number + 1, MOST_SCRAPES) and time.monotonic() < deadline:
                time.sleep(0.001)  # more than a few that wait are asked to come again
        while len(hung_up.poll(100)) < BEYOND and time.monotonic() < deadline:
            time.sleep(0.01)
        assert len(hung_up.poll(0)) == BEYOND
        for each in silent:
            each.close()
        while server._server.scraping and time.monotonic() < deadline:
            time.sleep(0.01)
        assert "napctl_up 1.0" in scrape(server.port)


@pytest.fixture
def textfile(tmp_path: Path) -> Iterator[Path]:
    mask = os.umask(0o077)
    yield tmp_path / "napctl.prom"
    os.umask(mask)


def test_a_textfile_is_whole_readable_by_all_and_alone_in_its_directory(textfile: Path) -> None:
    textfile.write_text("old")
    with textfile.open() as reader:
        write_textfile(showing(snapshot()), textfile)
        assert reader.read() == "old"  # who has the old one open reads it to its end
    assert stat.S_IMODE(textfile.stat().st_mode) == 0o644
    assert textfile.read_text().endswith("\n")
    assert "napctl_snapshot_age_seconds 3.0" in textfile.read_text()
    assert list(textfile.parent.iterdir()) == [textfile]


def test_a_textfile_that_cannot_be_written_is_one_line_and_leaves_the_old_one(textfile: Path) -> None:
    with pytest.raises(NapctlError, match=r"^/dev/full/napctl\.prom: metrics cannot be written: Not a directory$"):
        write_textfile(SnapshotCollector(), Path("/dev/full/napctl.prom"))
    textfile.mkdir()
    with pytest.raises(NapctlError, match="metrics cannot be written"):
        write_textfile(SnapshotCollector(), textfile)
    assert list(textfile.parent.iterdir()) == [textfile]
