"""What the tests of targets share: trees of processes, listeners, control groups, and what a target is resolved to."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from secrets import token_hex

import pytest

from napctl.attach.target import parse, resolve
from napctl.kernel import cgroups, processes
from napctl.kernel.listeners import listeners
from napctl.kernel.process_tree import descendants
from napctl.lab.bed import Lab
from napctl.lab.servers import children
from napctl.model.errors import BadInput
from tests.lab.helpers import state_of_process, until

LISTEN = """
import os, socket, sys, time
kind, address, port, forks, name, forked = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), *sys.argv[5:]
def called(name):
    with open("/proc/self/comm", "w") as comm:
        comm.write(name)
called(name)
family = socket.AF_INET6 if ":" in address else socket.AF_INET
waiting = socket.socket(family, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM)
waiting.bind((address, port))
if kind == "tcp":
    waiting.listen()
for _ in range(forks):
    if os.fork() == 0:
        called(forked)
        break
time.sleep(60)
"""


def pids_of(text: object) -> list[int]:
    return [process.pid for process in resolve(parse(str(text)))]


def refusal(text: object) -> str:
    """Why that target is refused: one line for a person."""
    with pytest.raises(BadInput) as refused:
        resolve(parse(str(text)))
    line = str(refused.value)
    assert line.isprintable()
    return line


@contextmanager
def running(*command: str, count: int = 1) -> Iterator[list[int]]:
    """A command, once it is a tree of `count` processes, all of which wait, and so have the names that they are to
    have: their pids, parents first. All are killed at the end."""
    started = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:

        def tree() -> list[int]:
            return [started.pid, *(process.pid for process in descendants([started.pid]))]

        def waiting_tree() -> list[int]:
            pids = tree()
            waits = {state_of_process(pid) for pid in pids} <= {"S", "Z"}  # or has waited, and only threads are left
            return pids if waits and len(pids) == count else []

        yield until(waiting_tree, f"{count} processes that wait")
    finally:
        kill(tree())
        started.wait()


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def family(shell: str) -> tuple[str, str, str]:
    """A command that becomes: itself, a shell of that name and a sleep, and a sleep below that shell."""
    return shell, "-c", f'{shell} -c "sleep 60; true" & sleep 60 & wait'


@contextmanager
def listening(
    lab: Lab,
    port: int,
    kind: str = "tcp",
    address: str = "0.0.0.0",
    *,
    forks: int = 0,
    names: tuple[str, str] = ("listener", "listener"),
    at_client: bool = False,
) -> Iterator[int]:
    """A process in one of the lab's namespaces that waits on a port, with forks that share its socket: its pid."""
    end = lab.client if at_client else lab.server
    command = (sys.executable, "-c", LISTEN, kind, address, str(port), str(forks), *names)
    with end.namespace.entered(), running(*command, count=1 + forks) as (pid, *_):
        until(lambda: [each for each in listeners(port) if each.netns == end.namespace.inode], "it to listen")
        until(lambda: [name_of(each) for each in (pid, *children(pid))] == [names[0], *names[1:] * forks], "its names")
        yield pid


def name_of(pid: int) -> str:
    found = processes.process(pid)
    return found.name if found is not None else ""


def groups_here() -> Path:
    """Where a test may make control groups. Skips the test where it may not, but never silently in CI."""
    hierarchy = cgroups.hierarchy()
    if hierarchy is not None and hierarchy.root.strip("/.") == "":
        with suppress(OSError):
            trial = hierarchy.mount / f"napctl-test-{token_hex(8)}"
            trial.mkdir()
            trial.rmdir()
            return hierarchy.mount
    if os.environ.get("CI") == "true":
        pytest.fail("control groups must be writable in CI")
    pytest.skip("control groups cannot be made here")


def removed(directory: Path) -> bool:
    with suppress(OSError):  # a process that was killed is in its group until it has gone
        directory.rmdir()
    return not directory.exists()


class Groups:
    """Makes control groups, with processes in them."""

    def __init__(self, top: Path, undo: ExitStack):
        self._top, self._undo = top, undo

    def make(self, name: str) -> Path:
        directory = self._top / name
        directory.mkdir()
        self._undo.callback(lambda: until(lambda: removed(directory), f"{directory} to be empty"))
        return directory

    def sleeper(self, directory: Path) -> int:
        """The pid of a process in that group."""
        (pid,) = self._undo.enter_context(running("sleep", "60"))
        (directory / "cgroup.procs").write_text(str(pid))
        return pid
