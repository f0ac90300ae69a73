"""Another hand at the settings, and another napctl: nobody's value is overwritten, and nobody waits for minutes."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from napctl.change.alternating import alternating
from napctl.change.guard import myself
from napctl.change.journal import Journal
from napctl.change.transaction import amend, apply, begun
from napctl.kernel import processes, sockets
from napctl.kernel.links import links
from napctl.lab.bed import Lab
from napctl.lab.servers import Server
from napctl.model.change import Change, CoalescingChange, EpollChange, NapiChange, SocketChange
from napctl.model.errors import ChangedMeanwhile
from napctl.model.machine import Coalescing
from napctl.model.settings import EpollParams, NapiSettings, SocketPolling
from tests.lab.held import held_until
from tests.lab.helpers import (
    PREFERS,
    UNSET,
    Napctl,
    another_memcached,
    ask,
    at,
    machine_of,
    params_of,
    set_napi,
    set_params,
    until,
)
from tests.lab.plans import frames_of, set_frames
from tests.lab.tap import Tap, written_to
from tests.lab.verify.test_verify import plan as tap_plan

pytestmark = pytest.mark.lab

THEIRS = NapiSettings(gro_flush_timeout_ns=777_000)
QUICKLY = ("--window", "0s", "--defer-us", 200)


@pytest.fixture
def tap() -> Iterator[Tap]:
    with written_to() as tap:
        tap.frames = 3
        yield tap


# Between the look and the change


def napi_change(lab: Lab, *, before: int = 0, after: int = 200_000) -> NapiChange:
    napi = lab.server.napis()[0]
    return NapiChange(
        netns=lab.server.namespace.inode,
        device="server0",
        ifindex=napi.ifindex,
        napi_id=napi.napi_id,
        before=NapiSettings(gro_flush_timeout_ns=before),
        after=NapiSettings(gro_flush_timeout_ns=after),
    )


def flush_of(lab: Lab) -> int | None:
    return lab.server.napis()[0].settings.gro_flush_timeout_ns


@contextmanager
def an_epoll(lab: Lab) -> Iterator[tuple[Change, Callable[[], object], Callable[[], object]]]:
    """The change, somebody's hand, and what it has now."""
    with another_memcached(lab, 11_401) as server, ask(lab, server):
        process = processes.process(server.pid)
        assert process is not None
        fd = next(iter(params_of(server.pid)))
        change = EpollChange(
            pid=server.pid, name=process.name, started_ticks=process.started_ticks, epoll_fd=fd, before=UNSET,
            after=PREFERS,
        )  # fmt: skip
        theirs = EpollParams(busy_poll_usecs=0, busy_poll_budget=16, prefer_busy_poll=False)
        yield change, lambda: set_params(server.pid, fd, theirs), lambda: params_of(server.pid)[fd]


@contextmanager
def a_socket(lab: Lab) -> Iterator[tuple[Change, Callable[[], object], Callable[[], object]]]:
    script = "import socket, time; udp = socket.socket(type=2); print(udp.fileno(), flush=True); time.sleep(60)"
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout
        fd, process = int(holder.stdout.readline()), processes.process(holder.pid)
        assert process is not None
        try:
            with processes.Handle(holder.pid) as handle, handle.copy_of(fd) as copy:
                before = sockets.polling(copy)
                change = SocketChange(
                    pid=holder.pid, name=process.name, started_ticks=process.started_ticks, fd=fd,
                    inode=os.fstat(copy).st_ino, budget=8, before=before,
                    after=SocketPolling(busy_poll_usecs=50, prefer_busy_poll=True),
                )  # fmt: skip
                theirs = SocketPolling(busy_poll_usecs=7, prefer_busy_poll=False)
                yield change, lambda: sockets.set_polling(copy, theirs, 0), lambda: sockets.polling(copy)
        finally:
            holder.kill()


def coalescing(lab: Lab, field: str) -> tuple[Change, Callable[[], object], Callable[[], object]]:
    netns = lab.server.namespace
    change = CoalescingChange(
        netns=netns.inode,
        device="tun0",
        ifindex=next(link.ifindex for link in links(netns) if link.name == "tun0"),
        before=Coalescing(rx_max_frames=0),
        after=Coalescing(**{field: 16}),  # type: ignore[arg-type]
    )
    return change, lambda: set_frames(netns, 7), lambda: frames_of(netns)


@contextmanager
def asked_for(lab: Lab) -> Iterator[tuple[Change, Callable[[], object], Callable[[], object]]]:
    yield coalescing(lab, "rx_max_frames")


