"""Promises of what the system refuses: output that cannot be written, and everything else by its own name."""

import array
import errno
import fcntl
import os
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO

import pytest

from tests.unit.cli.test_main import PROGRAM

REFUSING = """
import sys
from napctl.cli import status
from napctl.cli.main import run
def refuse(*asked, **named):
    raise OSError({number}, {words!r}{file})
status.take_machine = refuse
sys.argv = ["napctl", "status"]
run()
"""

LACKS = "run it as root" if os.geteuid() else "a capability is missing, or a security module refuses"


def shell(line: str) -> "subprocess.CompletedProcess[str]":
    """A line of bash, in which $0 is napctl."""
    command = ["bash", "-c", line, str(PROGRAM)]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize("most", [5, 6])
def test_too_many_open_files_are_named_for_what_they_are_with_the_limit(most: int) -> None:
    done = shell(f"ulimit -n {most}; exec $0 status")
    said = f"napctl: too many open files: this process may have {most} (raise it: ulimit -n)\n"
    assert (done.returncode, done.stdout, done.stderr) == (6, "", said)


@pytest.mark.parametrize("command", ["status", "status --json", "--help", "compare --help"])
def test_a_full_disk_behind_the_output_is_one_line(command: str) -> None:
    done = shell(f"$0 {command} > /dev/full")
    assert (done.returncode, done.stderr) == (6, "napctl: output: No space left on device\n")


def test_a_pipe_that_nobody_reads_is_the_end_and_no_error() -> None:
    done = shell("$0 status | true; echo ${PIPESTATUS[0]}")
    assert (done.stdout, done.stderr) == ("141\n", "")


def test_an_error_that_nobody_can_be_told_is_in_the_exit_status() -> None:
    for where in ("2> /dev/full", "2>&-", "2> /dev/full > /dev/full"):
        assert shell(f"$0 no-such-command {where}").returncode == 2, where
    assert shell("$0 status > /dev/full 2> /dev/full").returncode == 6


def test_output_that_is_closed_is_as_dev_null() -> None:
    done = shell("$0 status >&-")
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("number", "file", "status", "said"),
    [
        (errno.EPERM, "", 4, f"not permitted (Operation not permitted): {LACKS}"),
        (errno.EACCES, ", '/sys/x'", 4, f"/sys/x: not permitted (Permission denied): {LACKS}"),
        (errno.ENOBUFS, "", 6, "the kernel had no buffer left and dropped what it was to tell (ENOBUFS); try again"),
        (errno.ENFILE, "", 6, "too many open files in the whole system (raise it: sysctl fs.file-max)"),
        (errno.ENOSPC, ", '/var/lib/x'", 6, "/var/lib/x: No space left on device"),
        (errno.EIO, "", 6, "the kernel refused: Input/output error (EIO)"),
        (errno.EPIPE, "", 6, "the kernel refused: Broken pipe (EPIPE)"),
    ],
)
def test_what_the_system_refuses_is_never_called_output(number: int, file: str, status: int, said: str) -> None:
    program = REFUSING.format(number=number, words=os.strerror(number), file=file)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"napctl: {said}\n")


LONG = """
from napctl.cli.os_errors import tell_output_apart
from napctl.cli.stop_signals import Stop
from napctl.cli.terminal import echo, echo_json
tell_output_apart()
stop = Stop()
{how}("x" * 300_000, err={err})
echo(f"asked: {{stop.asked}}", err={err})
"""


@contextmanager
def with_a_full_pipe(
    command: list[str], *, err: bool = False, blocking: bool = True, size: int = 65_536
) -> Iterator["tuple[subprocess.Popen[bytes], IO[bytes]]"]:
    """A program that has written so much that it waits for who reads, and what it wrote, to be read."""
    ours, theirs = os.pipe()
    fcntl.fcntl(theirs, fcntl.F_SETPIPE_SZ, size)
    os.set_blocking(theirs, blocking)
    streams = {"stderr" if err else "stdout": theirs}
    with os.fdopen(ours, "rb") as output, subprocess.Popen(command, **streams) as running:  # type: ignore[call-overload]
        os.close(theirs)
        waiting, deadline = array.array("i", [0]), time.monotonic() + 20
        while waiting[0] < size and time.monotonic() < deadline:
            time.sleep(0.01)
            fcntl.ioctl(ours, termios.FIONREAD, waiting)
        time.sleep(0.1)
        yield running, output


@pytest.mark.parametrize("err", [False, True])
@pytest.mark.parametrize("how", ["echo", "echo_json"])
def test_a_line_is_written_to_its_end_also_if_ctrl_c_asks_for_an_end_meanwhile(how: str, err: bool) -> None:
    with with_a_full_pipe([sys.executable, "-c", LONG.format(how=how, err=err)], err=err) as (running, output):
        running.send_signal(signal.SIGINT)
        time.sleep(0.1)
        line, last = output.read().decode().splitlines()

    assert (running.returncode, last) == (0, "asked: True")
    assert line.strip('"') == "x" * 300_000


def test_a_line_is_written_to_its_end_also_where_writing_does_not_wait() -> None:
    command = [sys.executable, "-c", LONG.format(how="echo", err=False)]
    with with_a_full_pipe(command, blocking=False) as (running, output):
        line, last = output.read().decode().splitlines()

    assert (running.returncode, line, last) == (0, "x" * 300_000, "asked: False")


def test_what_ctrl_c_cuts_off_is_said_once_and_with_its_status() -> None:
    whole = shell("$0 compare --help").stdout
    assert len(whole.encode()) > 4096
    with with_a_full_pipe([str(PROGRAM), "compare", "--help"], size=4096) as (running, output):
        running.send_signal(signal.SIGINT)
        time.sleep(0.1)
        cut = output.read()

    assert running.returncode == 128 + signal.SIGINT
    assert cut == whole.encode()[: len(cut)]
