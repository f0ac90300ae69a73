"""Lines of /proc/PID/task/TID/syscall are read for what they say."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.kernel.syscall_numbers import syscall_numbers
from napctl.kernel.waiting import Waiting, current_wait, parsed
from napctl.probe.waits import KINDS

X86, ARM = syscall_numbers("x86_64"), syscall_numbers("aarch64")
STACK = 0x7FFD_0000_0000
MASK = (1 << 64) - 1
ints = st.integers(-(1 << 31), (1 << 31) - 1)
registers = st.integers(0, MASK)


def line(number: int, *arguments: int, stack: int = STACK) -> str:
    """As proc_pid_syscall() in fs/proc/base.c writes it."""
    padded = [*arguments, *[0] * (6 - len(arguments))]
    return f"{number} " + " ".join(f"{value & MASK:#x}" for value in (*padded, stack, 0x7F00_0000_0000)) + "\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (line(232, 5, STACK, 64, -1), Waiting("epoll", 5, -1)),
        (line(232, 5, STACK, 64, 0xFFFFFFFF), Waiting("epoll", 5, -1)),
        (line(281, 5, STACK, 64, 1500), Waiting("epoll", 5, 1500)),
        (line(441, 5, STACK, 64, 0), Waiting("epoll", 5, -1)),
        (line(441, 5, STACK, 64, STACK), Waiting("epoll", 5, None)),
        (line(7, STACK, 3, 20), Waiting("poll", -1, 20)),
        (line(271, STACK, 3, 0), Waiting("poll", -1, -1)),
        (line(271, STACK, 3, STACK), Waiting("poll", -1, None)),
        (line(23, 4, STACK), Waiting("select", -1, -1)),
        (line(270, 4, STACK, 0, 0, STACK), Waiting("select", -1, None)),
        (line(45, 9, STACK, 100), Waiting("recv", 9, None)),
        (line(0, 9, STACK, 100), Waiting("recv", 9, None)),
        (line(426, 7, 0, 1, 1), Waiting("io_uring", 7, None)),
        (line(426, 0, 0, 1, 1 | 16), Waiting("io_uring", -1, None)),
    ],
)
def test_what_a_thread_waits_in_is_told_with_its_timeout(text: str, expected: Waiting) -> None:
    found = parsed(text, X86)

    assert found is not None
    assert found[1] == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "running\n",
        "-1 0x7ffd00000000 0x7f0000000000\n",
        line(202, 5, 0, 0),  # futex
        line(7, STACK, 0, 1000),  # poll for no descriptor: a sleep
        line(23, 0, 0, 0, 0, STACK),
        line(7, 0xFFFFFFFF, 1, 0, stack=0xFFFF_0000),  # waitpid of a 32-bit program
        line(232, 5).rsplit(" ", 1)[0],
    ],
)
def test_what_is_no_wait_for_packets_is_none(text: str) -> None:
    assert parsed(text, X86) is None


@given(st.sampled_from(["epoll_wait", "epoll_pwait"]), ints, ints, st.integers(0, 0xFFFFFFFF))
def test_descriptors_and_timeouts_are_32_bits_of_a_register(name: str, fd: int, timeout: int, upper: int) -> None:
    dirt = upper << 32
    found = parsed(line(X86[name], fd & 0xFFFFFFFF | dirt, STACK, 8, timeout & 0xFFFFFFFF | dirt), X86)

    assert found == (name, Waiting("epoll", fd, max(timeout, -1)))


@given(st.integers(-1, 600), st.lists(registers, min_size=6, max_size=6), registers)
def test_any_call_with_any_arguments_is_read(number: int, arguments: list[int], stack: int) -> None:
    for numbers in (X86, ARM):
        found = parsed(line(number, *arguments, stack=stack), numbers)

        assert found is None or numbers[found[0]] == number


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    parsed(text, X86)


def test_an_unknown_architecture_has_no_numbers() -> None:
    assert syscall_numbers("pdp11") == {}
    assert parsed(line(232, 5), syscall_numbers("pdp11")) is None


def test_the_numbers_are_distinct_and_those_the_probe_counts() -> None:
    for numbers in (X86, ARM):
        assert len(set(numbers.values())) == len(numbers)
        assert set(numbers) <= set(KINDS)
        assert max(numbers.values()) < 512


def test_a_thread_that_runs_or_does_not_exist_waits_in_nothing() -> None:
    assert current_wait(os.getpid(), os.getpid()) is None
    assert current_wait(os.getpid(), 1 << 22) is None
    assert current_wait(1 << 22, 1 << 22) is None
