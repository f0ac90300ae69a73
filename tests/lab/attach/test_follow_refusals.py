"""What attach --stay cannot attach, or must not keep attached: remembered, told once, and not looked at for ever."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from napctl.attach.follow import Stay
from napctl.attach.follow_many import follow, take_turns, wait_for_any
from napctl.attach.follow_pace import PULSE_SECONDS
from napctl.attach.target import parse
from napctl.change import transaction
from napctl.change.guard import watched
from napctl.change.journal import Journal
from napctl.change.objects import Places
from napctl.change.one_change import Upon, make
from napctl.change.transaction import apply, begun
from napctl.kernel import processes
from napctl.kernel.open_files import open_files
from napctl.lab.bed import Lab
from napctl.lab.load import LoadSpec, started
from napctl.lab.servers import Server
from napctl.lab.webservers import nginx
from napctl.model.backoff import Pauses
from napctl.model.change import Change, EpollChange
from napctl.model.errors import NapctlError, Unsupported
from napctl.model.snapshot import Decision
from napctl.model.suspension import Suspension
from tests.lab.attach.test_follow_cost import FORKS, worker_of
from tests.lab.cost import Cost, long_looks_in, traced
from tests.lab.following import (
    attached,
    connections,
    flap,
    following,
    new_connections_are_spread,
    queues_of,
    settings_of,
    steered,
)
from tests.lab.helpers import PREFERS, QUICKLY, UNSET, Napctl, another_memcached, ask, ending, params_of, until
from tests.lab.other_servers import loops, python_server

pytestmark = pytest.mark.lab

PROMPTLY = ("--defer-us", 200)
OFTEN = LoadSpec(rate_per_second=2000, seconds=100, connections=16, warmup_seconds=0.1, protocol="http", sleeps=True)


def test_a_target_that_only_a_long_look_refuses_is_tried_after_1_2_4_seconds_and_told_once(
    lab: Lab, napctl: Napctl, tmp_path: Path
) -> None:
    """It keeps nobody from the journal, and does not trace the machine's system calls for ever."""
    trace = tmp_path / "trace"
    with ending(loops(lab, "polled")) as server, started(lab, server, OFTEN) as load, ExitStack() as stack:
        load.wait_for_warmup()
        it = stack.enter_context(following(napctl, server.pid, *PROMPTLY, under=traced(trace)))
        told = it.told("timeout 0")
        until(lambda: long_looks_in(trace) >= 3, "two more looks")
        assert time.time() - told.seconds > 2.8  # 1 s and 2 s after the one before, and the next would be 4 s after it
        assert len(it.since()) == 1
        with Journal(napctl.state) as journal:
            assert journal.live() == []
        assert it.end() == 0


def test_an_instance_that_its_program_has_set_itself_is_looked_at_long_once(
    lab: Lab, napctl: Napctl, tmp_path: Path
) -> None:
    trace = tmp_path / "trace"
    with ending(python_server(lab, OWN)) as server, ask(lab, server), ExitStack() as stack:
        it = stack.enter_context(following(napctl, server.pid, *PROMPTLY, under=traced(trace)))
        it.told("attached")
        time.sleep(2)
        cost = Cost(it, trace)
        stack.enter_context(ask(lab, server))
        until(lambda: cost.reads, "a look at it")
        stack.enter_context(ask(lab, server))
        time.sleep(1.2)

        assert cost.long_looks == 0
        assert all(map(attached, settings_of(lab)))
        assert it.end() == 0
        assert PREFERS in params_of(server.pid).values()  # which is its own


OWN = """
    import select, socket, sys
    from napctl.suspension import suspended
    waiting = socket.create_server((sys.argv[1], int(sys.argv[2])))
    epoll = select.epoll()
    epoll.register(waiting, select.EPOLLIN)
    mine = suspended(epoll)
    mine.__enter__()
    open_ = {}
    while True:
        for fd, _ in epoll.poll():
            if fd == waiting.fileno():
                connection, _ = waiting.accept()
                open_[connection.fileno()] = connection
                epoll.register(connection, select.EPOLLIN)
            elif data := open_[fd].recv(100):
                open_[fd].sendall(b"VERSION\\r\\n")
            else:
                open_.pop(fd).close()
"""


