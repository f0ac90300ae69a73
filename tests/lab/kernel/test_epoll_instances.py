"""Copies of others' descriptors: sockets and epoll instances, and nothing else; a sample where that will do."""

import os
import re
import select
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest

from napctl.attach.inspect_process import look_at
from napctl.change.journal import Journal
from napctl.change.transaction import begun
from napctl.kernel import epoll, processes, sockets
from napctl.kernel.epoll_instances import FEWEST, MOST_OF_PROCESS, EpollSockets, epoll_instances
from napctl.kernel.open_files import open_files
from napctl.lab.bed import Lab
from napctl.model.change import Change, EpollChange, SocketChange
from napctl.model.settings import SocketPolling
from tests.lab.helpers import PREFERS, UNSET, Napctl, at_server

pytestmark = pytest.mark.lab

CONNECTIONS = 40


@pytest.fixture
def watching() -> Iterator[tuple[select.epoll, list[socket.socket], list[int]]]:
    """An epoll instance of this process that busy-polls: a listener, other sockets, a pipe and an eventfd."""
    with ExitStack() as stack:
        found = [stack.enter_context(socket.create_server(("127.0.0.1", 0)))]
        found += (stack.enter_context(socket.socket(type=socket.SOCK_DGRAM)) for _ in range(CONNECTIONS))
        instance = stack.enter_context(select.epoll())
        others = [*os.pipe(), os.eventfd(0)]
        for fd in others:
            stack.callback(os.close, fd)
        for fd in (*(each.fileno() for each in found[1:]), *others[1:], found[0].fileno()):
            instance.register(fd, select.EPOLLIN)
        epoll.set_params(instance.fileno(), PREFERS)
        yield instance, found, others


def looked(instance: select.epoll, most: int | None, always: set[int]) -> EpollSockets[int | None]:
    pid = os.getpid()
    with processes.Handle(pid) as handle:
        told = epoll_instances(
            handle,
            open_files(pid),
            sockets.incoming_napi_id,
            most_sockets=most,
            always=always,
            wanted=lambda p: p.polls,
        )
        (one,) = (each for each in told if each.fd == instance.fileno())
        return one


@pytest.mark.parametrize("command", [["status"], ["doctor", "--seconds", 0.2], ["attach", os.getpid(), "--dry-run"]])
def test_a_pipe_in_an_epoll_instance_is_never_copied(
    lab: Lab,
    watching: tuple[select.epoll, list[socket.socket], list[int]],
    command: list[object],
    napctl: Napctl,
    tmp_path: Path,
) -> None:
    instance, watched, others = watching
    where = () if "attach" in command else at_server(lab)
    trace = tmp_path / "trace"
    under = ["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=pidfd_open,pidfd_getfd"]

    done = napctl(*command, *where, under=under)

    copied, ours = set(), ""
    for line in trace.read_text().splitlines():
        if opened := re.search(r"pidfd_open\((\d+), 0\) += (\d+)", line):
            ours = opened[2] if int(opened[1]) == os.getpid() else ""
        if ours and (got := re.search(rf"pidfd_getfd\({ours}, (\d+), ", line)):
            copied.add(int(got[1]))
    assert instance.fileno() in copied, done
    assert copied & {each.fileno() for each in watched}
    assert not copied & set(others)


@pytest.mark.parametrize("kind", ["epoll", "socket"])
def test_what_has_become_a_pipe_is_not_copied_to_be_put_back(kind: str, napctl: Napctl, tmp_path: Path) -> None:
    me = processes.process(os.getpid())
    assert me is not None
    with ExitStack() as stack:
        fd = os.open(os.devnull, os.O_RDONLY)  # a number for it
        stack.callback(os.close, fd)
        reading, writing = os.pipe()
        stack.callback(os.close, reading)
        stack.callback(os.close, writing)
        polling = SocketPolling(busy_poll_usecs=0, prefer_busy_poll=False)
        change: Change = (
            EpollChange(
                pid=me.pid, name=me.name, started_ticks=me.started_ticks, epoll_fd=fd, before=UNSET, after=PREFERS
            )
            if kind == "epoll"
            else SocketChange(
                pid=me.pid, name=me.name, started_ticks=me.started_ticks, fd=fd,
                inode=os.fstat(writing).st_ino + 1, budget=8, before=polling,
                after=SocketPolling(busy_poll_usecs=50, prefer_busy_poll=True),
            )
        )  # fmt: skip
        with Journal(napctl.state) as journal:
            transaction = begun("attach", me.name, (change,), pid=me.pid, started_ticks=me.started_ticks)
            journal.set_state(journal.begin(transaction), "attached")
        os.dup2(writing, fd)
        trace = tmp_path / "trace"

        done = napctl("detach", me.pid, under=["strace", "-f", "-qq", "-o", str(trace), "-e", "trace=pidfd_getfd"])

        assert done.status == 0, done
        assert "gone" in done.stdout
        assert "pidfd_getfd" not in trace.read_text()


def test_a_sample_of_the_sockets_is_spread_and_leaves_no_listener_out(
    watching: tuple[select.epoll, list[socket.socket], list[int]],
) -> None:
    instance, (listener, *datagrams), others = watching
    listening = os.fstat(listener.fileno()).st_ino

    everything, some = looked(instance, None, set()), looked(instance, 10, {listening})

    assert set(everything.told) == {listener.fileno(), *(each.fileno() for each in datagrams)}
    assert {fd for fd, _ in everything.watched} == {*everything.told, *others[1:]}
    assert everything.sockets == some.sockets
    assert len(some.told) == 11
    assert listener.fileno() in some.told
    places = sorted(list(some.sockets).index(fd) for fd in some.told)
    assert all(after - before <= 5 for before, after in pairwise(places))


def test_of_many_instances_fewer_sockets_of_each_are_asked(
    watching: tuple[select.epoll, list[socket.socket], list[int]],
) -> None:
    """Or a look at a server with a hundred threads would ask all of its ten thousand connections."""
    instance, (listener, *datagrams), _others = watching
    assert len(datagrams) > FEWEST
    with ExitStack() as stack:
        for _ in range(MOST_OF_PROCESS // FEWEST):
            stack.enter_context(select.epoll())
        some = looked(instance, 200, {os.fstat(listener.fileno()).st_ino})
    assert len(some.told) == FEWEST + 1


def test_a_look_at_a_few_sockets_finds_every_listener(
    watching: tuple[select.epoll, list[socket.socket], list[int]],
) -> None:
    instance, (listener, *_), _ = watching
    process = processes.process(os.getpid())
    assert process is not None

    look = look_at(process, most_sockets=1)

    assert look is not None
    (found,) = (each for each in look.instances if each.fd == instance.fileno())
    assert listener.fileno() in {each.fd for each in found.listeners}
