"""The probes of a process that runs for months: open all the time, loaded anew when their tables are full."""

import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from typing import Self

from napctl.kernel.namespaces import NetworkNamespace
from napctl.kernel.running_kernel import in_initial_pid_namespace
from napctl.model.counts import ProbeCounts
from napctl.model.errors import NapctlError
from napctl.model.latency import ProcessLatency
from napctl.model.overload import LoadReading
from napctl.model.snapshot import ProbeName
from napctl.model.suspension_counts import SuspensionCounts, suspended_between
from napctl.observe.packet_load import PacketLoadReader
from napctl.probe import Probe, ProbeUnavailable
from napctl.probe.latency import LatencyProbe
from napctl.probe.suspension import SuspensionProbe

__all__ = ["OpenPacketLoad", "OpenProbes", "Suspended"]


LEAST_SECONDS = 600
"""From one renewal to the next. What has not been of use for so long is taken for gone: a table that is full of what
lives would be full again at once."""
Suspended = dict[tuple[int, int], SuspensionCounts]
"""By network namespace and NAPI id."""


class OpenProbes:
    """A context manager. What cannot be loaded here is missing, and `unavailable` says why."""

    def __init__(self) -> None:
        self.unavailable: dict[ProbeName, str] = {}
        self._napi: Probe | None = None
        self._suspension: SuspensionProbe | None = None
        self._latency: LatencyProbe | None = None
        self._suspended: tuple[SuspensionCounts, ...] = ()
        self._latencies: tuple[ProcessLatency, ...] = ()
        self._pids: set[int] = set()
        self._lost = 0
        """At the last reading of polls()."""
        self._lost_before = 0
        """By probes since closed."""
        self._full = False
        """It had no place for a NAPI instance, or for a process that polled one."""
        self._places = _Places()
        """Of its tables."""
        self._renew_from = 0.0
        """CLOCK_MONOTONIC, s."""

    def __enter__(self) -> Self:
        try:
            self._napi = Probe.load()
        except ProbeUnavailable as error:
            self.unavailable["napi"] = error.reason
        try:
            self._suspension = SuspensionProbe.load()
        except ProbeUnavailable as error:
            self.unavailable["suspension"] = error.reason
        return self

    def __exit__(self, *exc: object) -> None:
        for probe in (self._napi, self._suspension, self._latency):
            if probe:
                probe.close()

    def up(self) -> dict[ProbeName, bool]:
        """Whether each is loaded; of the latency's, until a target has needed it, nothing."""
        found: dict[ProbeName, bool] = {"napi": self._napi is not None, "suspension": self._suspension is not None}
        if self._latency or "latency" in self.unavailable:
            found["latency"] = self._latency is not None
        return found

    def polls(self) -> ProbeCounts | None:
        """Polls until now, by NAPI instance; None: nobody counts."""
        if not self._napi:
            return None
        counts = self._napi.read()
        self._lost, self._full = counts.lost_polls, counts.lost_polls + counts.lost_pollers > 0
        self._places.note(self._napi.polls_by_place)
        return counts

    @property
    def lost_polls(self) -> int:
        """That found no place in the table of polls, until its last reading."""
        return self._lost_before + self._lost

    def suspended(self) -> Suspended | None:
        """What came since the last call; None: nobody counts."""
        if not self._suspension:
            return None
        before, self._suspended = self._suspended, self._suspension.read()
        return suspended_between(before, self._suspended)

    def latencies(self, pids: set[int]) -> tuple[tuple[ProcessLatency, ...], tuple[ProcessLatency, ...]]:
        """The last reading and this one. `pids` are the processes that are looked at from now on."""
        before = self._latencies
        if not self._latency and pids and "latency" not in self.unavailable:
            self._load_latency(pids)
        if self._latency:
            for pid in pids - self._pids:
                self._latency.add(pid)
            for pid in self._pids - pids:
                self._latency.drop(pid)
            self._pids = pids
            self._latencies = self._latency.read()
        return before, self._latencies

    def renew(self) -> bool:
        """Load anew what is full of things that have gone; what would be counted meanwhile, a few ms, is lost.

        Whether polls() has begun again from zero.
        """
        full = self._full, self._suspension and self._suspension.is_full, self._latency and self._latency.is_full
        if not any(full) or time.monotonic() < self._renew_from:
            return False
        self._renew_from = time.monotonic() + LEAST_SECONDS
        with suppress(ProbeUnavailable):  # the old ones go on
            if self._suspension and self._suspension.is_full and self._suspension.holds_unused(LEAST_SECONDS):
                suspension = SuspensionProbe.load()
                self._suspension.close()
                self._suspension, self._suspended = suspension, ()
            if self._latency and self._latency.is_full and self._latency.holds_unused:
                latency = LatencyProbe.load(self._pids)
                self._latency.close()
                self._latency, self._latencies = latency, ()
            if self._napi and self._full and self._places.hold_unused(self._napi.polls_by_place()):
                napi = Probe.load()
                self._napi.close()
                self._napi, self._full, self._places = napi, False, _Places()
                self._lost_before, self._lost = self.lost_polls, 0
                return True
        return False

    def _load_latency(self, pids: Collection[int]) -> None:
        try:
            if not in_initial_pid_namespace():
                raise ProbeUnavailable("napctl is not in the initial PID namespace")
            self._latency, self._pids = LatencyProbe.load(pids), set(pids)
        except ProbeUnavailable as error:
            self.unavailable["latency"] = error.reason


class _Places:
    """Places of the tables of a probe, by counts of their use that are noted now and then."""

    def __init__(self) -> None:
        self._noted: tuple[Sequence[int], Sequence[int]] = (), ()
        """The last counts but one, and the last."""
        self._noted_at = float("-inf")

    def note(self, counts: Callable[[], Sequence[int]]) -> None:
        """If it is time."""
        if (now := time.monotonic()) - self._noted_at >= LEAST_SECONDS:
            self._noted, self._noted_at = (self._noted[1], counts()), now

    def hold_unused(self, counts: Sequence[int]) -> bool:
        """Whether one that was taken has not been of use for LEAST_SECONDS at least, and twice as long at most."""
        return any(then and then == now for then, now in zip(self._noted[0], counts, strict=False))


class OpenPacketLoad:
    """A PacketLoadReader of what is watched now: opened anew when that is something else. A context manager."""

    def __init__(self) -> None:
        self._reader: PacketLoadReader | None = None
        self._of: tuple[tuple[int, tuple[str, ...]], ...] = ()

    def read(
        self, watched: Sequence[tuple[NetworkNamespace, Collection[str]]], probe: ProbeCounts | None
    ) -> LoadReading | None:
        """Now. None: it cannot be read here; what else there is in a snapshot does not wait for it."""
        wanted = tuple((netns.inode, tuple(sorted(names))) for netns, names in watched)
        try:
            if self._reader is None or wanted != self._of:
                self.close()
                self._reader, self._of = PacketLoadReader(watched), wanted
            return self._reader.read(probe.cpus if probe else ())
        except (NapctlError, OSError):
            self.close()  # to be opened anew by the next
            return None

    def close(self) -> None:
        """Let the namespaces go."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
