"""`attach --stay --latency-budget` beside an experiment: what adapts while a cell is measured."""

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import msgspec

from napctl.adapt.preference import Prefer
from napctl.change.journal import STATE_VARIABLE
from napctl.kernel.syscalls import end_with_parent
from napctl.model.errors import ChangedMeanwhile, NapctlError, Unsupported
from napctl.model.units import duration_text
from napctl.model.value import Value

__all__ = ["Adapt", "following"]


START_SECONDS = 20
END_SECONDS = 10
ATTACHED = "attached "


class Adapt(Value, frozen=True, kw_only=True):
    """What an adapting treatment is asked to keep."""

    budget_ns: int
    prefer: Prefer = "cpu"


@contextmanager
def following(pid: int, adapt: Adapt, directory: Path, *, steer: bool = False) -> Iterator[None]:
    """A process and its children are attached and adapted, by a napctl of its own, until the end of the context.

    It ends with this process, and puts everything back then. Raises Unsupported if it never attached anything, and
    NapctlError or ChangedMeanwhile if it does not end as it should.
    """
    command = [
        sys.executable, "-m", "napctl", "attach", str(pid), "--stay", "--json",
        "--latency-budget", duration_text(adapt.budget_ns), "--prefer", adapt.prefer, *(["--steer"] if steer else []),
    ]  # fmt: skip
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {STATE_VARIABLE: str(directory.absolute())},
        start_new_session=True,  # Ctrl-C at the terminal is this process's alone
        preexec_fn=end_with_parent,  # noqa: PLW1509 - one system call, which needs no lock of another thread
    ) as follower:
        said = [_first_event(follower)]
        try:
            yield
        finally:
            said += _end(follower)
        if not any(each.startswith(ATTACHED) for each in said):
            reasons = [each for each in said if not each.startswith("detached")] or said
            raise Unsupported(f"nothing was attached: {reasons[-1]}")


def _first_event(follower: "subprocess.Popen[bytes]") -> str:
    """It is attached, or waits for the load's first connection."""
    assert follower.stdout is not None
    assert follower.stderr is not None
    line = _line(follower.stdout, time.monotonic() + START_SECONDS)
    if line is not None:
        return _event(line)
    follower.kill()
    errors = follower.stderr.read().decode(errors="replace").strip().removeprefix("napctl: ")
    raise Unsupported(f"nothing was attached: {errors or 'the napctl that adapts said nothing'}")


def _event(line: bytes) -> str:
    return str(msgspec.json.decode(line)["event"])


def _line(output: IO[bytes], deadline: float) -> bytes | None:
    """The next one; None at the end, or when it is too late."""
    line = b""
    while not line.endswith(b"\n"):
        ready, _, _ = select.select([output], [], [], max(0.0, deadline - time.monotonic()))
        more = os.read(output.fileno(), 1) if ready else b""
        if not more:
            return None
        line += more
    return line


def _end(follower: "subprocess.Popen[bytes]") -> list[str]:
    """Put everything back; what it has said since its first event."""
    follower.send_signal(signal.SIGTERM)  # SIGINT is ignored by what a shell has started in the background
    try:
        output, errors = follower.communicate(timeout=END_SECONDS)
    except subprocess.TimeoutExpired:
        follower.kill()  # its guard puts everything back
        raise NapctlError(f"the napctl that adapts did not end within {END_SECONDS} s; it was killed") from None
    if follower.returncode == ChangedMeanwhile.exit_status:
        raise ChangedMeanwhile("somebody else has changed a setting of the server meanwhile, which was left as it is")
    if follower.returncode not in (0, -signal.SIGKILL):
        raise NapctlError(f"the napctl that adapts failed: {errors.decode(errors='replace').strip()}")
    return [_event(line) for line in output.splitlines()]
