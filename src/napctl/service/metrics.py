"""Metrics for Prometheus: a collector over the last Snapshot. A scrape touches neither the kernel nor the journal."""

import errno
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from socketserver import ThreadingMixIn
from typing import Any, NamedTuple, Self
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from napctl.kernel.trusted_paths import write_whole
from napctl.model.errors import BadInput, NapctlError
from napctl.model.snapshot import Snapshot
from napctl.model.text import printable
from napctl.service.exposed import OF_DEVICES, OF_MACHINE, OF_POLLING, OF_TARGETS, Buckets, Exposed, Polling

__all__ = [
    "LONGEST_SCRAPE_SECONDS",
    "MOST_SCRAPES",
    "MetricsServer",
    "SnapshotCollector",
    "most_series",
    "text_of",
    "write_textfile",
]


SERIES_OF_SERVICE = 4
"""Those that this module adds itself."""
FINDINGS_OF_MACHINE, FINDINGS_OF_DEVICE = 4, 3
"""So many series of findings for a machine, and as many more for each device; the most serious."""
LONGEST_SCRAPE_SECONDS = 10
"""After that time without a word from who scrapes, the connection is closed."""
LAST_SCRAPES_SECONDS = 1.0
"""For those that are being answered when it closes; who connects and asks nothing does not hold that up for longer."""
MOST_SCRAPES = 16
"""At once; who comes beyond them is hung up on, or whoever can connect could use up the service's descriptors."""


def most_series(devices: int, targets: int, *, napis: int | None = None) -> int:
    """How many series there will be at most; `napis`: of all these devices together, where each has its own."""
    polling = devices if napis is None else napis
    return (
        SERIES_OF_SERVICE
        + FINDINGS_OF_MACHINE
        + FINDINGS_OF_DEVICE * devices
        + sum(each.series for each in OF_MACHINE)
        + devices * sum(each.series for each in OF_DEVICES)
        + polling * sum(each.series for each in OF_POLLING)
        + targets * sum(each.series for each in OF_TARGETS)
    )


class _Place(NamedTuple):
    """Values of the labels that say what a series tells of."""

    labels: tuple[str, ...]
    of: Any


class SnapshotCollector(Collector):
    """Tells the last snapshot that was shown to it, and how old that is. Another thread may ask at any time."""

    def __init__(self, *, per_napi: bool = False, clock_ns: Callable[[], int] = time.monotonic_ns) -> None:
        """`per_napi`: series of each NAPI instance instead of each device."""
        self._per_napi, self._clock_ns = per_napi, clock_ns
        self._last: Snapshot | None = None
        self._asked_ns = clock_ns()

    def show(self, snapshot: Snapshot) -> None:
        """From now on this one."""
        self._last = snapshot

    @property
    def unasked_ns(self) -> int:
        """For how long nobody has scraped, since this began."""
        return self._clock_ns() - self._asked_ns

    def describe(self) -> Iterable[Metric]:
        """Nothing: who registers it need not have a snapshot yet."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """All metrics of the last snapshot, napctl_up alone before the first."""
        last, self._asked_ns = self._last, self._clock_ns()
        yield _single("napctl_up", "1: the service has taken a snapshot.", float(last is not None))
        if last is None:
            return
        age = max(0, self._clock_ns() - last.monotonic_ns) / 1e9
        yield _single("napctl_snapshot_age_seconds", "Age of all these figures.", age)
        yield from _families(OF_MACHINE, (), [_Place((), last)])
        devices = [(each, (_safe(each.device), str(each.netns or ""))) for each in last.devices]
        yield from _families(OF_DEVICES, ("device", "netns"), [_Place(labels, each) for each, labels in devices])
        polling = (
            [_Place((*labels, str(napi.napi_id)), Polling.of(napi)) for each, labels in devices for napi in each.napis]
            if self._per_napi
            else [_Place(labels, Polling.of(each)) for each, labels in devices]
        )
        yield from _families(OF_POLLING, ("device", "netns", *(("napi",) if self._per_napi else ())), polling)
        yield from _families(OF_TARGETS, ("target",), [_Place((_safe(each.target),), each) for each in last.targets])
        yield from _findings(last, self._clock_ns())


def text_of(collector: SnapshotCollector) -> bytes:
    """All metrics in Prometheus' text format."""
    return generate_latest(_registry(collector))