@contextmanager
def beside_it(lab: Lab) -> Iterator[tuple[Change, Callable[[], object], Callable[[], object]]]:
    """What nobody asks to change, of a block that the driver is given as a whole: it would pass for a side effect."""
    yield coalescing(lab, "rx_usecs")


@contextmanager
def a_napi(lab: Lab) -> Iterator[tuple[Change, Callable[[], object], Callable[[], object]]]:
    last = lab.server.napis()[-1]
    change = NapiChange(
        netns=lab.server.namespace.inode, device="server0", ifindex=last.ifindex, napi_id=last.napi_id,
        before=NapiSettings(gro_flush_timeout_ns=0), after=NapiSettings(gro_flush_timeout_ns=200_000),
    )  # fmt: skip
    yield change, lambda: set_napi(lab, last.napi_id, THEIRS), lambda: lab.server.napis()[-1].settings


@pytest.mark.parametrize("kind", [a_napi, an_epoll, a_socket, asked_for, beside_it])
def test_what_somebody_has_set_since_the_look_is_not_overwritten(
    kind: Callable[[Lab], Iterator[tuple[Change, Callable[[], object], Callable[[], object]]]], bed: Lab, state: Path
) -> None:
    with kind(bed) as (change, set_theirs, now), Journal(state) as journal:  # type: ignore[attr-defined]
        set_theirs()
        theirs, before = now(), machine_of(bed.server)
        with pytest.raises(ChangedMeanwhile, match=r"is now (777us|16|7|50)\D.*it was (0|no)\b") as refused:
            apply(journal, begun("apply", "x", (napi_change(bed), change)), then="applied")

        assert change.where in str(refused.value)
        assert "what had been changed was put back" in str(refused.value), "the first change was made already"
        assert now() == theirs
        assert machine_of(bed.server) == before
        assert [each.state for each in journal.all()] == ["restored"]


def test_a_value_of_somebody_else_that_is_the_wanted_one_is_not_taken_for_napctls(lab: Lab, state: Path) -> None:
    change = napi_change(lab)
    set_napi(lab, change.napi_id, change.after)
    with Journal(state) as journal, pytest.raises(ChangedMeanwhile):
        apply(journal, begun("apply", "x", (change,)), then="applied")
    assert flush_of(lab) == 200_000


def test_what_is_added_to_an_attachment_is_not_overwritten_either(bed: Lab, state: Path) -> None:
    one, other = napi_change(bed), coalescing(bed, "rx_max_frames")[0]
    with Journal(state) as journal:
        made = apply(journal, begun("apply", "x", (one,)), then="applied")
        set_frames(bed.server.namespace, 7)
        with pytest.raises(ChangedMeanwhile, match="rx-max-frames is now 7"):
            amend(journal, made, more=(other,))

        assert frames_of(bed.server.namespace) == 7
        assert [each.changes for each in journal.live()] == [(one,)]
        assert flush_of(bed) == 200_000


def test_in_a_trial_a_hand_is_found_at_the_next_turn(lab: Lab, state: Path) -> None:
    change = napi_change(lab)
    with alternating(state, begun("verify", "server0", (change,), keeper=myself())) as switch:
        for on in (True, True, False, False, True):
            switch(on)
        assert flush_of(lab) == 200_000
        set_napi(lab, change.napi_id, THEIRS)
        for on in (True, False):
            with pytest.raises(ChangedMeanwhile, match="gro-flush-timeout is now 777us"):
                switch(on)
        set_napi(lab, change.napi_id, change.after)
    assert flush_of(lab) == 0


def in_the_window(napctl: Napctl, hand: Callable[[], object], *arguments: object) -> subprocess.Popen[str]:
    """Run it, and let the hand come when napctl has looked and is about to record what it will change."""
    with Journal(napctl.state):
        pass  # so that its first sync is of what it records
    return held_until(napctl, ("fdatasync", 1), napctl.state.with_name("log"), hand, arguments)


