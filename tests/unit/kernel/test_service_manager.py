"""What a service tells the manager that started it: over a real socket of that kind."""

import os
import socket
import threading
from contextlib import closing, suppress
from pathlib import Path

import pytest

from napctl.kernel import service_manager
from napctl.kernel.service_manager import notify, watchdog_seconds


@pytest.mark.parametrize("abstract", [False, True])
def test_the_manager_is_told(abstract: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"napctl-test-{os.getpid()}" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"\0{name}" if abstract else name)
        manager.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}" if abstract else name)
        notify("READY=1", "STATUS=2 targets")
        assert manager.recv(1000) == b"READY=1\nSTATUS=2 targets"


def filled(path: Path) -> socket.socket:
    """A manager that has not read what it was told, as much as there is room for."""
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(str(path))
    with closing(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)) as other, suppress(BlockingIOError):
        other.setblocking(False)
        while True:
            other.sendto(b"BEFORE=1", str(path))
    return manager


def test_a_manager_that_reads_nothing_holds_up_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setattr(service_manager, "READY_SECONDS", 0.1)
    with closing(filled(tmp_path / "notify")):
        notify("WATCHDOG=1")
        notify("READY=1")


def test_a_manager_that_is_busy_for_a_while_hears_once_it_reads_that_the_service_is_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is said once, and a service of which it is not heard is ended; of the rest the next comes soon."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    monkeypatch.setattr(service_manager, "MOST_SECONDS", 0.01)
    with closing(filled(tmp_path / "notify")) as manager:
        notify("WATCHDOG=1")
        telling = threading.Thread(target=notify, args=("READY=1", "STATUS=2 targets"))
        telling.start()
        telling.join(0.2)
        assert telling.is_alive(), "it waits"
        manager.settimeout(20)
        heard = set[bytes]()
        while not any(each.startswith(b"READY=1") for each in heard):
            heard.add(manager.recv(1000))
        telling.join()
    assert heard == {b"BEFORE=1", b"READY=1\nSTATUS=2 targets"}


def test_nobody_is_told_where_nobody_listens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent/notify")
    notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "seconds"),
    [("30000000", None, 30.0), ("30000000", "1", None), ("0", None, None), ("x", None, None), (None, None, None)],
)
def test_how_long_the_manager_waits(
    usec: str | None, pid: str | None, seconds: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("WATCHDOG_USEC", usec), ("WATCHDOG_PID", pid)):
        monkeypatch.delenv(name, raising=False)
        if value is not None:
            monkeypatch.setenv(name, value)
    assert watchdog_seconds() == seconds
