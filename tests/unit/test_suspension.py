"""Promises of `napctl.suspension` that need no network: what it takes, what it refuses, what it puts back."""

import asyncio
import errno
import os
import select
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any

import pytest

from napctl.kernel import epoll as kernel
from napctl.kernel.open_files import open_files
from napctl.model.errors import BadInput, NapctlError, Unsupported
from napctl.model.settings import EpollParams
from napctl.suspension import (
    ENDED,
    NO_NAPI,
    NOT_SET,
    suspended,
)

PREFERS = EpollParams(busy_poll_usecs=0, busy_poll_budget=64, prefer_busy_poll=True)
UNSET = EpollParams(busy_poll_usecs=0, busy_poll_budget=0, prefer_busy_poll=False)
OTHER = EpollParams(busy_poll_usecs=7, busy_poll_budget=16, prefer_busy_poll=True)


def _obstacle() -> str | None:
    with select.epoll() as instance:
        try:
            kernel.params(instance.fileno())
        except OSError as error:
            return f"EPIOCGPARAMS: {error.strerror}"
    return None


OBSTACLE = _obstacle()
needs_params = pytest.mark.skipif(OBSTACLE is not None, reason=str(OBSTACLE))


@pytest.fixture
def instance() -> Iterator[select.epoll]:
    with select.epoll() as instance:
        yield instance


# What it takes.


@needs_params
def test_it_prefers_busy_polling_inside_the_block_and_brings_back_the_former_parameters(instance: select.epoll) -> None:
    kernel.set_params(instance.fileno(), OTHER)
    with suspended(instance) as active:
        assert kernel.params(instance.fileno()) == PREFERS
        assert (active.epoll_fd, active.params, active.former) == (instance.fileno(), PREFERS, OTHER)
    assert kernel.params(instance.fileno()) == OTHER


@needs_params
def test_it_takes_a_selector_and_a_descriptor(instance: select.epoll) -> None:
    with selectors.EpollSelector() as selector:
        for target, fd in ((selector, selector.fileno()), (instance.fileno(), instance.fileno())):
            with suspended(target) as active:
                assert active.epoll_fd == fd
                assert kernel.params(fd) == PREFERS
            assert kernel.params(fd) == UNSET


@needs_params
def test_it_finds_the_epoll_instance_of_a_loop_among_others_running_or_not() -> None:
    async def inside(expected: int) -> None:
        with suspended(asyncio.get_running_loop()) as active:
            await asyncio.sleep(0.001)
            assert active.epoll_fd == expected
            assert kernel.params(expected) == PREFERS
        assert kernel.params(expected) == UNSET

    with select.epoll(), ExitStack() as stack:
        before = epoll_fds()
        loop = asyncio.SelectorEventLoop()
        stack.callback(loop.close)
        (own,) = epoll_fds() - before
        with suspended(loop) as active:
            assert active.epoll_fd == own
        loop.run_until_complete(inside(own))


@needs_params
def test_it_works_with_asyncio_runner() -> None:
    async def main() -> bool:
        with suspended(asyncio.get_running_loop()) as active:
            return kernel.params(active.epoll_fd) == PREFERS

    with asyncio.Runner() as runner:
        assert runner.run(main())


@needs_params
def test_the_parameters_can_be_chosen(instance: select.epoll) -> None:
    with suspended(instance, busy_poll_usecs=7, busy_poll_budget=16):
        assert kernel.params(instance.fileno()) == OTHER
    with suspended(instance, prefer_busy_poll=False) as active:
        assert active.status().verdict == NOT_SET


# What it puts back.


@needs_params
def test_a_value_that_somebody_else_set_meanwhile_is_left(instance: select.epoll) -> None:
    with suspended(instance):
        kernel.set_params(instance.fileno(), OTHER)
    assert kernel.params(instance.fileno()) == OTHER


@needs_params
def test_an_exception_passes_and_the_former_parameters_come_back(instance: select.epoll) -> None:
    with pytest.raises(ZeroDivisionError), suspended(instance):
        raise ZeroDivisionError
    assert kernel.params(instance.fileno()) == UNSET