def test_what_another_attachment_holds_is_told_and_attached_when_that_has_gone(lab: Lab, napctl: Napctl) -> None:
    with another_memcached(lab, 11501) as one, another_memcached(lab, 11502) as other, ExitStack() as stack:
        for server in (one, other):
            stack.enter_context(ask(lab, server))
        assert napctl("attach", one.pid, *PROMPTLY, "--window", 0).status == 0
        it = stack.enter_context(following(napctl, other.pid, *PROMPTLY))
        it.told(f"is polled by memcached ({one.pid}) already")
        assert set(params_of(other.pid).values()) == {UNSET}
        time.sleep(1.5)  # it has tried again
        assert len(it.since()) == 1

        assert napctl("detach", one.pid).status == 0
        it.told(f"attached memcached ({other.pid})")
        assert it.end() == 0


def test_one_change_that_is_refused_does_not_keep_the_others_from_being_made(
    lab: Lab, server: Server, napctl: Napctl
) -> None:
    wanted, refused = Suspension().epoll, list[Change]()
    me = processes.process(server.pid)
    assert me is not None
    fds = open_files(server.pid).epolls
    changes = [
        EpollChange(
            pid=me.pid, name=me.name, started_ticks=me.started_ticks, epoll_fd=fd, before=UNSET, after=wanted
        )
        for fd in (fds[0], 1, fds[1])  # 1 is none
    ]  # fmt: skip

    def leave_out(change: Change, _error: NapctlError) -> bool:
        refused.append(change)
        return True

    with Journal(napctl.state) as journal:
        made = apply(journal, begun("attach", me.name, tuple(changes)), then="attached", leave_out=leave_out)
        (recorded,) = journal.live()

    assert [each.where for each in refused] == [changes[1].where]
    assert recorded.changes == made.changes
    assert [each.where for each in made.changes] == [changes[0].where, changes[2].where]
    assert [params_of(server.pid)[fd] for fd in fds[:2]] == [wanted, wanted]


