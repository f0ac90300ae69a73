"""A keeper of devices in this process, with a clock that tests move; and the whole daemon, with the lines it tells."""

import json
import os
import signal
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from napctl.attach.objections import Objections
from napctl.change.guard_lock import service_guard
from napctl.kernel.namespaces import NetworkNamespace
from napctl.lab.bed import Lab
from napctl.model.change import Transaction
from napctl.model.plan import Deferral
from napctl.model.policy import DeviceEntry, Origin
from napctl.service.device_keeper import DeviceKeeper
from tests.lab.following import settings_of
from tests.lab.helpers import Napctl, until

ORIGIN = Origin(file="policy.toml", line=1)


def entry(name: str, **values: Any) -> DeviceEntry:
    return DeviceEntry(origin=ORIGIN, name=name, **values)


DEFERRAL = Deferral(defer_hard_irqs=2, gro_flush_timeout_ns=50_000)
SERVER = entry("server0", deferral=DEFERRAL)


def deferral_of(lab: Lab) -> set[tuple[int | None, int | None]]:
    return {(each.defer_hard_irqs, each.gro_flush_timeout_ns) for each in settings_of(lab)}


def is_set(lab: Lab) -> bool:
    """As SERVER asks for."""
    return deferral_of(lab) == {(2, 50_000)}


@dataclass
class Keeping:
    """One DeviceKeeper, and what it has told since the last time it was asked."""

    netns: NetworkNamespace
    state: Path
    held: set[int] = field(default_factory=set)
    objections: Objections = field(default_factory=Objections)
    now_s: float = 1000.0
    """It stands still but for later()."""
    lines: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.keeper = DeviceKeeper(
            self.netns, service_guard(60 * 10**9), self.state, self.objections,
            lambda _device, line, _kind=None: self.lines.append(line), lambda: self.held, self.clock,
        )  # fmt: skip

    def clock(self) -> float:
        return self.now_s

    def look(self, *entries: DeviceEntry) -> list[str]:
        """What it tells of one look; `entries`: those from now on."""
        if entries:
            self.keeper.keep(entries)
        self.keeper.take_notices()
        self.lines.clear()
        self.keeper.turn()
        return list(self.lines)

    def let_go(self) -> list[str]:
        self.lines.clear()
        self.keeper.let_go()
        return list(self.lines)

    def later(self, seconds: float) -> None:
        self.now_s += seconds

    @property
    def left_s(self) -> float:
        """Until the next look."""
        return self.keeper.seconds_left(self.clock())

    @property
    def in_force(self) -> Transaction:
        found = self.keeper.settings_in_force
        assert found is not None
        return found


@pytest.fixture
def keeping(bed: Lab, state: Path) -> Iterator[Keeping]:
    keeping = Keeping(bed.server.namespace, state)
    yield keeping
    keeping.keeper.let_go()


class Daemon:
    """A running `napctl daemon`."""

    def __init__(self, process: "subprocess.Popen[str]"):
        self.process = process
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.append(json.loads(line)["text"])

    def told(self, words: str, times: int = 1) -> str:
        """Wait until so many lines have these words; the last of them."""

        def found() -> list[str]:
            lines = [line for line in list(self.lines) if words in line]
            assert len(lines) >= times or self.process.poll() is None, self.lines
            return lines[times - 1 :]

        return until(found, f"{times} × '{words}' of {self.lines}")[-1]

    @property
    def pid(self) -> int:
        """Napctl's, also under a tracer."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        traced = Path(f"/proc/{self.process.pid}/comm").read_text() == "strace\n"
        return int(children[0]) if traced else self.process.pid

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        os.kill(self.pid, number)
        status = self.process.wait(60)
        self.reader.join()
        return status


@contextmanager
def daemon(
    napctl: Napctl, policy: Path, netns: NetworkNamespace | None = None, under: Sequence[str] = ()
) -> Iterator[Daemon]:
    """Killed at the end if it still runs."""
    where = ("--netns", f"/proc/{os.getpid()}/fd/{netns.fd}") if netns is not None else ()
    it = Daemon(napctl.start("daemon", "--policy", policy, "--log-format", "json", *where, under=under))
    try:
        yield it
    finally:
        if it.process.poll() is None:
            with suppress(OSError):
                os.kill(it.pid, signal.SIGKILL)
            it.process.kill()  # a tracer, which would wait for the guard
            it.process.wait()
        it.reader.join()
        for stream in (it.process.stdout, it.process.stderr):
            assert stream is not None
            stream.close()