@needs_params
def test_nested_blocks_come_back_one_by_one(instance: select.epoll) -> None:
    with suspended(instance):
        with suspended(instance, busy_poll_budget=16):
            assert kernel.params(instance.fileno()).busy_poll_budget == 16
        assert kernel.params(instance.fileno()) == PREFERS
    assert kernel.params(instance.fileno()) == UNSET


@needs_params
def test_of_blocks_that_overlap_the_last_to_end_brings_back_what_the_first_found(instance: select.epoll) -> None:
    first, second = suspended(instance), suspended(instance)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert kernel.params(instance.fileno()) == PREFERS
    second.__exit__(None, None, None)
    assert kernel.params(instance.fileno()) == UNSET


@needs_params
def test_threads_may_enter_and_leave_at_once(instance: select.epoll) -> None:
    def often() -> None:
        for _ in range(300):
            with suspended(instance):
                assert kernel.params(instance.fileno()) == PREFERS

    failures: list[object] = []
    before, threading.excepthook = threading.excepthook, lambda hooked: failures.append(hooked.exc_value)
    try:
        threads = [threading.Thread(target=often) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        threading.excepthook = before
    assert failures == []
    assert kernel.params(instance.fileno()) == UNSET


@needs_params
def test_an_instance_that_was_closed_inside_the_block_is_no_error(instance: select.epoll) -> None:
    with suspended(instance) as active:
        instance.close()
        assert active.status().verdict == ENDED


@needs_params
def test_what_has_the_number_of_a_closed_instance_is_left_alone(instance: select.epoll) -> None:
    with socket.socket() as other, select.epoll() as newer:
        kernel.set_params(newer.fileno(), OTHER)
        for taker in (other, newer):
            closed = select.epoll()
            number = closed.fileno()
            with suspended(closed) as active:
                closed.close()
                os.dup2(taker.fileno(), number)
            assert active.epoll_fd == number
            os.close(number)
        assert kernel.params(newer.fileno()) == OTHER


@needs_params
def test_a_forked_child_that_leaves_the_block_changes_nothing() -> None:
    code = """
import os, select
from napctl.kernel import epoll
from napctl.suspension import suspended
instance = select.epoll()
with suspended(instance) as active:
    child = os.fork()
    if child:
        os.waitpid(child, 0)
if not child:
    print(active.status().verdict, epoll.params(instance.fileno()).prefer_busy_poll, flush=True)
    os._exit(0)
print(epoll.params(instance.fileno()).prefer_busy_poll)
"""
    assert ran(code).split() == ["ended", "True", "False"]


# What it refuses.


@pytest.mark.parametrize("target", [None, "3", 3.0, True, object(), asyncio, selectors.EpollSelector])
def test_an_object_of_another_kind_is_bad_input(target: object) -> None:
    with pytest.raises(BadInput, match="takes an asyncio or uvloop event loop"), suspended(target):
        pytest.fail("entered")


def test_a_descriptor_of_another_kind_is_bad_input() -> None:
    with socket.socket() as other:
        with pytest.raises(BadInput, match=r"no epoll instance but socket:"), suspended(other.fileno()):
            pytest.fail("entered")
        with pytest.raises(BadInput, match="takes"), suspended(other):
            pytest.fail("entered")
    for number in (-1, 2**40, 1_000_000):
        with pytest.raises(BadInput, match="is not open"), suspended(number):
            pytest.fail("entered")


def test_what_is_closed_is_bad_input() -> None:
    instance, selector = select.epoll(), selectors.EpollSelector()
    loop = asyncio.SelectorEventLoop()
    for target in (instance, selector, loop):
        target.close()
        with pytest.raises(BadInput, match="is closed"), suspended(target):
            pytest.fail("entered")


def test_a_closed_uvloop_is_bad_input() -> None:
    loop = pytest.importorskip("uvloop").new_event_loop()
    loop.close()
    with pytest.raises(BadInput, match="is closed"), suspended(loop):
        pytest.fail("entered")


def test_a_loop_that_does_not_wait_in_epoll_is_unsupported() -> None:
    loop = asyncio.SelectorEventLoop(selectors.SelectSelector())
    try:
        with pytest.raises(Unsupported, match="SelectSelector"), suspended(loop):
            pytest.fail("entered")
    finally:
        loop.close()


def test_an_unknown_event_loop_is_unsupported() -> None:
    class Loop:
        def run_forever(self) -> None: ...

        def is_closed(self) -> bool:
            return False

    with pytest.raises(Unsupported, match=r"Loop: .* not known"), suspended(Loop()):
        pytest.fail("entered")


@pytest.mark.parametrize(
    "values",
    [
        {"busy_poll_usecs": -1},
        {"busy_poll_usecs": 2**31},
        {"busy_poll_budget": 2**16},
        {"busy_poll_budget": -1},
        {"busy_poll_budget": "64"},
    ],
)
def test_a_value_that_the_kernel_does_not_take_is_bad_input(instance: select.epoll, values: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match="must be a whole number"), suspended(instance, **values):
        pytest.fail("entered")


@needs_params
@pytest.mark.skipif(os.geteuid() != 0, reason="drops a capability that only root has")
def test_a_budget_above_64_needs_a_capability_and_one_that_root_had_set_is_not_lost_in_silence() -> None:
    code = """
import os, select
from napctl.kernel import epoll
from napctl.model.errors import NotPermitted
from napctl.model.settings import EpollParams
from napctl.suspension import suspended
instance = select.epoll()
epoll.set_params(instance.fileno(), EpollParams(busy_poll_usecs=0, busy_poll_budget=128, prefer_busy_poll=False))
os.setgroups([]); os.setgid(65534); os.setuid(65534)
for budget in (65, 64):
    try:
        with suspended(instance, busy_poll_budget=budget):
            print("entered")
    except NotPermitted as error:
        print(error)
"""
    refused, entered, not_restored = ran(code).splitlines()
    assert refused == not_restored
    assert "a budget above 64 needs CAP_NET_ADMIN" in refused
    assert entered == "entered"


@pytest.mark.parametrize(
    ("number", "kind"), [("ENOTTY", Unsupported), ("EOPNOTSUPP", Unsupported), ("EINVAL", NapctlError)]
)
def test_a_kernel_without_the_parameters_is_unsupported(
    instance: select.epoll, monkeypatch: pytest.MonkeyPatch, number: str, kind: type[NapctlError]
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(getattr(errno, number), "refused")

    monkeypatch.setattr("napctl.kernel.epoll.fcntl", SimpleNamespace(ioctl=refuse))
    with pytest.raises(kind, match="busy-poll parameters"), suspended(instance):
        pytest.fail("entered")


# uvloop, which does not tell its epoll instance.


@needs_params
def test_of_uvloop_the_only_epoll_instance_is_taken_and_one_of_several_is_not_guessed() -> None:
    pytest.importorskip("uvloop")
    code = """
import select, uvloop
from napctl.model.errors import Unsupported
from napctl.suspension import suspended
made = uvloop.new_event_loop()
with suspended(made) as active:
    print(active.params.prefer_busy_poll)
other = select.epoll()
try:
    with suspended(made):
        pass
except Unsupported as error:
    print(error)
"""
    taken, refused = ran(code).splitlines()
    assert taken == "True"
    assert refused == "which of 2 epoll instances is uvloop's cannot be told; give the descriptor"


# What it says.


@needs_params
def test_over_loopback_it_says_that_there_is_no_napi_id(instance: select.epoll) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        socket.create_connection(listener.getsockname()) as one,
        listener.accept()[0] as other,
    ):
        one.sendall(b"x")
        assert other.recv(1) == b"x"
        instance.register(other)
        with suspended(instance) as active:
            status = active.status()
    assert (status.verdict, status.watched, status.sockets_by_napi) == (NO_NAPI, 1, {})
    assert not status.can_be_active
    assert str(status).startswith("no NAPI id yet: none of the 1 descriptors")
    assert active.status().verdict == ENDED


def epoll_fds() -> set[int]:
    return set(open_files(os.getpid()).epolls)


def ran(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