def test_one_worker_that_cannot_be_set_is_told_once_and_keeps_nobody_else_from_being_attached(
    lab: Lab, napctl: Napctl, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it is attached as soon as it can be."""
    told, refused = list[str](), list[Change]()
    can_be_set = False

    def tell(line: str, _kind: Decision | None = None, /) -> None:
        told.append(line)

    def refusing(change: Change, places: Places, upon: Upon = "former") -> Change:
        if isinstance(change, EpollChange) and change.pid == worker and not can_be_set:
            refused.append(change)
            raise Unsupported(f"{change.where}: refused")
        return make(change, places, upon)

    def stopped() -> Iterator[bool]:
        nonlocal can_be_set
        while len(refused) < 2:
            yield False
        assert set(params_of(worker).values()) == {UNSET}
        assert PREFERS in params_of(server.pid).values()
        assert all(map(attached, settings_of(lab)))
        where = refused[0].where
        assert [line for line in told if "cannot be attached" in line] == [
            f"{where} cannot be attached: {where}: refused"
        ]
        can_be_set = True
        while PREFERS not in params_of(worker).values():
            yield False
        yield True

    monkeypatch.setattr(transaction, "make", refusing)
    with ending(python_server(lab, FORKS)) as server, ask(lab, server), worker_of(lab, server) as worker:
        with watched(None, napctl.state) as guard:
            steps = stopped()
            stay = Stay(parse(str(server.pid)), QUICKLY, guard, napctl.state, tell)
            follow([stay], lambda: next(steps, True))
        assert not any(map(attached, settings_of(lab)))
        assert {params for pid in (server.pid, worker) for params in params_of(pid).values()} == {UNSET}


def test_what_starves_is_taken_back_with_the_reason_and_not_attached_again(lab: Lab, napctl: Napctl) -> None:
    before = settings_of(lab)
    with ending(loops(lab, "shy")) as server, started(lab, server, OFTEN) as load, ExitStack() as stack:
        load.wait_for_warmup()
        it = stack.enter_context(following(napctl, server.pid, *PROMPTLY))
        it.told("attached")
        it.told("until the safety timer (irq-suspend-timeout) stepped in")
        until(lambda: settings_of(lab) == before, "the device to be as before")
        told = len(it.since())
        time.sleep(2)

        assert set(params_of(server.pid).values()) == {UNSET}
        assert len(it.since()) <= told + 1  # that it waits, and why
        assert it.end() == 0


def test_a_group_that_no_longer_fits_its_queues_is_taken_back_and_steered_anew_when_it_does(napctl: Napctl) -> None:
    with Lab.build(queues=4) as lab, nginx(lab, workers=4, reuseport=True, port=8094) as server:
        before = settings_of(lab)
        with following(napctl, server.pid, "--steer", *PROMPTLY) as it:
            it.told("attached nginx")
            until(lambda: _all_steered(lab, server), "the workers to serve a queue each")
            for workers, why in ((8, "8 listeners share its port now"), (2, "2 are left")):
                changed = reload_with(server, workers)
                it.told("stopped steering the ", since=changed)
                assert why in " ".join(it.since(changed))
                until(lambda: settings_of(lab) == before, "the device to be as before")
                assert new_connections_are_spread(lab, server, 240)

                changed = reload_with(server, 4)
                it.told("attached nginx", since=changed)
                until(lambda: _all_steered(lab, server), "the workers to serve a queue each")
            assert it.end() == 0
        assert new_connections_are_spread(lab, server)


def _all_steered(lab: Lab, server: Server) -> bool:
    with connections(lab, server, 40):
        return steered(queues_of(*server.workers), 4)


def reload_with(server: Server, workers: int) -> float:
    """Let nginx have so many workers; when all of the others had gone, after the epoch."""
    arguments = Path(f"/proc/{server.pid}/cmdline").read_text().split()
    configuration = Path(arguments[arguments.index("-c") + 1])
    lines = configuration.read_text().splitlines()
    lines = [f"worker_processes {workers};" if each.startswith("worker_processes") else each for each in lines]
    configuration.write_text("\n".join(lines) + "\n")
    old, began = set(server.workers), time.time()
    os.kill(server.pid, signal.SIGHUP)
    until(lambda: len(server.workers) == workers and not old & set(server.workers), "the new workers")
    return began


def test_a_second_follower_of_the_same_target_is_refused(lab: Lab, server: Server, napctl: Napctl) -> None:
    with ask(lab, server), following(napctl, server.pid, *PROMPTLY) as it:
        it.told("attached memcached")
        assert napctl("attach", server.pid, "--stay", *PROMPTLY).failed_with(2, "already attached", "napctl detach")
        assert it.end() == 0


@pytest.mark.parametrize("event", ["a worker comes", "the link is reset", "somebody asks for it"])
def test_what_went_wrong_waits_for_its_time_unless_something_happens_that_may_have_mended_it(
    event: str, lab: Lab, napctl: Napctl
) -> None:
    told = list[str]()

    def tell(line: str, _kind: Decision | None = None, /) -> None:
        told.append(line)

    napctl.state.mkdir(mode=0o700)
    with ending(python_server(lab, FORKS)) as server, ExitStack() as stack:
        stack.enter_context(ask(lab, server))
        guard = stack.enter_context(watched(None, napctl.state))
        stay = Stay(parse(str(server.pid)), QUICKLY, guard, napctl.state, tell, pauses=Pauses(3600.0, 3600.0))
        stack.callback(stay.let_go)

        def is_attached() -> bool:
            wait_for_any([stay], seconds=0.1)
            list(take_turns([stay]))
            return stay.attached is not None

        napctl.state.chmod(0o777)  # which no napctl trusts
        until(lambda: is_attached() or told, "an error")
        napctl.state.chmod(0o700)
        until_s = time.monotonic() + 2 * PULSE_SECONDS
        while time.monotonic() < until_s:
            assert not is_attached()
        assert len(told) == 1

        match event:
            case "a worker comes":
                stack.enter_context(worker_of(lab, server))
            case "the link is reset":
                flap(lab)
                stack.enter_context(ask(lab, server))
            case _:
                stay.try_anew()
        until(is_attached, "it to be attached")
    assert not any(map(attached, settings_of(lab)))