class MetricsServer:
    """Serves them over HTTP, in threads that change nothing, until it is closed. A context manager."""

    def __init__(self, collector: SnapshotCollector, address: str, port: int) -> None:
        """At this address alone. Raises NapctlError."""
        place = f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
        try:
            self._server = _Server(address, port)
        except (OSError, OverflowError) as error:
            raise _not_served(place, error) from None
        self._server.set_app(make_wsgi_app(_registry(collector)))
        self._closed = False
        self._thread = threading.Thread(target=self._serve, daemon=True, name="napctl-metrics")
        self._thread.start()

    def _serve(self) -> None:
        """Sleeps until somebody connects: serve_forever() would look twice a second whether it is to end."""
        while not self._closed:
            self._server.handle_request()

    @property
    def port(self) -> int:
        """That it listens on."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Take no more scrapes. Those that are being answered have a second, as half an answer is worse than none."""
        self._closed = True
        self._server.socket.shutdown(socket.SHUT_RDWR)  # wakes up who waits for a connection
        self._thread.join()
        self._server.server_close()
        deadline = time.monotonic() + LAST_SCRAPES_SECONDS
        while self._server.scraping and time.monotonic() < deadline:
            time.sleep(0.01)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class _Server(ThreadingMixIn, WSGIServer):
    """One thread for each scrape, MOST_SCRAPES at most."""

    daemon_threads = True

    def __init__(self, address: str, port: int) -> None:
        """Raises OSError, OverflowError."""
        self.scraping: set[object] = set()
        """Connections that are being answered."""
        self.address_family, *_, place = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)[0]
        super().__init__((str(place[0]), port), _Handler)

    def verify_request(self, request: object, client_address: object) -> bool:
        """Whether there may be one more."""
        free = len(self.scraping) < MOST_SCRAPES
        if free:
            self.scraping.add(request)
        return free

    def shutdown_request(self, request: Any) -> None:
        """It was answered, or may not be."""
        self.scraping.discard(request)
        super().shutdown_request(request)


class _Handler(WSGIRequestHandler):
    timeout = LONGEST_SCRAPE_SECONDS

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in the base class
        """Nothing."""


def write_textfile(collector: SnapshotCollector, path: Path) -> None:
    """For node_exporter: whoever reads the file finds the old one or the new one whole. Raises NapctlError."""
    try:
        write_whole(path, text_of(collector), 0o644)
    except OSError as error:
        raise NapctlError(f"{path}: metrics cannot be written: {error.strerror}") from None


def _registry(collector: SnapshotCollector) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry


def _not_served(place: str, error: Exception) -> NapctlError:
    number = getattr(error, "errno", None)
    if number == errno.EADDRINUSE:
        return BadInput(f"metrics at {place}: another process listens there; name another port in the policy")
    if isinstance(error, socket.gaierror | OverflowError) or number == errno.EADDRNOTAVAIL:
        return BadInput(f"metrics at {place}: this machine has no such address and port")
    return NapctlError(f"metrics at {place}: {getattr(error, 'strerror', None) or error}")


def _safe(name: str) -> str:
    """A foreign name: one line, nothing that steers a terminal; what is no text at all is replaced."""
    return printable(name.encode(errors="replace").decode())


def _single(name: str, words: str, value: float) -> Metric:
    return GaugeMetricFamily(name, words, value=value)


def _families(table: Iterable[Exposed[Any]], labels: Sequence[str], places: Sequence[_Place]) -> Iterator[Metric]:
    """One for each metric of the table, without those that have no series."""
    for each in table:
        family = _family(each, (*labels, *each.labels))
        for place in places:
            for own, value in each.rows(place.of):
                if isinstance(value, Buckets):
                    bounds = (*(str(float(bound)) for bound in value.bounds), "+Inf")
                    family.add_metric([*place.labels, *own], list(zip(bounds, value.counts, strict=True)), value.sum)
                elif value is not None:
                    family.add_metric([*place.labels, *own], float(value))
        if family.samples:
            yield family


def _family(each: Exposed[Any], labels: Sequence[str]) -> Any:
    kinds = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "histogram": HistogramMetricFamily}
    return kinds[each.kind](each.name, each.help, labels=labels)


def _findings(last: Snapshot, now_ns: int) -> Iterator[Metric]:
    if last.findings_monotonic_ns is None:
        return
    most = FINDINGS_OF_MACHINE + FINDINGS_OF_DEVICE * len(last.devices)
    family = GaugeMetricFamily(
        "napctl_findings", "What doctor found, most serious first.", labels=("rule", "device", "severity")
    )
    for each in last.findings[:most]:
        family.add_metric([each.rule, _safe(each.device), each.severity], each.count)
    yield family
    age = (now_ns - last.findings_monotonic_ns) / 1e9
    yield _single("napctl_findings_age_seconds", "Time since doctor last looked.", max(0.0, age))
    omitted = float(max(0, len(last.findings) - most))
    yield _single("napctl_findings_omitted", "Findings beyond the number of series that are shown.", omitted)
