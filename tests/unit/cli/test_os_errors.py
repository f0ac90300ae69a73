"""Promises of what the system refuses: output that cannot be written, and everything else by its own name."""

import errno
import os
import subprocess
import sys

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
    return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)


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
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", f"napctl: {said}\n")
