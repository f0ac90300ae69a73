"""Promises of output that nobody reads: nobody waits for it, and what is missing in the end is told where it is."""

import errno
import fcntl
import os
import re
import select
import socket
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.cli import output_queue
from napctl.cli.os_errors import OutputFailed
from napctl.cli.output_queue import OutputQueue, missing_text

PAGE = 4096


@dataclass(frozen=True)
class Ends:
    """Of a pipe or the like."""

    read: int
    write: int

    def all_read(self, least: int = 0) -> bytes:
        """What can be read by now; or, as a terminal takes its time, when it is that much."""
        found, deadline = b"", time.monotonic() + 20
        while select.select((self.read,), (), (), 0)[0] or (len(found) < least and time.monotonic() < deadline):
            found += os.read(self.read, 1 << 16)
        return found


@contextmanager
def pipe() -> Iterator[Ends]:
    """As small as they can be."""
    with ExitStack() as stack:
        ends = os.pipe()
        for each in ends:
            stack.callback(os.close, each)
        fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PAGE)
        yield Ends(*ends)


@contextmanager
def sockets() -> Iterator[Ends]:
    """As journald gives one to a service."""
    with ExitStack() as stack:
        read, write = map(stack.enter_context, socket.socketpair())
        write.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, PAGE)
        yield Ends(read.fileno(), write.fileno())


@contextmanager
def terminal() -> Iterator[Ends]:
    """Whose other end has stopped reading."""
    with ExitStack() as stack:
        ends = os.openpty()
        for each in ends:
            stack.callback(os.close, each)
        settings = termios.tcgetattr(ends[1])
        settings[1] &= ~termios.OPOST
        termios.tcsetattr(ends[1], termios.TCSANOW, settings)
        yield Ends(*ends)


@pytest.fixture(params=[pipe, sockets, terminal])
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    with request.param() as found:
        yield found


@contextmanager
def queue_to(number: int, most_bytes: int = 1 << 20) -> Iterator[tuple[OutputQueue, Callable[[bytes], int]]]:
    """A queue, and what writes to it."""

    def told(lines: int) -> None:
        stream.write(f"missing {lines}\n".encode())

    with closing(OutputQueue(told, most_bytes)) as queue:
        stream = queue.stream(number)
        yield queue, stream.write


def can_be_read(queue: OutputQueue) -> bool:
    return bool(select.select((queue,), (), (), 0)[0])


def test_nobody_waits_and_all_of_it_comes_as_soon_as_somebody_reads(ends: Ends) -> None:
    """It is woken for that, and not before."""
    lines = [b"%06d %s\n" % (number, 60 * b".") for number in range(1000)]
    with queue_to(ends.write) as (queue, write):
        for each in lines:
            write(each)
        queue.catch_up()
        assert not can_be_read(queue)

        found = b""
        deadline = time.monotonic() + 20
        while len(found) < len(b"".join(lines)) and time.monotonic() < deadline:
            found += ends.all_read()
            if can_be_read(queue):
                queue.catch_up()
        assert found == b"".join(lines)
        ends.all_read()
        assert not can_be_read(queue)
        write(b"last\n")
        assert ends.all_read(5) == b"last\n"
    assert os.get_blocking(ends.write)


def test_what_can_be_written_by_its_own_word_and_takes_nothing_wakes_us_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """As TCP does while memory is short (sk_stream_wait_memory() in net/core/stream.c)."""
    taken, is_full = list[bytes](), True

    def write_some(data: memoryview) -> int:
        if is_full:
            raise BlockingIOError
        taken.append(bytes(data))
        return len(data)

    with pipe() as ends:
        monkeypatch.setattr(output_queue, "_writer", lambda *_: (ends.write, write_some))
        with queue_to(ends.write) as (queue, write):
            write(b"a line\n")
            for _ in range(3):
                queue.catch_up()
                assert not can_be_read(queue)
            os.write(ends.write, PAGE * b".")
            assert len(ends.all_read()) == PAGE
            assert can_be_read(queue), "something has changed"
            is_full = False
            queue.catch_up()
    assert taken == [b"a line\n"]


def test_ctrl_s_holds_up_nobody() -> None:
    with terminal() as ends, queue_to(ends.write) as (queue, write):
        termios.tcflow(ends.write, termios.TCOOFF)
        write(b"a line\n")
        assert not can_be_read(queue)
        termios.tcflow(ends.write, termios.TCOON)
        assert can_be_read(queue)
        queue.catch_up()
        assert ends.all_read(7) == b"a line\n"


STEPS = st.lists(
    st.one_of(st.tuples(st.just("write"), st.integers(8, 3000)), st.tuples(st.just("read"), st.integers(1, 9000)))
)


@given(STEPS)
def test_each_line_is_read_in_its_order_or_counted_where_it_is_missing(steps: list[tuple[str, int]]) -> None:
    written, read = 0, b""
    with pipe() as ends, queue_to(ends.write, most_bytes=2 * PAGE) as (queue, write):
        for what, size in steps:
            if what == "write":
                write(b"%06d%s\n" % (written, (size - 7) * b"."))
                written += 1
            elif select.select((ends.read,), (), (), 0)[0]:
                read += os.read(ends.read, size)
            if can_be_read(queue):
                queue.catch_up()
        while (more := ends.all_read()) or can_be_read(queue):
            read += more
            queue.catch_up()
    number = 0
    for line in read.decode().splitlines():
        if missing := re.fullmatch(r"missing (\d+)", line):
            number += int(missing[1])
        else:
            assert re.fullmatch(rf"{number:06}\.*", line)
            number += 1
    assert number == written


