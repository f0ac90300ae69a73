"""A process beside pytest that ends what hangs, and what is left when pytest ends in whatever way.

pytest-timeout ends a test that hangs in Python. Where that does not help (the test hangs in C, or in its own clean-up,
waiting for a child that does not end) this does: GRACE_SECONDS after the limit it ends the children, and as long after
that pytest, which first tells where it hangs. When pytest has ended, all that it started is ended, too: whatever has
MARK in its environment, wherever it stands in the tree of processes by then.
"""

import os
import secrets
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

MARK = "NAPCTL_TEST_SESSION"
GRACE_SECONDS = 10.0
LEFT_SECONDS = 10.0
"""How long to look for what is left."""


class Watchdog:
    """Watches this process from now on. What it starts from now on has MARK in its environment."""

    def __init__(self, grace_seconds: float = GRACE_SECONDS) -> None:
        marked = secrets.token_hex(8)
        told, self._tell = os.pipe()
        os.set_inheritable(told, True)
        os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", __file__, *map(str, (os.getpid(), marked, told, grace_seconds))],
            {name: value for name, value in os.environ.items() if name != MARK},
            file_actions=[(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0)],
            setsid=True,  # Ctrl-C and the end of a terminal are for pytest
        )
        os.close(told)
        os.environ[MARK] = marked

    def begin(self, name: str, limit_seconds: float) -> None:
        """A test begins, which may take so long."""
        os.write(self._tell, f"{limit_seconds} {name}\n".encode())

    def end(self) -> None:
        """The test has ended."""
        os.write(self._tell, b"inf -\n")


def watch(pid: int, mark: str, told: int, grace_seconds: float) -> None:
    """Until that process ends; then end what is left of it."""
    try:
        process = os.pidfd_open(pid)
    except ProcessLookupError:  # so short was the run
        end_all(lambda: marked_by(mark))
        return
    waiting = select.poll()
    for fd in (process, told):
        waiting.register(fd, select.POLLIN)
    name, deadline = "", float("inf")
    steps: Iterator[tuple[str, Callable[[], None]]] = iter(())
    while process not in (ready := until_ready(waiting, deadline)):
        if told in ready:
            text = os.read(told, 1 << 16).decode(errors="replace") or "inf -"  # it ends: the pipe tells a bit earlier
            limit, _, name = text.splitlines()[-1].partition(" ")
            deadline, steps = time.monotonic() + float(limit) + grace_seconds, iter(measures(pid))
        else:
            words, act = next(steps, ("nothing helps", lambda: None))
            say(f"{name} goes on beyond its limit: {words}")  # before: what it says of itself then comes after, whole
            act()
            deadline = time.monotonic() + grace_seconds
    end_all(lambda: marked_by(mark))


def until_ready(waiting: select.poll, deadline: float) -> set[int]:
    """Which ones are, in that time."""
    remaining = max(0.0, deadline - time.monotonic()) * 1000
    return {fd for fd, _ in waiting.poll(None if remaining == float("inf") else remaining)}


def measures(pid: int) -> list[tuple[str, Callable[[], None]]]:
    """Against a test that hangs, one after the other: in words, and to be done."""
    return [
        ("ending what it started", lambda: end_all(lambda: children_of(pid))),
        ("asking pytest where it is, and to end", lambda: os.kill(pid, signal.SIGABRT)),
        ("killing pytest", lambda: os.kill(pid, signal.SIGKILL)),
    ]


def say(what: str) -> None:
    with suppress(OSError):
        os.write(2, f"\n{Path(__file__).name}: {what}\n".encode())


def end_all(found: Callable[[], list[int]]) -> None:
    """Kill until there is none."""
    patience = time.monotonic() + LEFT_SECONDS
    while (pids := found()) and time.monotonic() < patience:
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)


def children_of(pid: int) -> list[int]:
    """All processes below it."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):  # it has ended
            state, parent = entry.read_text(errors="replace").rpartition(") ")[2].split()[:2]
            if state != "Z":
                parents[int(entry.parent.name)] = int(parent)
    found, level = set[int](), {pid}
    while level := {child for child, parent in parents.items() if parent in level} - found:
        found |= level
    return sorted(found - {os.getpid()})


def marked_by(mark: str) -> list[int]:
    """All processes that were started with this mark, and live."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended, or is not ours
            if shows(entry, f"{MARK}={mark}"):
                found.append(int(entry.name))
    return found


def shows(process: Path, setting: str) -> bool:
    """Whether a process has that in its environment; a fork of the tests (forked.py) tells it by the name of a mapping.
    Raises OSError."""
    settings, mappings = (process / "environ").read_bytes().split(b"\0"), (process / "maps").read_bytes()
    return setting.encode() in settings or f"/memfd:{setting} ".encode() in mappings


if __name__ == "__main__":
    watch(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
