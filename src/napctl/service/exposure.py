"""What is seen of the service from outside: a snapshot now and then, and the metrics that are made of the last one."""

import threading
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack, nullcontext, suppress
from pathlib import Path
from typing import Self

from msgspec.structs import replace

from napctl import __version__
from napctl.doctor.rules import diagnose
from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.priority import in_background
from napctl.model.errors import NapctlError
from napctl.model.finding import Finding
from napctl.model.other_manager import Held, OtherManager
from napctl.model.policy import ServiceEntry
from napctl.model.snapshot import PolicyState
from napctl.observe.checkup import take_checkup
from napctl.probe import ProbeReader
from napctl.service.metrics import MetricsServer, SnapshotCollector, write_textfile
from napctl.service.snapshots import DeviceState, ServiceState, SnapshotTaker, Watched, WatchedTarget

__all__ = ["Exposure"]


SNAPSHOT_SECONDS = 15.0
"""Nobody scrapes more often than that by default."""
RARE_SECONDS = 60.0
"""The same while nobody has scraped for"""
UNASKED_NS = 300 * 10**9
"""so long: who begins to sees one that is no older, and fresh ones from then on."""
CHANGED_SECONDS = 1.0
"""Between a decision, after which there may be more, and a snapshot that shows it."""
DOCTOR_SECONDS = 300.0
"""Between two looks for findings, each of which"""
LOOK_SECONDS = 2.0
"""lasts so long."""


class Exposure:
    """Of one service; nothing is loaded, counted or served where the policy names no place. A context manager."""

    def __init__(self, service: ServiceEntry, netns: NetworkNamespace, clock_ns: Callable[[], int] = time.monotonic_ns):
        self._service, self._netns, self._clock_ns = service, netns, clock_ns
        self._open = ExitStack()
        self._taker: SnapshotTaker | None = None
        self._served = False
        self._collector = SnapshotCollector(per_napi=service.metrics_per_napi, clock_ns=clock_ns)
        self._taken_at = float("-inf")
        """When the last snapshot was, of the clock in s,"""
        self._wanted_at = float("inf")
        """and when the next is to be there at the latest, as something has changed since."""
        self._doctor = Doctor(netns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._open.close()

    def _now(self) -> float:
        return self._clock_ns() / 1e9

    def is_of(self, service: ServiceEntry) -> bool:
        """Whether that asks for the same."""
        mine = (self._service.metrics, self._service.metrics_per_napi)
        return mine == (service.metrics, service.metrics_per_napi)

    def seconds_left(self, now: float) -> float:
        """Until turn() is due, of the clock in s."""
        if self._service.metrics is None:
            return float("inf")
        unasked = self._served and self._collector.unasked_ns > UNASKED_NS  # who reads a textfile is not known
        pause = RARE_SECONDS if unasked else SNAPSHOT_SECONDS
        return max(0.0, min(self._taken_at + pause, self._wanted_at) - now)

    def changed(self) -> None:
        """Something is otherwise now: it is to be seen soon."""
        if self._taker is not None:
            self._taker.reread()
            self._wanted_at = min(self._wanted_at, self._now() + CHANGED_SECONDS)

    def turn(
        self,
        devices: Collection[str],
        targets: Sequence[WatchedTarget],
        states: Mapping[str, DeviceState],
        policy: PolicyState,
        managers: Sequence[OtherManager] = (),
        held: Sequence[Held] = (),
    ) -> None:
        """Take a snapshot. Raises NapctlError, OSError; it is due again all the same."""
        if self._taker is None:
            per_napi = self._service.metrics_per_napi
            self._taker = self._open.enter_context(SnapshotTaker(__version__, per_napi=per_napi))
        self._taken_at, self._wanted_at = self._now(), float("inf")
        self._doctor.look_if_due(devices, held, self._taker.polls_reader)
        state = ServiceState(
            policy=policy,
            devices={(self._netns.inode, name): each for name, each in states.items()},
            findings=self._doctor.findings,
            findings_monotonic_ns=self._doctor.looked_ns,
            managers=managers,
        )
        with in_background():
            self._collector.show(self._taker.take([Watched(self._netns, devices)], targets, state))
            self._publish()

    def _publish(self) -> None:
        """Over HTTP there is nothing to be had before the first snapshot."""
        place = self._service.metrics
        if place is not None and place.textfile is not None:
            write_textfile(self._collector, Path(place.textfile))
        if place is not None and place.address is not None and not self._served:
            try:
                self._open.enter_context(MetricsServer(self._collector, place.address, place.port or 0))
            except NapctlError as error:
                raise NapctlError(f"{error}; tried again in {SNAPSHOT_SECONDS:.0f}s") from None
            self._served = True


class Doctor:
    """Looks for findings in a thread of its own, which changes nothing: a look lasts seconds."""

    def __init__(self, netns: NetworkNamespace):
        self._netns = netns
        self._thread: threading.Thread | None = None
        self._due_at = time.monotonic() + DOCTOR_SECONDS / 5
        self.findings: tuple[Finding, ...] = ()
        self.looked_ns: int | None = None
        """CLOCK_MONOTONIC of the last look; None: there was none yet."""

    def look_if_due(
        self, devices: Collection[str], held: Sequence[Held], counted: Callable[[], ProbeReader | None]
    ) -> None:
        """At these devices, of which napctl has set what `held` says, and not twice at a time. `counted`: by what polls
        are counted already."""
        now = time.monotonic()
        if now < self._due_at or not devices or (self._thread is not None and self._thread.is_alive()):
            return
        self._due_at = now + DOCTOR_SECONDS
        arguments = tuple(devices), tuple(held), counted()
        self._thread = threading.Thread(target=self._look, args=arguments, daemon=True, name="napctl-doctor")
        self._thread.start()

    def _look(self, devices: tuple[str, ...], held: tuple[Held, ...], probe: ProbeReader | None) -> None:
        with suppress(NapctlError, OSError), in_background(), probe or nullcontext():
            checkup = take_checkup(self._netns, devices, LOOK_SECONDS, lambda _left: None, probe)
            self.findings = diagnose(replace(checkup, held=held))
            self.looked_ns = time.monotonic_ns()