def test_attach_refuses_what_was_set_while_it_looked(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    (napi,) = lab.server.napis()
    running = in_the_window(
        napctl, lambda: set_napi(lab, napi.napi_id, THEIRS), "attach", server.pid, *QUICKLY
    )  # fmt: skip
    output, words = running.communicate(timeout=60)

    assert (running.returncode, output) == (5, "")
    assert len(words.splitlines()) == 1
    assert f"NAPI {napi.napi_id} of server0: gro-flush-timeout is now 777us; it was 0 when napctl looked" in words
    assert flush_of(lab) == 777_000
    assert UNSET in params_of(server.pid).values()
    assert PREFERS not in params_of(server.pid).values()
    assert napctl.live() == []


def test_who_stays_looks_again_and_leaves_what_was_set_as_the_former_value(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    (napi,) = lab.server.napis()
    running = in_the_window(
        napctl, lambda: set_napi(lab, napi.napi_id, THEIRS), "attach", server.pid, "--stay", "--defer-us", 200
    )
    until(lambda: flush_of(lab) == 200_000, "the attachment")
    (attached,) = napctl.live()
    assert attached.keeper is not None
    os.kill(attached.keeper.pid, signal.SIGINT)
    told, words = running.communicate(timeout=60)

    assert (running.returncode, words) == (0, "")
    assert "gro-flush-timeout is now 777us" in told
    assert flush_of(lab) == 777_000


def test_apply_refuses_what_was_set_while_it_looked(tap: Tap, napctl: Napctl, tmp_path: Path) -> None:
    def hand() -> None:
        tap.frames = 7

    running = in_the_window(napctl, hand, "apply", tap_plan(tmp_path / "plan", rx_max_frames=32), *tap.here)
    output, words = running.communicate(timeout=60)

    assert (running.returncode, output) == (5, "")
    assert len(words.splitlines()) == 1
    assert "tap0: rx-max-frames is now 7; it was 3 when napctl looked" in words
    assert tap.frames == 7
    assert napctl.live() == []


def test_a_comparison_ends_where_somebody_changes_what_it_compares(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl, tmp_path: Path
) -> None:
    (napi,) = lab.server.napis()
    load = ("--load", "sleep 0.5; echo rate 5", "--adapter", "regex:requests_per_second=rate (\\S+)")
    quick = ("--seconds", 0.4, "--warmup", 0, "--settle", 0, "--rounds", 20, "--output", tmp_path / "run")
    with napctl.start("compare", "base", "defer:200us", "--target", server.pid, *load, *quick) as running:
        for value in (200_000, 0):
            until(lambda: flush_of(lab) == value, "a treatment to be in force and over", 60)  # noqa: B023
        set_napi(lab, napi.napi_id, THEIRS)
        _, words = running.communicate(timeout=60)

    assert running.returncode == 5, words
    assert "somebody else has changed" in words.splitlines()[-1]
    assert flush_of(lab) == 777_000
    assert napctl.live() == []


# Guards


def test_a_napctl_that_dies_before_its_guard_has_looked_at_it_is_put_back(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = machine_of(lab.server)
    slow_guard = at(("close_range", 1), "delay_exit=3000000")  # by then napctl takes it for ready, and goes on
    slow_guard[-1] += "+"
    with napctl.start("attach", server.pid, "--stay", "--defer-us", 200, under=slow_guard) as strace:
        until(lambda: [each.state for each in napctl.live()] == ["attached"], "the attachment")
        (attached,) = napctl.live()
        assert attached.keeper is not None
        os.kill(attached.keeper.pid, signal.SIGKILL)
        until(lambda: machine_of(lab.server) == before, "the guard to restore")
        strace.wait(60)
    assert napctl.live() == []


# Detaching


def test_a_name_that_attach_refuses_is_refused_by_detach(lab: Lab, napctl: Napctl, unusual: str, port: int) -> None:
    before = machine_of(lab.server)
    name = Path(unusual).name
    with another_memcached(lab, port, program=unusual) as server, ask(lab, server):
        with another_memcached(lab, 11_402, program=unusual) as other, ask(lab, other):
            napctl.attach_quickly(server.pid)
            attach, detach = napctl("attach", name), napctl("detach", name)
            assert attach.failed_with(2, "2 processes have that name", str(server.pid), str(other.pid))
            assert detach.failed_with(2)
            assert detach.stderr == attach.stderr
            assert len(napctl.live()) == 1
        assert napctl("detach", f":{server.port}").status == 0
        assert machine_of(lab.server) == before
        assert napctl("detach", name).failed_with(2, "nothing is attached")


def test_what_detach_left_alone_can_still_be_forced(
    lab: Lab, server: Server, client: socket.socket, napctl: Napctl
) -> None:
    before = machine_of(lab.server)
    napctl.attach_quickly(server.pid)
    (napi,) = lab.server.napis()
    set_napi(lab, napi.napi_id, THEIRS)
    assert napctl("detach", server.pid).status == 5
    assert flush_of(lab) == 777_000
    assert napctl("detach", server.pid).failed_with(2, "nothing is attached")

    for _ in range(2):
        assert napctl("detach", server.pid, "--force").status == 0
        assert machine_of(lab.server) == before
