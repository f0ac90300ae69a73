"""Which descriptors are one open file, and what an epoll instance watches."""

import os
import select
import subprocess
import sys
from collections.abc import Callable
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from napctl.kernel import open_files
from napctl.kernel.open_files import Place, distinct, inode_of, order_of_files, watched, watches


def by(files: list[int | None]) -> Callable[[Place, Place], int | None]:
    """As kcmp(2) tells, of place N that is the file files[N]; None: it cannot be compared."""

    def order(one: Place, other: Place) -> int | None:
        ours, theirs = files[one[0]], files[other[0]]
        return None if ours is None or theirs is None else (ours > theirs) - (ours < theirs)

    return order


@given(st.lists(st.integers(0, 5), max_size=40))
def test_places_are_grouped_by_their_file_in_the_order_in_which_they_came(files: list[int]) -> None:
    places = [(number, 3) for number in range(len(files))]
    expected = [[(n, 3) for n, each in enumerate(files) if each == file] for file in dict.fromkeys(files)]
    assert distinct(places, by(list(files))) == expected


@given(st.lists(st.none() | st.integers(0, 3), max_size=20))
def test_one_that_cannot_be_compared_stands_alone_and_keeps_no_others_apart(files: list[int | None]) -> None:
    places = [(number, 3) for number in range(len(files))]
    found = distinct(places, by(files))
    assert sorted(place for group in found for place in group) == places
    assert all(len({files[number] for number, _ in group}) == 1 for group in found if len(group) > 1)
    known = [number for number, file in enumerate(files) if file is not None]
    assert sum(files[group[0][0]] is not None for group in found) == len({files[number] for number in known})


def test_a_thousand_take_some_ten_comparisons_each() -> None:
    asked = 0
    order = by(list(range(1000)))

    def counting(one: Place, other: Place) -> int | None:
        nonlocal asked
        asked += 1
        return order(one, other)

    assert len(distinct([(number, 3) for number in range(1000)], counting)) == 1000
    assert asked <= 10 * 1000


def test_the_kernel_tells_the_same_file_and_an_order_of_others() -> None:
    pid = os.getpid()
    one, two = os.pipe()
    again = os.dup(one)
    try:
        assert order_of_files((pid, one), (pid, again)) == 0
        assert {order_of_files((pid, one), (pid, two)), order_of_files((pid, two), (pid, one))} == {-1, 1}
        assert order_of_files((pid, one), (pid, 999_999)) is None
        assert distinct([(pid, one), (pid, two), (pid, again)]) == [[(pid, one), (pid, again)], [(pid, two)]]
    finally:
        for fd in (one, two, again):
            os.close(fd)


@pytest.mark.parametrize("number_tells", [False, True])
def test_what_an_epoll_instance_watches_is_known_under_any_number(
    monkeypatch: pytest.MonkeyPatch, number_tells: bool
) -> None:
    """Without kcmp(2) the number has to do."""
    if number_tells:
        monkeypatch.setattr(open_files, "KCMP", None)
    pid = os.getpid()
    with select.epoll() as inner, select.epoll() as other, select.epoll() as outer:
        outer.register(inner.fileno(), select.EPOLLIN)
        moved = os.dup(inner.fileno())
        try:
            assert watches(pid, outer.fileno(), inner.fileno(), inner.fileno())
            assert watches(pid, outer.fileno(), inner.fileno(), moved) is not number_tells
            assert not watches(pid, outer.fileno(), inner.fileno(), other.fileno())
            assert not watches(pid, inner.fileno(), inner.fileno(), other.fileno())
            assert watched(pid, outer.fileno()) == ((inner.fileno(), inode_of(pid, other.fileno())),)
        finally:
            os.close(moved)


def test_two_that_were_added_under_one_number_are_told_apart() -> None:
    pid = os.getpid()
    with select.epoll() as outer, ExitStack() as stack:
        number, kept = 900, []
        for _ in range(3):
            each = stack.enter_context(select.epoll())
            os.dup2(each.fileno(), number)
            outer.register(number, select.EPOLLIN)
            kept.append(each.fileno())
        os.close(number)

        assert len(watched(pid, outer.fileno())) == 3
        assert all(watches(pid, outer.fileno(), number, each) for each in kept)
        assert not watches(pid, outer.fileno(), number, outer.fileno())


def test_a_socket_of_the_network_is_told_from_those_of_the_machine() -> None:
    def ran(code: str) -> bool:
        with subprocess.Popen(
            [sys.executable, "-c", f"import socket, sys\n{code}\nprint(flush=True)\nsys.stdin.read()"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        ) as process:  # fmt: skip
            assert process.stdout is not None
            process.stdout.readline()
            return open_files.has_network_socket(process.pid)

    assert not ran("")
    assert not ran("held = socket.socketpair(), socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)")
    assert ran("held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)")
    assert ran("held = socket.socketpair(), socket.socket(socket.AF_INET6, socket.SOCK_STREAM)")