def test_beyond_the_bound_lines_are_dropped() -> None:
    with pipe() as ends, queue_to(ends.write, most_bytes=1000) as (queue, write):
        for number in range(2 * PAGE // 100):
            write(b"%099d\n" % number)
        read = ends.all_read()
        queue.catch_up()
        read += ends.all_read()
    lines = read.splitlines()
    assert lines[-1] == b"missing %d" % (2 * PAGE // 100 - len(lines) + 1)
    assert PAGE // 100 + 10 >= len(lines) - 1 >= PAGE // 100


def test_one_line_longer_than_the_bound_is_written_whole() -> None:
    with pipe() as ends, queue_to(ends.write, most_bytes=1000) as (queue, write):
        write(20_000 * b"." + b"\n")
        read = b""
        while more := ends.all_read():
            read += more
            queue.catch_up()
    assert len(read) == 20_001


def test_a_reader_who_goes_is_the_end_as_soon_as_he_has_gone(ends: Ends) -> None:
    with queue_to(ends.write) as (queue, write):
        for _ in range(1000):
            write(100 * b"." + b"\n")
        with Path(os.devnull).open() as nobody:
            os.dup2(nobody.fileno(), ends.read)
        assert can_be_read(queue)
        with pytest.raises(OutputFailed) as failed:
            queue.catch_up()
        assert failed.value.errno in (errno.EPIPE, errno.ECONNRESET, errno.EIO)
        assert not can_be_read(queue)
        queue.catch_up()  # nothing of it is left


@pytest.mark.parametrize("first", [True, False])
def test_a_reader_who_goes_takes_nothing_from_who_reads_the_other_stream(first: bool) -> None:
    with pipe() as left, pipe() as read, closing(OutputQueue(lambda lines: None)) as queue:
        streams = {each.write: queue.stream(each.write) for each in ((left, read) if first else (read, left))}
        for stream in streams.values():
            stream.write(PAGE * b".")
            stream.write(b"the last words\n")
        with Path(os.devnull).open() as nobody:
            os.dup2(nobody.fileno(), left.read)
        assert read.all_read() == PAGE * b"."
        with pytest.raises(OutputFailed):
            queue.catch_up()
        assert read.all_read() == b"the last words\n"


def test_of_what_is_missing_it_says_how_much() -> None:
    assert missing_text(1) == "1 line is missing here: nobody read the output"
    assert missing_text(12) == "12 lines are missing here: nobody read the output"


PROGRAM = """
import sys
from napctl.cli.os_errors import tell_output_apart
from napctl.cli.output_queue import never_waiting
from napctl.cli.terminal import echo, echo_json
tell_output_apart()
with never_waiting(lambda lines: echo(f"missing {lines}")):
    for number in range(int(sys.argv[1])):
        echo(f"{number}") if number % 2 else echo_json(number)
        echo(f"{number}", err=True)
echo("end")
"""


def command(lines: int) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(lines)]


def test_lines_come_in_order_on_either_stream_also_to_a_file(tmp_path: Path) -> None:
    expected = "".join(f"{number}\n" for number in range(2000))
    done = subprocess.run(command(2000), capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout, done.stderr) == (f"{expected}end\n", expected)
    with (tmp_path / "log").open("w") as log:
        subprocess.run(command(2000), stdout=log, stderr=subprocess.DEVNULL, timeout=60, check=True)
    assert (tmp_path / "log").read_text() == f"{expected}end\n"


def test_at_the_end_it_waits_for_who_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_queue, "LAST_SECONDS", 60)
    lines, found = 2 * PAGE * b".", list[bytes]()
    with pipe() as ends:
        queue = OutputQueue(lambda _: None)
        queue.stream(ends.write).write(lines)
        reader = threading.Timer(0.2, lambda: found.append(ends.all_read(len(lines))))
        reader.start()
        queue.close()
        reader.join()
    assert found == [lines]


def test_at_the_end_it_does_not_wait_for_long() -> None:
    with pipe() as ends:
        queue = OutputQueue(lambda _: None)
        queue.stream(ends.write).write(2 * PAGE * b".")
        queue.close()
        assert ends.all_read() == PAGE * b"."


def test_what_cannot_be_opened_once_more_is_written_where_it_can(monkeypatch: pytest.MonkeyPatch) -> None:
    """As far as nobody else writes there."""

    def refused(number: int) -> int:
        raise PermissionError(number)

    monkeypatch.setattr(output_queue, "_opened_again", refused)
    with pipe() as ends, queue_to(ends.write) as (queue, write):
        for number in range(100):
            write(b"%0999d\n" % number)
        found = b""
        while more := ends.all_read():
            found += more
            queue.catch_up()
    assert [int(line) for line in found.splitlines()] == list(range(100))
