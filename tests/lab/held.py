"""A napctl that is held at a step: it runs under strace, and is stopped as it enters a system call."""

import os
import signal
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.lab.helpers import Napctl, Step, at, until


def is_held(strace: "subprocess.Popen[str]", log: Path) -> bool:
    """Whether what it runs `at` a step, with "signal=SIGSTOP", is stopped there, and has not ended before; as soon as
    it is either."""
    until(lambda: "stopped by SIGSTOP" in text_of(log) or strace.poll() is not None, "napctl to be held")
    return strace.poll() is None


def let_go_on(strace: "subprocess.Popen[str]") -> None:
    """What is held there."""
    children = Path(f"/proc/{strace.pid}/task/{strace.pid}/children")  # which may leave some out while others end
    (pid,) = map(int, until(lambda: text_of(children).split(), "the child of strace"))
    os.kill(pid, signal.SIGCONT)


def held_until(
    napctl: Napctl, step: Step, log: Path, done: Callable[[], object], arguments: Sequence[object]
) -> "subprocess.Popen[str]":
    """One that was held at a step until that was done."""
    running = napctl.start(*arguments, under=at(step, "signal=SIGSTOP", log=log))
    assert is_held(running, log), running.communicate()
    done()
    let_go_on(running)
    return running


def text_of(path: Path) -> str:
    return path.read_text() if path.exists() else ""
